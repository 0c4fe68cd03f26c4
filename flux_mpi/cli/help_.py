"""``flux-mpi help``: an overview, or the help of one command."""

from __future__ import annotations

import sys

from flux_mpi.cli.commands import SECTIONS, load, names
from flux_mpi.cli.level import OPTIONS
from flux_mpi.cli.options import HELP, Arguments, Command, UsageError, synopsis

BEGINNING = """\
Usage: flux-mpi [OPTIONS...] COMMAND [ARGUMENTS...]

flux-mpi starts an instance (a workload manager of your own) on the nodes that mpiexec or srun
gives it, and runs jobs in it. First steps:

  flux-mpi start --test-size=4            a shell in an instance of four brokers
  flux-mpi resource list                  what there is to run on
  flux-mpi run -n2 hostname               run two tasks and see their output
  flux-mpi submit --cc=1-20 sleep {cc}    submit twenty jobs
  flux-mpi jobs -a                        see how they are doing
  mpiexec -n 4 flux-mpi start ./work.sh   the same from a script, on any cluster
"""


def overview() -> str:
    """All commands by section."""
    lines, width = [BEGINNING], 16
    for title, commands in SECTIONS:
        lines.append(f"{title}:")
        lines += [f"  {name:<{width}}{meaning}" for name, meaning in commands]
        lines.append("")
    lines.append("Before the command:")
    for option in OPTIONS.options:
        if option is not HELP:
            lines.append(f"  {synopsis(option).strip():<{width}}{option.help}")
    lines.append("")
    lines.append("See 'flux-mpi help COMMAND' or 'flux-mpi COMMAND --help' for one of them.")
    return "\n".join(lines) + "\n"


def run(args: Arguments) -> int:
    if not args.operands:
        sys.stdout.write(overview())
        return 0
    name, *rest = args.operands
    if name not in names():
        raise UsageError(f"flux-mpi: '{name}' is not a flux-mpi command.  See 'flux-mpi help'", 1)
    command = load(name)
    for word in rest:
        if word not in command.subcommands:
            raise UsageError(f"flux-mpi: '{command.name} {word}' is not a flux-mpi command", 1)
        command = command.subcommands[word]
    sys.stdout.write(command.help())
    return 0


COMMAND = Command(
    "help", "Explain flux-mpi, or one of its commands.", operands="[COMMAND...]", run=run
)
