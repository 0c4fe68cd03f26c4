"""The ``flux-mpi`` command: finds the command's file and turns its errors into exit statuses.

Exit statuses: the command's own; 1 for what failed, 2 for a command line that makes no sense, 130
after an interrupt, 141 when nobody reads the output any more.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_SHORTCUTS = {"-h": "help", "--help": "help", "-V": "version", "--version": "version"}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line (without the program's name); returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0].startswith("-") and words[0] not in _SHORTCUTS:
        status, words = _options(words)
        if status:
            return status
    name = words[0] if words else "help"
    if name == "start" and not any(word in ("-h", "--help") for word in words[1:2]):
        # What becomes a broker must not load a client's code first.
        from flux_mpi.instance.start import main as start

        return start(words[1:])
    if name == "pty":
        # Not for people: "flux-mpi alloc" has it run on the far side.
        from flux_mpi.shell.ptyhost import main as pty

        return pty(words[1:])
    try:
        status = _run(name, words[1:])
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141


def _options(words: list[str]) -> tuple[int, list[str]]:
    """Does what the options before the command say: (exit status if not 0, the command's words)."""
    from flux_mpi.cli.level import choose
    from flux_mpi.cli.options import HelpRequested, UsageError

    try:
        return 0, choose(words)
    except HelpRequested:
        return 0, ["help"]
    except UsageError as error:
        print(error, file=sys.stderr)
        return error.status, []
    except KeyboardInterrupt:
        return 130, []


def _run(name: str, words: list[str]) -> int:
    from flux_mpi.cli import commands
    from flux_mpi.cli.options import HelpRequested, UsageError, program
    from flux_mpi.message.errors import FluxError

    name = _SHORTCUTS.get(name, name)
    if name not in commands.names():
        from difflib import get_close_matches

        near = get_close_matches(name, commands.names(), 2)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        print(
            f"flux-mpi: '{name}' is not a flux-mpi command.{hint}  See 'flux-mpi help'",
            file=sys.stderr,
        )
        return 1
    command = commands.load(name)
    try:
        arguments = command.parse(words)
        run = arguments.command.run
        assert run is not None, "every command of the table has something to run"
        return run(arguments)
    except HelpRequested as request:
        sys.stdout.write(str(request))
        return 0
    except UsageError as error:
        print(error, file=sys.stderr)
        return error.status
    except BrokenPipeError:
        raise
    except FluxError as error:
        print(f"{program(command)}: ERROR: {error}", file=sys.stderr)
        return 1
    except TimeoutError as error:
        print(f"{program(command)}: ERROR: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"{program(command)}: ERROR: {where}{error.strerror or error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
