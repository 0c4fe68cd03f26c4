from __future__ import annotations

import subprocess
import sys

import pytest

from flux_mpi.instance.deadline import STATUS, ends_within

STUCK = """
import ctypes
from flux_mpi.instance.deadline import ends_within
with ends_within(0.2):
    ctypes.PyDLL(None).sleep(50)  # as mpi4py's Finalize: the interpreter's lock is not let go
"""


def test_a_call_that_lets_no_thread_run_is_ended() -> None:
    done = subprocess.run([sys.executable, "-c", STUCK], timeout=40, capture_output=True)
    assert done.returncode == STATUS
    assert done.stderr == b""


def test_who_is_in_time_goes_on() -> None:
    code = "from flux_mpi.instance.deadline import ends_within\nimport time\n"
    code += "with ends_within(0.3):\n    pass\ntime.sleep(0.6)\nraise SystemExit(7)"
    assert subprocess.run([sys.executable, "-c", code], timeout=40).returncode == 7


def test_what_the_body_raises_comes_through() -> None:
    with pytest.raises(KeyError, match="x"), ends_within(30):
        raise KeyError("x")
