"""``flux-mpi resource-query``: match requests against a resource graph, without an instance.

Options, commands, output and exit statuses are those of Fluxion's ``resource-query``, with which
scripts and expected outputs can be shared; what goes beyond are hints on stderr for what Fluxion
passes over in silence, and status 1 for a session in which an input file was refused.
"""

from __future__ import annotations

import sys

from flux_mpi.cli.options import Command, UsageError, flag, repeat, value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flux_mpi.cli.options import Arguments

MATCHERS = {
    "CA": ("containment",),
    "IBA": ("ibnet",),
    "IBBA": ("ibnetbw",),
    "PA": ("power",),
    "PFS1BA": ("pfs1bw",),
    "C+IBA": ("containment", "ibnet"),
    "C+IBBA": ("containment", "ibnetbw"),
    "C+PA": ("containment", "power"),
    "C+PFS1BA": ("containment", "pfs1bw"),
    "IB+IBBA": ("ibnet", "ibnetbw"),
    "C+P+IBA": ("containment", "power", "ibnet"),
    "V+PFS1BA": ("virtual1", "pfs1bw"),
    "VA": ("virtual1",),
    "ALL": ("containment", "ibnet", "ibnetbw", "pfs1bw", "power"),
}
"""Names of combinations of subsystems; the first is the one that matching walks down."""

LOAD_FORMATS = ("grug", "hwloc", "jgf", "jgf_shorthand", "rv1exec", "rv1exec_force")
MATCH_FORMATS = (
    "simple",
    "pretty_simple",
    "jgf",
    "jgf_shorthand",
    "rlite",
    "rv1",
    "rv1_nosched",
    "rv1_shorthand",
)
GRAPH_FORMATS = ("dot", "graphml")
DEFAULT_FILE = "conf/default"
MAX_RESERVED = 2_000_000


class _ResourceQuery(Command):
    """Any mistake in the command line ends with status 1, as in Fluxion."""

    def parse(self, words: Sequence[str]) -> Arguments:
        try:
            return super().parse(words)
        except UsageError as error:
            raise UsageError(str(error), 1) from None


def _known(words: Sequence[str], *, lower: bool = False) -> Callable[[str], str]:
    def convert(text: str) -> str:
        found = text.lower() if lower else text
        if found not in words:
            raise ValueError(f"unknown format {text!r}: expected one of {', '.join(words)}")
        return found

    return convert


def _load_file(text: str) -> str:
    import os

    if os.path.isdir(text):
        raise ValueError(f"{text} is a directory: expected a file with a resource graph")
    if not os.path.exists(text):
        raise ValueError(f"{text} does not exist: expected a file with a resource graph")
    return text


def _matcher(text: str) -> tuple[str, ...]:
    for name, subsystems in MATCHERS.items():
        if text in (name, name.lower()):
            return subsystems
    raise ValueError(f"unknown matcher {text!r}: expected one of {', '.join(MATCHERS)}")


def _reserve(text: str) -> int:
    """Only checked: our arrays grow by themselves."""
    try:
        size = int(text)
    except ValueError:
        size = 0
    if not 0 <= size <= MAX_RESERVED:
        print(f"WARN: out of range specified for --reserve-vtx-vec: {text}", file=sys.stderr)
        size = 0
    return size


def _run(arguments: Arguments) -> int:
    from flux_mpi.cli.rq_session import run

    return run(arguments)


COMMAND = _ResourceQuery(
    "resource-query",
    "Match requests against a resource graph, without an instance.",
    groups=(
        (
            "The graph",
            (
                value(
                    "-L",
                    "--load-file",
                    metavar="FILE",
                    convert=_load_file,
                    help=f"File with the resource graph (default: {DEFAULT_FILE}).",
                ),
                value(
                    "-f",
                    "--load-format",
                    metavar="FORMAT",
                    default="grug",
                    convert=_known(LOAD_FORMATS),
                    help=f"Its format: {', '.join(LOAD_FORMATS)} (default: grug).",
                ),
                repeat(
                    "-W",
                    "--load-allowlist",
                    metavar="TYPES",
                    help="Load only resources of these types, joined by commas, and the cluster.",
                ),
                value(
                    "-r",
                    "--reserve-vtx-vec",
                    metavar="N",
                    convert=_reserve,
                    help=f"Vertices to reserve room for, up to {MAX_RESERVED}; has no effect here.",
                ),
            ),
        ),
        (
            "Matching",
            (
                value(
                    "-S",
                    "--match-subsystems",
                    metavar="MATCHER",
                    default=MATCHERS["CA"],
                    convert=_matcher,
                    help=f"Subsystems to match on: {', '.join(MATCHERS)} (default: CA).",
                ),
                value(
                    "-P",
                    "--match-policy",
                    metavar="POLICY",
                    default="first",
                    help="Which resources to prefer: low, high, lonode, hinode, lonodex, hinodex, "
                    "first, firstnode, firstnodex, locality, variation, or key=value settings of "
                    "one's own (default: first).",
                ),
                value(
                    "-T",
                    "--traverser-policy",
                    metavar="POLICY",
                    default="simple",
                    help="simple, or flexible for alternative slots (default: simple).",
                ),
                repeat(
                    "-p",
                    "--prune-filters",
                    metavar="HIGH:LOW[,...]",
                    help="Keep totals of LOW resources at HIGH ones (ALL: at all), by which a "
                    "search passes over what cannot match (default: ALL:core,ALL:node).",
                ),
            ),
        ),
        (
            "Output",
            (
                value(
                    "-F",
                    "--match-format",
                    metavar="FORMAT",
                    default="simple",
                    convert=_known(MATCH_FORMATS),
                    help=f"How to show matches: {', '.join(MATCH_FORMATS)} (default: simple).",
                ),
                value(
                    "-t",
                    "--test-output",
                    metavar="FILE",
                    help="Write matches into this file, which is emptied first.",
                ),
                value(
                    "-o",
                    "--graph-output",
                    metavar="BASENAME",
                    help="Write the graph into BASENAME.dot or BASENAME.graphml at the end.",
                ),
                value(
                    "-g",
                    "--graph-format",
                    metavar="FORMAT",
                    default="dot",
                    convert=_known(GRAPH_FORMATS, lower=True),
                    help="Format of that graph: dot or graphml (default: dot).",
                ),
                flag("-e", "--elapse-time", help="Tell the time and the visits of each match."),
                flag("-d", "--disable-prompt", help="Print no prompt."),
            ),
        ),
    ),
    description="Reads commands from standard input; 'help' lists them.",
    examples=(
        (
            "flux-mpi resource-query -L tiny.graphml -P high",
            "Begin a session; then, for example: match allocate job.yaml",
        ),
    ),
    run=_run,
)
