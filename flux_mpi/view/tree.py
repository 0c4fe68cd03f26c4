"""Trees of labels, as ``pstree`` draws them; alike leaves can be put together."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

STYLES = {
    "box": ("│   ", "├── ", "└── ", "    "),
    "ascii": ("|   ", "|-- ", "`-- ", "    "),
    "compact": ("│ ", "├─", "└─", "  "),
}
"""How lines are led past a node, to a node, to the last node, and past the last one."""


class Tree:
    """A node: its label, what stands before it in the line, and the nodes below."""

    __slots__ = ("children", "label", "prefix", "times")

    def __init__(self, label: str, prefix: str = "") -> None:
        self.label = label
        self.prefix = prefix
        self.children: list[Tree] = []
        self.times = 1
        """How many alike it stands for."""

    def combine(self) -> None:
        """Put alike leaves of one node together, where the first of them stands."""
        kept: dict[tuple[str, str], Tree] = {}
        children = []
        for child in self.children:
            if child.children:
                child.combine()
                children.append(child)
                continue
            first = kept.setdefault((child.prefix, child.label), child)
            if first is child:
                children.append(child)
            else:
                first.times += child.times
        self.children = children

    @property
    def text(self) -> str:
        return self.label if self.times == 1 else f"{self.times}*[{self.label}]"

    def lines(self, style: str = "box", *, skip_root: bool = False) -> Iterator[str]:
        """The tree line by line; ``skip_root``: what is directly below stands at the margin."""
        if not skip_root:
            yield self.prefix + self.text
            yield from self._below(style, "")
        else:
            for child in self.children:
                yield from child.lines(style)

    def _below(self, style: str, lead: str) -> Iterator[str]:
        past, tee, end, blank = STYLES[style]
        for at, child in enumerate(self.children):
            last = at == len(self.children) - 1
            yield f"{child.prefix}{lead}{end if last else tee}{child.text}"
            yield from child._below(style, lead + (blank if last else past))
