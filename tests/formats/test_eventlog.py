"""RFC 18: lines as Flux prints them, and logs that survive a round trip."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_mpi.formats import eventlog
from flux_mpi.formats.eventlog import Event, EventError, Formatter

# A job's log as `flux job eventlog` printed it in its forms.
JSON = """\
{"timestamp":1795323862.215075,"name":"submit","context":{"userid":0,"urgency":16,"flags":0,"version":1}}
{"timestamp":1795323862.2277853,"name":"validate"}
{"timestamp":1795323862.2441657,"name":"alloc","context":{"annotations":{"sched":{"resource_summary":"rank0/core[0-1]"}}}}
{"timestamp":1795323862.303833,"name":"release","context":{"ranks":"all","final":true}}
{"timestamp":1795323862.3039234,"name":"clean"}
"""
TEXT = """\
1795323862.215075 submit userid=0 urgency=16 flags=0 version=1
1795323862.227785 validate
1795323862.244166 alloc annotations={"sched":{"resource_summary":"rank0/core[0-1]"}}
1795323862.303833 release ranks="all" final=true
1795323862.303923 clean
"""
HUMAN = """\
[Nov22 05:04] submit userid=0 urgency=16 flags=0 version=1
[  +0.012710] validate
[  +0.029091] alloc annotations={"sched":{"resource_summary":"rank0/core[0-1]"}}
[  +0.088758] release ranks="all" final=true
[  +0.088848] clean
"""

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)
events = st.builds(
    Event,
    st.floats(1e-3, 1e11),
    st.text(min_size=1, max_size=12),
    st.none() | st.dictionaries(st.text(max_size=5), json_values, max_size=3),
)


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC0")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def printed(formatter: Formatter, log: list[Event]) -> str:
    return "".join(formatter.format(event) + "\n" for event in log)


def test_json_lines_are_flux_s() -> None:
    assert eventlog.dumps_log(eventlog.parse_log(JSON)) == JSON


def test_text_is_flux_s() -> None:
    log = eventlog.parse_log(JSON)
    assert printed(Formatter(), log) == TEXT
    assert eventlog.format_text(log[1]) == "1795323862.227785 validate"


@pytest.mark.usefixtures("utc")
def test_human_times_are_flux_s() -> None:
    log = eventlog.parse_log(JSON)
    assert printed(Formatter("human"), log) == HUMAN
    # Another minute begins another paragraph.
    log = [Event(1795323862.25, "a"), Event(1795323922.25, "b"), Event(1795323922.5, "c")]
    assert printed(Formatter("human"), log) == "[Nov22 05:04] a\n[Nov22 05:05] b\n[  +0.250000] c\n"


@pytest.mark.usefixtures("utc")
def test_the_other_times() -> None:
    log = [Event(1795323862.25, "a"), Event(1795323863.5, "b")]
    assert printed(Formatter("offset"), log) == "0.000000 a\n1.250000 b\n"
    assert printed(Formatter("offset", t0=1795323862.0), log) == "0.250000 a\n1.500000 b\n"
    assert printed(Formatter("iso"), log[:1]) == "2026-11-22T05:04:22.250000Z a\n"
    with pytest.raises(ValueError, match="raw human iso offset"):
        Formatter("roman")


@given(st.lists(events, max_size=6))
def test_logs_round_trip(log: list[Event]) -> None:
    text = eventlog.dumps_log(log)
    assert text.count("\n") == len(log), "one line each, whatever is in it"
    assert eventlog.parse_log(text) == log
    assert [Event.parse(event.to_dict()) for event in log] == log


def test_an_empty_context_is_none() -> None:
    assert Event(1.0, "start", {}) == Event(1.0, "start")
    assert eventlog.dumps_json(Event(1.5, "start", {})) == '{"timestamp":1.5,"name":"start"}'


@pytest.mark.parametrize(
    "obj",
    [
        {},
        {"timestamp": 1.0},
        {"name": "x"},
        {"timestamp": 0, "name": "x"},
        {"timestamp": -1, "name": "x"},
        {"timestamp": True, "name": "x"},
        {"timestamp": "1", "name": "x"},
        {"timestamp": float("nan"), "name": "x"},
        {"timestamp": 1.0, "name": ""},
        {"timestamp": 1.0, "name": 5},
        {"timestamp": 1.0, "name": "x", "context": []},
        {"timestamp": 1.0, "name": "x", "colour": "red"},
        [],
        None,
    ],
)
def test_what_is_no_event_is_refused(obj: Any) -> None:
    with pytest.raises(EventError, match="event"):
        Event.parse(obj)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"timestamp":1,"name":"a"}\n\n', 2),
        ("{\n", 1),
        ("x" * 9000 + "\n", 1),
        ("[" * 9000 + "\n", 1),
        ('{"timestamp":1,"name":"a"}\n{', 2),
    ],
)
def test_bad_lines_are_named(text: str, line: int) -> None:
    with pytest.raises(EventError, match=f"line {line}") as caught:
        eventlog.parse_log(text)
    assert len(str(caught.value)) < 300
