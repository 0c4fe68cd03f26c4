"""Run directories are private when they begin and gone when they end."""

import os
from pathlib import Path

from flux_mpi.shell import rundir


def test_each_is_new_and_private(tmp_path: Path) -> None:
    made = {rundir.make(str(tmp_path)) for _ in range(20)}
    assert len(made) == 20
    for path in made:
        assert os.stat(path).st_mode & 0o777 == 0o700


def test_removing_takes_all_but_follows_no_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    path = Path(rundir.make(str(tmp_path)))
    (path / "a" / "b").mkdir(parents=True)
    (path / "a" / "b" / "file").touch()
    (path / "link").symlink_to(outside)
    rundir.remove(str(path))
    assert not path.exists()
    assert (outside / "kept").exists()


def test_removing_what_is_gone_is_no_error(tmp_path: Path) -> None:
    rundir.remove(str(tmp_path / "never"))
    assert os.listdir(tmp_path) == []
