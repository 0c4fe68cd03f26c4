"""The command reference says what the parsers say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_command_reference_is_up_to_date() -> None:
    found = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "gen-command-docs"), "--check"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.returncode == 0, found.stdout + found.stderr
