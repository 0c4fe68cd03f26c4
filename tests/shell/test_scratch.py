from __future__ import annotations

import os
from pathlib import Path

from flux_mpi.shell.scratch import Scratch


def test_a_clean_directory_serves_again(tmp_path: Path) -> None:
    scratch = Scratch(str(tmp_path))
    first = scratch.take()
    second = scratch.take()
    assert first != second
    assert scratch.give_back(first)
    assert scratch.take() == first


def test_a_used_directory_is_to_be_removed(tmp_path: Path) -> None:
    scratch = Scratch(str(tmp_path))
    used, opened, gone = scratch.take(), scratch.take(), scratch.take()
    (Path(used) / "file").touch()
    Path(opened).chmod(0o777)
    Path(gone).rmdir()
    assert not scratch.give_back(used)
    assert not scratch.give_back(opened)
    assert scratch.give_back(gone)
    assert scratch.take() not in {used, opened, gone}


def test_a_directory_seen_empty_before_is_looked_into_once_it_changes(tmp_path: Path) -> None:
    scratch = Scratch(str(tmp_path))
    path = Path(scratch.take())
    os.utime(path, (1, 1))  # long settled
    assert scratch.give_back(str(path))
    assert scratch.take() == str(path)
    assert scratch.give_back(str(path))  # by its time alone
    assert scratch.take() == str(path)
    (path / "file").touch()
    assert not scratch.give_back(str(path))
