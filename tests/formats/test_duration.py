"""RFC 23: its vectors, what Flux prints, and that printing loses nothing that matters."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_mpi.formats import duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2ms", 0.002),
        ("0.1s", 0.1),
        ("30", 30.0),
        ("1.2h", 4320.0),
        ("5m", 300.0),
        ("0s", 0.0),
        ("5d", 432000.0),
        ("inf", math.inf),
        ("INF", math.inf),
        ("infinity", math.inf),
        # What strtod takes besides.
        ("1e3", 1000.0),
        ("1e3s", 1000.0),
        (".5m", 30.0),
        ("5.", 5.0),
        ("+1s", 1.0),
        ("0x10", 16.0),
        ("0x1d", 29.0),
        ("0x1p3s", 8.0),
        ("1e999", math.inf),
    ],
)
def test_the_vectors_of_the_rfc(text: str, seconds: float) -> None:
    assert duration.parse(text) == pytest.approx(seconds, rel=1e-15)


def test_numbers_are_seconds() -> None:
    assert duration.parse(90) == 90.0
    assert duration.parse(0.5) == 0.5


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "1x",
        "s",
        "1 s",
        " 1",
        "-1",
        "-1s",
        "nan",
        "infs",
        "inf s",
        "1M",
        "1H",
        "1S",
        "1sm",
        "1_0",
        "1e",
        "0x",
        "١",
        "1,5s",
        "1" * 100 + "y",
        True,
        None,
        -1,
        math.nan,
        [],
        b"1",
    ],
)
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="invalid Flux standard duration") as caught:
        duration.parse(text)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0123, "12.3ms"),
        (0.5, "0.5s"),
        (59, "59s"),
        (60, "1m"),
        (94.47, "1.5745m"),
        (94.4736, "1.57456m"),
        (5400, "1.5h"),
        (86400, "1d"),
        (math.inf, "inf"),
    ],
)
def test_the_largest_unit_is_printed(seconds: float, text: str) -> None:
    assert duration.format(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (0.0004, "0s"),
        (0.037, "0.037s"),
        (1.768, "1.768s"),
        (5.96, "5.960s"),
        (12.3456, "12.35s"),
        (96.5, "1.608m"),
        (300, "5m"),
        (5400, "1.5h"),
        (200000, "2.315d"),
        (math.inf, "inf"),
    ],
)
def test_tables_have_what_flux_has(seconds: float, text: str) -> None:
    assert duration.short(seconds) == text


@given(st.floats(0, 1e9))
def test_printing_and_reading_agree(seconds: float) -> None:
    assert duration.parse(duration.format(seconds, 17)) == pytest.approx(seconds, rel=1e-12)
    assert duration.parse(duration.format(seconds)) == pytest.approx(seconds, rel=1e-5)


def test_time_does_not_run_backwards() -> None:
    for bad in (-1.0, math.nan):
        with pytest.raises(ValueError, match="at least 0"):
            duration.format(bad)
