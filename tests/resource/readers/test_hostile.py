"""Input that means harm, or means nothing: one line says so, and that is all that happens."""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux_mpi.resource.graph import ResourceGraph
from flux_mpi.resource.readers import (
    FORMATS,
    ReaderError,
    attach,
    load,
    read_allocation,
    read_release,
)
from tests.resource.readers.samples import dump, recipe, small, whole
from tests.resource.readers.test_hwloc import DEVICES, v1, v2
from tests.resource.readers.test_rv1exec import rv1

XML = ("grug", "hwloc")


def _laughs() -> str:
    """Names for names for names: a billion of the first."""
    declared = '<!ENTITY a "ha">'
    for above, below in zip("bcdefghij", "abcdefghi"):
        declared += f'<!ENTITY {above} "{f"&{below};" * 10}">'
    return f'<?xml version="1.0"?><!DOCTYPE x [{declared}]><graphml>&j;</graphml>'


@pytest.mark.parametrize("format", XML)
@pytest.mark.parametrize(
    "text",
    [
        _laughs(),
        '<!DOCTYPE x [<!ENTITY a "' + "x" * 1_000_000 + '">]><x>' + "&a;" * 10_000 + "</x>",
        '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>',
        '<!DOCTYPE x [<!ENTITY % a SYSTEM "http://127.0.0.1:1/x"> %a;]><x/>',
    ],
)
def test_declared_entities_are_refused_before_they_grow(format: str, text: str) -> None:
    start = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ReaderError, match="expected no entity declarations, found one of 'a'"):
        load(text, format)
    assert time.monotonic() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


@pytest.mark.parametrize("format", XML)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<x>" * 10_000 + "</x>" * 10_000, "line 1: expected at most 256 nested elements"),
        ("<x>" * 10_000, "line 1: expected at most 256 nested elements"),
        ("<x", "line 1 column 1: expected XML, found none (unclosed token)"),
        ("", "expected XML"),
        ("no", "expected XML"),
        ("<x></y>", "mismatched tag"),
        ("<x>&b;</x>", "undefined entity"),
        ('<!DOCTYPE x SYSTEM "y"><x>&b;</x>', "found the entity 'b', declared elsewhere"),
        ("<x>\ud800</x>", "expected Unicode text, found a lone surrogate"),
        ("<x>\x00</x>", "expected XML"),
        ("<x y='1' y='2'/>", "duplicate attribute"),
        ("<x>" + "y" * 10_000_000 + "</x>", "expected at most 1048576 characters in <x>"),
        (f"<x y='{'z' * 10_000_000}'/>", "attribute 'y': expected at most 1048576 characters"),
        (f"<{'z' * 10_000_000}/>", "characters of a tag"),
        ("<x/>" * 2, "junk after document element"),
    ],
)
def test_xml(format: str, text: str, said: str) -> None:
    if not text and format == "hwloc":
        return  # a cluster of nothing
    with pytest.raises(ReaderError, match=f"^{format}: ") as refused:
        load(text, format)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


def test_a_declared_encoding_is_that_of_the_file_and_not_of_the_text() -> None:
    text = small().replace("GB", "µB")
    graph = load('<?xml version="1.0" encoding="latin-1"?>' + text, "grug")
    assert graph.unit(graph.of_type("memory")[0]) == "µB"


def test_names_of_ten_megabytes() -> None:
    name = "n" * 10_000_000
    for text, format in (
        (recipe(f'<node id="a"><data key="type">{name}</data></node>'), "grug"),
        (recipe(f'<node id="{name}"/>'), "grug"),
        (small().replace("socket", name[:2000]), "grug"),
        (dump(load(small(), "grug")).replace("socket0", name), "jgf"),
        (rv1(nodelist=(name, "b")), "rv1exec"),
        (v1().replace("host12", name), "hwloc"),
    ):
        with pytest.raises(ReaderError) as refused:
            load(text, format)
        assert len(str(refused.value)) < 300


# -- garbage ----------------------------------------------------------------------------------

_KEYS = (
    *("graph", "nodes", "edges", "metadata", "id", "type", "name", "paths", "rank", "size"),
    *("source", "target", "subsystem", "containment", "properties", "version", "execution"),
    *("R_lite", "children", "nodelist", "core"),
)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["0", "1", "0-3", "n[0-3]", "core", "/mine0", "/mine0/rack0"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(_KEYS),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


def _refusal(read: Any, *args: Any) -> str:
    """What `ReaderError` says, if that is how it ends, else nothing."""
    said = ""
    try:
        made = read(*args)
    except ReaderError as err:
        said = str(err)
    else:
        if isinstance(made, ResourceGraph):
            whole(made)
    return said


def _whatever(text: str) -> None:
    """Read ``text`` as everything; only `ReaderError` may come out, in one line."""
    graph = load(small(), "grug")
    before = whole(graph)
    for format in FORMATS:
        said = _refusal(load, text, format)
        assert "\n" not in said
        assert said.startswith(f"{format}: " if said else "")
        for read in (read_allocation, read_release):
            assert "\n" not in _refusal(read, graph, text, format)
    assert whole(graph) == before
    if _refusal(attach, graph, text, "jgf"):
        assert whole(graph) == before


@settings(deadline=None)
@given(st.text(max_size=200) | json_values.map(json.dumps))
def test_garbage(text: str) -> None:
    _whatever(text)


_GOOD = [
    small(),
    recipe(),
    dump(load(small(), "grug")),
    dump(load(small(), "grug"), exclusive=True, only={0, 1, 2, 4, 8}),
    rv1(properties={"arm": "0"}),
    v1(*DEVICES),
    v2(*DEVICES),
]


@settings(deadline=None)
@given(st.sampled_from(_GOOD), st.data())
def test_damaged_files(text: str, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.sampled_from([0, 1, 1, 2, 30, 300])))
        new = data.draw(
            st.text("0123456789-<>/\"'&{}[],: abN\n\\", max_size=3)
            | st.sampled_from(["null", "true", "-1", "1e9", "99999999999999999999", '"0"', "{}"])
        )
        text = text[:start] + new + text[end:]
    _whatever(text)


@settings(deadline=None)
@given(st.data())
def test_json_with_one_value_exchanged(data: st.DataObject) -> None:
    document = json.loads(data.draw(st.sampled_from([x for x in _GOOD if x.startswith("{")])))
    at: Any = document
    while True:
        keys = list(at) if isinstance(at, dict) else range(len(at))
        if not keys:
            return
        key = data.draw(st.sampled_from(list(keys)))
        if not isinstance(at[key], (dict, list)) or data.draw(st.integers(0, 4)) == 0:
            at[key] = data.draw(json_values)
            break
        at = at[key]
    _whatever(json.dumps(document))


def test_no_small_graph_needs_numpy() -> None:
    import subprocess

    code = (
        "import sys, flux_mpi.resource.readers as r\n"
        f"r.load({small()!r}, 'grug'); r.load({rv1()!r}, 'rv1exec'); r.load({v1()!r}, 'hwloc')\n"
        f"g = r.load({_GOOD[2]!r}, 'jgf'); r.read_allocation(g, {_GOOD[2]!r}, 'jgf_shorthand')\n"
        "assert not {'numpy', 'dataclasses', 'xml', 'inspect'} & set(sys.modules), 'heavy'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
