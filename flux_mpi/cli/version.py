"""``flux-mpi version``: versions of the commands and of the broker."""

from __future__ import annotations

import os

from flux_mpi import __version__
from flux_mpi.cli.options import Arguments, Command
from flux_mpi.message.errors import FluxError


def run(args: Arguments) -> int:
    print(f"commands:    \t\t{__version__}")
    uri = os.environ.get("FLUX_URI")
    if uri:
        from flux_mpi.client.handle import Handle

        try:
            with Handle() as handle:
                print(f"broker:  \t\t{handle.attr_get('version')}")
            print(f"FLUX_URI:\t\t{uri}")
        except FluxError as error:
            print(f"broker:  \t\tnot reachable: {error}")
    import platform

    print(f"python:  \t\t{platform.python_version()}")
    return 0


COMMAND = Command("version", "Print version information.", run=run)
