"""Tables from format strings, and progress bars."""

from __future__ import annotations

import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_mpi.client import info
from flux_mpi.view.progress import Progress
from flux_mpi.view.table import Format, FormatError, cut

JOB = {
    "id": 293215404032,
    "state": 64,
    "result": 1,
    "name": "a-rather-long-name",
    "ntasks": 8,
    "nnodes": 4,
    "t_submit": time.mktime((2026, 11, 22, 5, 4, 17, 0, 0, -1)),
    "t_run": 100.0,
    "t_cleanup": 101.5,
    "nodelist": "n[0-3]",
    "waitstatus": 0,
}
EMPTY = {"id": 1 << 24, "state": 8}


def line(text: str, job: dict[str, object] = JOB) -> str:
    return Format(text, info.field).line(job)


@pytest.mark.parametrize(
    ("text", "full", "empty"),
    [
        ("{id.f58:>12}|", "    ƒ8hjSb9Z|", "        ƒVi9|"),
        ("{id.dec} {id.hex}", "293215404032 0x4445000000", "16777216 0x1000000"),
        ("{name:<10.10+}|", "a-rather-+|", "          |"),
        ("{name:.4}", "a-ra", ""),
        ("{ntasks:>6}|{ntasks:06d}", "     8|000008", "      |      "),
        ("{nnodes:>6h}", "     4", "     -"),
        ("{nodelist:h}", "n[0-3]", "-"),
        ("{runtime!F:>8h}", "  1.500s", "       -"),
        ("{runtime!H}", "0:00:02", "0:00:00"),
        ("{runtime:.2f}", "1.50", "0.00"),
        ("{t_submit!d:%b%d %R::>14}", "   Nov22 05:04", "              "),
        ("{t_submit!d:%H:%M:%S::<10h}|", "05:04:17  |", "-         |"),
        ("{t_submit!d}", "2026-11-22T05:04:17", ""),
        ("{t_submit!D:h}", "2026-11-22T05:04:17", "-"),
        ("{status} {status_abbrev:>2.2}", "COMPLETED CD", "SCHED  S"),
        ("a {{b}} {returncode}!", "a {b} 0!", "a {b} !"),
        ("{sched.reason_pending:>5}|", "     |", "     |"),
    ],
)
def test_columns(text: str, full: str, empty: str) -> None:
    assert line(text) == full
    if "id.f58" not in text:
        assert line(text, EMPTY) == empty


def test_headings_have_the_columns_width() -> None:
    table = Format("{id.f58:>12} {name:<6.6} {t_submit!d:%R::>8} {runtime!F:>3h}x", info.field)
    assert next(table.table([])) == "       JOBID NAME   T_SUBMIT RUNTIMEx"


def test_sentinels_drop_and_widen() -> None:
    text = "{id.dec} ?:{queue:<8.8} +:{name:<4.4} ?+:{nodelist:>2} {ntasks}"
    table = Format(text, info.field)
    assert list(table.table([JOB, EMPTY])) == [
        "JOBID NAME               NODELIST NTASKS",
        "293215404032 a-rather-long-name   n[0-3] 8",
        "16777216                             ",
    ]
    assert list(table.table([EMPTY], header=False)) == ["16777216      "]
    queued = {**EMPTY, "queue": "batch"}
    assert list(Format("{id.dec} ?:{queue:<8.8}|", info.field).table([queued])) == [
        "JOBID QUEUE   |",
        "16777216 batch   |",
    ]


def test_sorting_puts_unset_before_numbers_before_text() -> None:
    jobs = [{"id": 1, "nnodes": 10}, {"id": 2, "nnodes": 9}, {"id": 3}, {"id": 4, "nnodes": "x"}]
    table = Format("sort:nnodes,-id {id}", info.field)
    assert [job["id"] for job in table.sort(jobs)] == [3, 2, 1, 4]
    table.set_sort("-id")
    assert [job["id"] for job in table.sort(jobs)] == [4, 3, 2, 1]
    assert Format("sort:id{id}", info.field).line({"id": 5}) == "5"
    with pytest.raises(FormatError, match="Invalid sort key: nosuch"):
        table.set_sort("nosuch")


@pytest.mark.parametrize("text", ["{nosuch}", "{id", "{name!z}", "}"])
def test_bad_formats_are_refused(text: str) -> None:
    with pytest.raises(FormatError):
        Format(text, info.field)


def test_the_attributes_a_format_needs() -> None:
    table = Format("sort:nnodes {status} {user.x}", info.field)
    assert table.attrs == {"nnodes", "state", "result", "annotations"}


@given(
    st.text(max_size=20),
    st.sampled_from(["<", ">", "^", ""]),
    st.integers(0, 15),
    st.integers(1, 15),
)
def test_text_columns_agree_with_pythons_format(
    text: str, align: str, width: int, precision: int
) -> None:
    spec = f"{align}{width or ''}.{precision}"
    table = Format(f"{{name:{spec}}}", info.field)
    assert table.line({"id": 1, "name": text}) == format(text, spec)


def test_cutting_lines() -> None:
    assert cut("abcdef", 4) == "abc+"
    assert cut("abc", 4) == "abc"
    assert cut("abcdef", 0) == cut("abcdef", -1) == "abcdef"


def test_a_progress_bar_fits_and_counts() -> None:
    stream = io.StringIO()
    bar = Progress(stream, 200, width=70, started=time.time() - 62)
    bar.update(50, 3, 4, force=True)
    text = bar.line()
    assert len(text) == 69
    assert text.startswith("PD:146 R:4   CD:47  F:3   |")
    assert " 25.0% 0:01:02" in text
    assert "job/s" in Progress(stream, 200, jps=True).line()
    bar.finish()
    assert stream.getvalue().endswith("\n")
    assert Progress(stream, 0).line().count("100.0%") == 1
