"""Times as text, in a zone of the test's own."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from flux_mpi.formats import timefmt

# 2026-11-22 05:04:17.25 UTC, a Sunday in winter.
WHEN = 1795323857.25


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC0")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("utc")
def test_the_forms_in_utc() -> None:
    assert timefmt.short(WHEN) == "Nov22 05:04"
    assert timefmt.clock(WHEN) == "05:04:17"
    assert timefmt.iso(WHEN) == "2026-11-22T05:04:17"
    assert timefmt.iso_precise(WHEN) == "2026-11-22T05:04:17.250000Z"


@pytest.mark.usefixtures("berlin")
def test_the_forms_elsewhere() -> None:
    assert timefmt.short(WHEN) == "Nov22 06:04"
    assert timefmt.iso_precise(WHEN) == "2026-11-22T06:04:17.250000+01:00"
    assert timefmt.parse_datetime(timefmt.iso_precise(WHEN), 0.0) == WHEN


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00:00"),
        (0.2, "0:00:01"),
        (61.4, "0:01:01"),
        (3723, "1:02:03"),
        (90123, "1 day, 1:02:03"),
        (176523, "2 days, 1:02:03"),
    ],
)
def test_hours_minutes_seconds(seconds: float, text: str) -> None:
    assert timefmt.hms(seconds) == text


@pytest.mark.usefixtures("utc")
@pytest.mark.parametrize(
    ("text", "offset"),
    [
        ("now", 0.0),
        ("+1h", 3600.0),
        ("+ 30", 30.0),
        ("-1.5m", -90.0),
        ("@1795323867.25", 10.0),
        ("2026-11-22T05:04:18.25", 1.0),
        ("2026-11-22 05:05:17.250", 60.0),
        ("2026-11-22T05:04:17.250000Z", 0.0),
        ("2026-11-22T06:04:17.250000+01:00", 0.0),
        ("2026-11-23", 68142.75),
        ("05:05", 42.75),
        ("5:05am", 42.75),
        ("5:04", 86400 - 17.25),
        ("5:04 PM", 43200 - 17.25),
        ("today", -18257.25),
        ("Today 5:05", 42.75),
        ("tomorrow", 68142.75),
        ("tomorrow 00:01:01", 68203.75),
    ],
)
def test_times_are_read(text: str, offset: float) -> None:
    assert timefmt.parse_datetime(text, WHEN) == pytest.approx(WHEN + offset, abs=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "+",
        "+x",
        "+inf",
        "@x",
        "25:00",
        "13:00pm",
        "today noon",
        "tomorrow x",
        "2026-13-01",
        "z",
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid"):
        timefmt.parse_datetime(text, WHEN)
