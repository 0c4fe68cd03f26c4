"""``flux-mpi start``: become a supervisor with a broker, or launch ranks that do.

This runs once on every rank, so it loads as little as it can: the broker, which needs the rest,
is another process.
"""

from __future__ import annotations

import os
import sys

from flux_mpi.instance import launcher
from flux_mpi.instance.options import UsageError, help_text, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_USAGE = 2
BROKER = "from flux_mpi.instance.main import main; raise SystemExit(main())"


def main(words: Sequence[str]) -> int:
    """Run ``flux-mpi start WORDS``; returns the exit status. Does not return with --test-size."""
    launch = launcher.detect()
    try:
        options = parse(words)
    except UsageError as error:
        if launch.rank != 0:
            # All ranks were given the same words. A launcher ends the others when one fails: it
            # must not be one of us that is first, and rank 0 that is never heard.
            return 0
        sys.stderr.write(f"flux-mpi start: {error}\nSee 'flux-mpi start --help'.\n")
        return EXIT_USAGE
    if options.help:
        if launch.rank == 0:
            sys.stdout.write(help_text() + "\n")
        return 0
    if options.test_size is not None:
        if launch.launcher is not None and launch.launcher != "slurm":
            sys.stderr.write("flux-mpi start: --test-size: this process has a launcher already\n")
            return EXIT_USAGE
        return _launch(options.test_size, [*options.forwarded, "--", *options.command])

    from flux_mpi.shell.supervisor import supervise

    env = dict(os.environ)
    return supervise([sys.executable, "-c", BROKER, *words], env)


def _launch(size: int, words: list[str]) -> int:
    mpiexec = launcher.find_mpiexec()
    if mpiexec is None:
        sys.stderr.write(
            "flux-mpi start: --test-size: no mpiexec found beside this Python or on PATH; install "
            "one with: pip install 'flux-mpi[mpich]'\n"
        )
        return 127
    os.environ.update(
        {k: v for k, v in launcher.OPENMPI_PERMISSIONS.items() if k not in os.environ}
    )
    sys.stdout.flush()
    sys.stderr.flush()
    command = launcher.mpiexec_command(mpiexec, size, words)
    try:
        os.execv(command[0], command)
    except OSError as error:
        sys.stderr.write(f"flux-mpi start: {command[0]}: {error.strerror}\n")
        return 126
