"""The Python interface against a real instance."""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import flux_mpi
from flux_mpi.message.errors import FluxError

if TYPE_CHECKING:
    Instance = Any


@pytest.fixture(autouse=True)
def _uri(flux: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUX_URI", flux.uri)
    monkeypatch.chdir(flux.folder)


def test_submit_and_wait() -> None:
    job = flux_mpi.submit(["sh", "-c", "exit 7"])
    assert str(job).startswith("ƒ")
    result = flux_mpi.wait(job, timeout=60)
    assert (result.returncode, result.success) == (7, False)
    assert flux_mpi.wait(flux_mpi.submit(["true"])).success


def test_arrays_are_sequences() -> None:
    array = flux_mpi.submit(["sh", "-c", "exit $(({cc} % 2))"], cc="1-20")
    assert len(array) == 20
    results = flux_mpi.wait_all(array)
    assert [result.returncode for result in results] == [n % 2 for n in range(1, 21)]
    assert [result.id for result in results] == list(array)


def test_rows_are_parameters(flux: Instance) -> None:
    rows = [["a b", "1"], ["c", "2"]]
    array = flux_mpi.submit(["echo", "{0}", "{1}"], rows=rows, output="row.{1}")
    flux_mpi.wait_all(array)
    assert (flux.folder / "row.1").read_text() == "a b 1\n"
    assert (flux.folder / "row.2").read_text() == "c 2\n"


def test_wait_has_a_bound() -> None:
    job = flux_mpi.submit(["sleep", "60"])
    with pytest.raises(TimeoutError):
        flux_mpi.wait(job, timeout=0.05)


def test_jobs_lists_and_cancel_cancels() -> None:
    job = flux_mpi.submit(["sleep", "60"], name="listed", ntasks=2)
    (found,) = [each for each in flux_mpi.jobs() if each.id == job]
    assert (found.name, found.ntasks) == ("listed", 2)
    flux_mpi.cancel(job)
    assert not flux_mpi.wait(job).success
    assert [each.result for each in flux_mpi.jobs(ids=[job])] == ["CANCELED"]


def test_a_jobspec_that_is_wrong_is_refused_here() -> None:
    with pytest.raises(ValueError, match="command"):
        flux_mpi.submit([])
    with pytest.raises((ValueError, TypeError)):
        flux_mpi.submit(["true"], ntasks=0)
    with pytest.raises(TypeError, match="no_such_option"):
        flux_mpi.submit(["true"], no_such_option=1)


def test_what_never_can_run_fails_and_says_why() -> None:
    result = flux_mpi.wait(flux_mpi.submit(["true"], ntasks=1000))
    assert not result.success
    assert "1000 slot(s)" in str(result)


def test_one_handle_many_threads(flux: Instance) -> None:
    wrong = []

    def ask(rank: int) -> None:
        for n in range(100):
            answer = flux.handle.call("broker.ping", {"seq": n}, rank)
            if (answer["seq"], answer["rank"]) != (n, rank):
                wrong.append(answer)

    threads = [threading.Thread(target=ask, args=(n % 4,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


def test_executor() -> None:
    with flux_mpi.FluxExecutor() as executor:
        futures = [executor.submit(["sh", "-c", f"exit {n % 3}"]) for n in range(30)]
        done, left = concurrent.futures.wait(futures, timeout=100)
        assert not left
        assert len(done) == 30
        assert [future.result() for future in futures] == [n % 3 for n in range(30)]
        assert len({future.jobid() for future in futures}) == 30


def test_executor_tells_events_and_cancels() -> None:
    seen: list[str] = []
    with flux_mpi.FluxExecutor() as executor:
        future = executor.submit(["true"])
        future.add_event_callback("start", lambda future, event: seen.append(event["name"]))
        assert future.result(60) == 0
        held = executor.submit(["true"], urgency=0)
        held.jobid(60)
        held.cancel()
        with pytest.raises((concurrent.futures.CancelledError, flux_mpi.JobException)):
            held.result(60)
    assert seen in ([], ["start"])  # the callback may have come too late for it, but not twice


def test_executor_tells_why_a_job_did_not_run() -> None:
    with flux_mpi.FluxExecutor() as executor:
        future = executor.submit(["true"], ntasks=1000)
        with pytest.raises((flux_mpi.JobException, FluxError), match="1000"):
            future.result(60)


def test_asyncio() -> None:
    async def work() -> tuple[Any, ...]:
        async with flux_mpi.AsyncHandle() as handle:
            pings = await asyncio.gather(
                *(handle.rpc("broker.ping", {"seq": n}, n % 4) for n in range(100))
            )
            job = await handle.submit(["sh", "-c", "exit 3"])
            names = [event["name"] async for event in handle.job_events(job)]
            result = await handle.wait(job)
            array = await handle.submit(["true"], count=5)
            done = [each async for each in handle.as_completed(array)]
            try:
                await handle.rpc("no-such.service", {})
            except FluxError as error:
                refused = error.errno
            return [p["seq"] for p in pings], names[-1], result.returncode, len(done), refused

    seqs, last, code, done, refused = asyncio.run(asyncio.wait_for(work(), 100))
    assert seqs == list(range(100))
    assert (last, code, done, refused) == ("clean", 3, 5, errno.ENOSYS)


def test_workers_import_once(flux: Instance) -> None:
    source = """
import os, sys
import flux_mpi

def square(n):
    if n == 3:
        raise ValueError("no three")
    return n * n, os.getpid()

if __name__ == "__main__":
    with flux_mpi.Workers(square, ntasks=2) as workers:
        outcomes = list(workers.map(range(10), ordered=True))
    print([o.result()[0] if o.ok else "failed" for o in outcomes])
    print(len({o.result()[1] for o in outcomes if o.ok}) <= 2)
"""
    (flux.folder / "members.py").write_text(source)
    done = flux.execute([sys.executable, "members.py"])
    assert done.stdout == "[0, 1, 4, 'failed', 16, 25, 36, 49, 64, 81]\nTrue\n"


def test_clients_stay_light(flux: Instance) -> None:
    """Neither MPI nor NumPy nor Numba is loaded by anything a client does."""
    source = """
import sys, flux_mpi
from flux_mpi import FluxExecutor, AsyncHandle, Handle
flux_mpi.wait(flux_mpi.submit(["true"]))
with FluxExecutor() as e:
    e.submit(["true"]).result()
print([m for m in ("mpi4py", "numpy", "numba") if m in sys.modules])
"""
    assert flux.python(source) == "[]\n"


def test_leaf_brokers_stay_light(flux: Instance) -> None:
    for rank in range(1, 4):
        maps = Path(f"/proc/{flux.broker_pid(rank)}/maps").read_text()
        assert "/numpy/" not in maps
        assert "/numba/" not in maps


def test_the_instance_ends_while_someone_waits(start: Any) -> None:
    instance = start(size=0)
    handle = flux_mpi.Handle(instance.uri)
    waiting = handle.rpc("kvs.watch", {"ns": "primary", "key": "x", "waitcreate": True},
                         streaming=True)  # fmt: skip
    instance.stop()
    with pytest.raises(FluxError) as caught:
        waiting.get(30)
    assert caught.value.errno in (errno.ECONNRESET, errno.ENODATA)
    handle.close()
