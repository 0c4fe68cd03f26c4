"""Writers of a selection of the resource graph: R (RFC 20), JGF (RFC 40) and text for people.

Each prints byte for byte what Fluxion's writer of the same name prints. Where that prints
nothing or what belongs to an earlier request, ours says what it was given (see each writer).
"""

from __future__ import annotations

from flux_mpi.resource.writers.base import EXCLUSIVE, EXCLUSIVE_PARENT, Writer, WriterError
from flux_mpi.resource.writers.jgf import JgfShorthandWriter, JgfWriter, to_jgf
from flux_mpi.resource.writers.rlite import RliteWriter
from flux_mpi.resource.writers.rv1 import Rv1NoschedWriter, Rv1ShorthandWriter, Rv1Writer
from flux_mpi.resource.writers.simple import PrettySimpleWriter, SimpleWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from flux_mpi.resource.graph import ResourceGraph

_WRITERS: dict[str, Callable[[ResourceGraph], Writer]] = {
    "simple": SimpleWriter,
    "jgf": JgfWriter,
    "jgf_shorthand": JgfShorthandWriter,
    "rlite": RliteWriter,
    "rv1": Rv1Writer,
    "rv1_nosched": Rv1NoschedWriter,
    "rv1_shorthand": Rv1ShorthandWriter,
    "pretty_simple": PrettySimpleWriter,
}

FORMATS = tuple(_WRITERS)
"""The formats that `create_writer` knows."""


def create_writer(format: str, graph: ResourceGraph) -> Writer:
    """A writer for selections of ``graph``. ValueError for a format that is not in `FORMATS`."""
    found = _WRITERS.get(format)
    if found is None:
        raise ValueError(f"match format: expected one of {', '.join(FORMATS)}, found {format!r}")
    return found(graph)


__all__ = [
    "EXCLUSIVE",
    "EXCLUSIVE_PARENT",
    "FORMATS",
    "Writer",
    "WriterError",
    "create_writer",
    "to_jgf",
]
