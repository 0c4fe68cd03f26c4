"""Trees as they are drawn."""

from __future__ import annotations

from flux_mpi.view.tree import Tree


def tree(label: str, *children: Tree | str, prefix: str = "") -> Tree:
    found = Tree(label, prefix)
    found.children = [Tree(child) if isinstance(child, str) else child for child in children]
    return found


def test_styles() -> None:
    root = tree(".", tree("a", tree("b", "c"), "d"), "e")
    assert list(root.lines("box")) == [
        ".",
        "├── a",
        "│   ├── b",
        "│   │   └── c",
        "│   └── d",
        "└── e",
    ]
    assert list(root.lines("ascii")) == [
        ".",
        "|-- a",
        "|   |-- b",
        "|   |   `-- c",
        "|   `-- d",
        "`-- e",
    ]
    assert list(root.lines("compact", skip_root=True)) == ["a", "├─b", "│ └─c", "└─d", "e"]
    assert list(tree("last", tree("a", "b")).lines()) == ["last", "└── a", "    └── b"]


def test_alike_leaves_are_combined_where_the_first_stands() -> None:
    root = tree(".", "x", "y", "x", tree("x", "z", "z"), tree("x", "z", "z"), "x")
    root.combine()
    assert list(root.lines("compact")) == [
        ".",
        "├─3*[x]",
        "├─y",
        "├─x",
        "│ └─2*[z]",
        "└─x",
        "  └─2*[z]",
    ]


def test_what_stands_before_them_tells_leaves_apart() -> None:
    root = tree(".", Tree("x", "1 "), Tree("x", "2 "), Tree("x", "1 "))
    root.combine()
    assert list(root.lines()) == [".", "1 ├── 2*[x]", "2 └── x"]
