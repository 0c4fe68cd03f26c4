"""The help of ``flux-mpi start``; what it does is in ``flux_mpi.instance.start``.

``main`` goes there without loading this file: what becomes a broker loads no client's code.
"""

from __future__ import annotations

from flux_mpi.cli.options import Command, Option
from flux_mpi.instance.options import TABLE


def _options() -> list[Option]:
    found = []
    for name, short, metavar, help_text in TABLE:
        if name == "help" or not help_text:  # without a text: for brokers only
            continue
        names = ([f"-{short}"] if short else []) + [f"--{name}"]
        text = help_text[:1].upper() + help_text[1:] + "."
        found.append(Option(names, "value" if metavar else "count", text, metavar=metavar))
    return found


COMMAND = Command(
    "start",
    "Start an instance and run a command or a shell in it.",
    _options(),
    operands="[COMMAND...]",
    posix=True,
    description="""
    Under mpiexec or srun every rank becomes a broker; without, there is one. Rank 0 runs COMMAND,
    or a shell when standard input is a terminal, with FLUX_URI set. When it ends, so does the
    instance, with the same exit status.
    """,
    examples=(
        ("mpiexec -n 4 flux-mpi start ./workflow.sh", "Four brokers; the script submits jobs."),
        ("flux-mpi start --test-size=4", "A shell in an instance of four brokers, for trying."),
    ),
)
