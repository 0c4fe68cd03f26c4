"""The output store against what was written: replay, follow, bounds, losses that are told."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux_mpi.shell import output
from flux_mpi.shell.output import STREAM_LIMIT, LabelledFile, OutputStore, Spool

JOB = 42


class Reader:
    """A watcher's other end."""

    def __init__(self, store: OutputStore, jobid: int = JOB, running: bool = True, **how: Any):
        self.entries: list[list[Any]] = []
        self.batches = 0
        self.ended = False
        self.watcher = store.watch(jobid, running, self._take, self._end, **{"follow": True, **how})

    def _take(self, entries: list[list[Any]]) -> None:
        self.entries += entries
        self.batches += 1

    def _end(self) -> None:
        self.ended = True

    def data(self, stream: int = 1) -> bytes:
        return b"".join(entry[3] for entry in self.entries if entry[1] == stream)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(str(tmp_path / "spool"))
    yield spool
    spool.close()


def write(
    store: OutputStore, data: bytes, *, job: int = JOB, stream: int = 1, limit: int = -1
) -> None:
    store.append(job, 1.0, stream, 0, data, STREAM_LIMIT if limit < 0 else limit)


def drain(store: OutputStore) -> None:
    for _ in range(1000):
        if not store.deliver()[1]:
            return
    raise AssertionError("it never ends")


def test_replay_follow_and_end(spool: Spool) -> None:
    store = OutputStore(spool)
    write(store, b"before ")
    reader = Reader(store)
    drain(store)
    assert reader.data() == b"before "
    write(store, b"after")
    write(store, b"oops", stream=2)
    drain(store)
    assert (reader.data(), reader.data(2)) == (b"before after", b"oops")
    assert not reader.ended
    store.finish(JOB, 2.0)
    drain(store)
    assert reader.ended
    late = Reader(store, running=False)
    drain(store)
    assert late.entries == reader.entries
    assert late.ended


def test_without_follow_it_ends_at_what_there_is(spool: Spool) -> None:
    store = OutputStore(spool)
    write(store, b"so far")
    reader = Reader(store, follow=False)
    drain(store)
    assert reader.data() == b"so far"
    assert reader.ended


def test_a_job_that_says_nothing_is_not_remembered(spool: Spool) -> None:
    store = OutputStore(spool)
    waiting = Reader(store)
    drain(store)
    assert not waiting.ended
    store.finish(JOB, 1.0)
    drain(store)
    assert waiting.ended
    assert Reader(store, running=False).ended
    assert not store.gone(JOB)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("write"), st.integers(1, 300)),
            st.just(("deliver", 0)),
            st.just(("watch", 0)),
            st.just(("flow", 0)),
            st.just(("leave", 0)),
            st.just(("ack", 0)),
        ),
        max_size=60,
    )
)
def test_every_reader_gets_everything_in_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    spool = Spool(str(tmp_path_factory.mktemp("spool")), segment=4096)
    store = OutputStore(spool, memory_a_job=500)
    written = b""
    readers: list[Reader] = []
    counter = 0
    for step, size in steps:
        if step == "write":
            counter += 1
            data = b"%d," % counter * size
            write(store, data)
            written += data
        elif step == "deliver":
            store.deliver()
        elif step == "watch":
            readers.append(Reader(store))
        elif step == "flow":
            readers.append(Reader(store, window=100))
        elif step == "leave" and readers:
            gone = readers.pop(0)
            assert gone.watcher is not None
            store.unwatch(gone.watcher)
        elif step == "ack":
            for reader in readers:
                if reader.watcher is not None:
                    store.acknowledge(reader.watcher, 1 << 30)
    store.finish(JOB, 2.0)
    for _ in range(10_000):
        for reader in readers:
            if reader.watcher is not None:
                store.acknowledge(reader.watcher, 1 << 30)
        store.deliver()
        if all(reader.ended for reader in readers):
            break
    for reader in readers:
        assert reader.ended
        assert reader.data() == written
    spool.close()


def test_a_slow_flow_controlled_reader_holds_the_job_back(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "LAG_LIMIT", 10_000)
    store = OutputStore(spool)
    slow = Reader(store, window=1000)
    free = Reader(store)
    for _ in range(30):
        write(store, b"x" * 1000)
        drain(store)
    assert len(free.data()) == 30_000
    assert len(slow.data()) < 3000
    assert store.held_back(JOB)
    assert slow.watcher is not None
    while len(slow.data()) < 30_000:
        store.acknowledge(slow.watcher, 1 << 20)
        moved, _ = store.deliver()
        assert moved == {JOB}
    assert not store.held_back(JOB)


def test_a_reader_that_leaves_lets_the_job_go_on(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "LAG_LIMIT", 1000)
    store = OutputStore(spool)
    slow = Reader(store, window=1)
    write(store, b"x" * 10_000)
    drain(store)
    write(store, b"x" * 10_000)
    assert store.held_back(JOB)
    assert slow.watcher is not None
    store.unwatch(slow.watcher)
    assert not store.held_back(JOB)
    assert store.deliver()[0] == {JOB}


def test_a_stream_over_its_limit_is_cut_and_says_so(spool: Spool) -> None:
    store = OutputStore(spool)
    reader = Reader(store)
    for _ in range(3):
        write(store, b"0123456789", limit=25)
    write(store, b"err", stream=2, limit=25)
    store.finish(JOB, 1.0)
    drain(store)
    assert reader.data() == b"0123456789012345678901234"
    told = reader.data(2).decode()
    assert "stdout will be truncated" in told
    assert "stdout: 5 of 30 bytes truncated" in told
    assert "err" in told


def test_finished_jobs_leave_memory_for_the_spool_and_come_back(spool: Spool) -> None:
    store = OutputStore(spool, memory_total=5000)
    for job in range(100):
        write(store, b"%d " % job * 40, job=job)
        store.finish(job, 1.0)
    for job in range(100):
        reader = Reader(store, job, running=False)
        drain(store)
        assert reader.data() == b"%d " % job * 40


def test_the_oldest_jobs_are_forgotten_and_known_to_be(spool: Spool) -> None:
    store = OutputStore(spool, jobs_kept=10)
    for job in range(50):
        write(store, b"x", job=job)
        store.finish(job, 1.0)
    assert [store.gone(job) for job in (0, 39, 40, 49)] == [True, True, False, False]
    assert not store.gone(1000)


def test_what_fell_off_the_spool_is_told(tmp_path: Path) -> None:
    store = OutputStore(Spool(str(tmp_path / "s"), segment=1000, total=3000), memory_a_job=100)
    for number in range(20):
        write(store, b"%03d" % number * 100)
    reader = Reader(store)
    store.finish(JOB, 1.0)
    drain(store)
    assert "no longer kept" in reader.data(2).decode()
    assert reader.data().endswith(b"019" * 100)
    assert b"000" not in reader.data()
    store.close()


def test_a_full_disk_makes_room_or_says_what_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(str(tmp_path / "s"), segment=1000)
    store = OutputStore(spool, memory_a_job=100)
    write(store, b"a" * 600)
    write(store, b"b" * 600)
    real = os.pwrite
    failures = [1]

    def full(fd: int, data: bytes, offset: int) -> int:
        if failures and failures.pop():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    write(store, b"c" * 600)  # the first segment goes, and it fits
    failures += [1, 1, 1, 1]
    write(store, b"d" * 600)
    failures.clear()
    reader = Reader(store)
    store.finish(JOB, 1.0)
    drain(store)
    assert b"c" * 600 in reader.data() or "no longer kept" in reader.data(2).decode()
    assert "600 bytes of output lost: No space left on device" in reader.data(2).decode()
    assert reader.ended
    store.close()


def test_the_spool_leaves_no_file_behind(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "s"))
    where = spool.append(b"blob")
    assert spool.read(where) == b"blob"
    assert list((tmp_path / "s").iterdir()) == []
    spool.close()


def test_labelled_lines_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "out"
    file = LabelledFile(str(path), os.O_WRONLY | os.O_CREAT)
    file.write(1, 0, b"one\ntw")
    file.write(1, 11, b"eleven\n")
    file.write(1, 0, b"o\n")
    file.write(2, 0, b"no newline")
    file.close()
    assert path.read_text() == "0: one\n11: eleven\n0: two\n0: no newline\n"
