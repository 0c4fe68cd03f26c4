"""The asyncio face, against a fake broker."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Coroutine
from typing import Any

import pytest

from flux_mpi.client.aio import AsyncHandle
from flux_mpi.message.errors import FluxError
from tests.client.fakebroker import FakeBroker, streaming


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 60))


def test_requests_run_side_by_side(broker: FakeBroker) -> None:
    broker.handlers["x.double"] = lambda r: r.respond(r.payload * 2)

    async def main() -> list[int]:
        async with AsyncHandle() as handle:
            return await asyncio.gather(*(handle.rpc("x.double", k) for k in range(50)))

    assert run(main()) == [2 * k for k in range(50)]


def test_streams(broker: FakeBroker) -> None:
    broker.handlers["x.count"] = streaming(1, 2, 3)
    broker.handlers["x.forever"] = lambda r: r.respond("again")

    async def main() -> list[Any]:
        async with AsyncHandle() as handle:
            seen = [item async for item in handle.stream("x.count")]
            stream = handle.stream("x.forever")
            seen.append(await anext(stream))
            await stream.aclose()  # type: ignore[attr-defined]
            await handle.rpc("broker.ping", {})
            return seen

    assert run(main()) == [1, 2, 3, "again"]
    broker.wait_for(lambda: broker.controls)


def test_errors(broker: FakeBroker) -> None:
    broker.handlers["x.fail"] = lambda r: r.error(errno.EPERM, "not you")

    async def main() -> None:
        async with AsyncHandle() as handle:
            with pytest.raises(FluxError, match="not you") as caught:
                await handle.rpc("x.fail")
            assert caught.value.errno == errno.EPERM
            with pytest.raises(FluxError, match="not you"):
                await anext(handle.stream("x.fail"))

    run(main())


def test_cancelling_a_task_cancels_the_request(broker: FakeBroker) -> None:
    broker.handlers["x.hold"] = lambda r: None

    async def main() -> None:
        async with AsyncHandle() as handle:
            task = asyncio.create_task(handle.rpc("x.hold"))
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(task, 0.01)
            await handle.rpc("broker.ping", {})

    run(main())
    broker.wait_for(lambda: broker.controls)


def test_a_lost_broker(broker: FakeBroker) -> None:
    broker.handlers["x.hold"] = lambda r: broker.drop()

    async def main() -> None:
        async with AsyncHandle() as handle:
            with pytest.raises(FluxError, match="lost the connection"):
                await handle.rpc("x.hold")
            with pytest.raises(FluxError, match="lost the connection"):
                await handle.rpc("broker.ping", {})

    run(main())


def test_jobs(broker: FakeBroker) -> None:
    broker.handlers["job-ingest.submit"] = lambda r: r.respond(
        {"arrays": [[1 << 24, r.payload["entries"][0].get("count", 1)]]}
    )
    broker.handlers["job-manager.wait-all"] = streaming({"done": [[1 << 24, 512]]})
    broker.handlers["job-info.eventlog-watch"] = streaming({"events": [{"name": "submit"}]})
    broker.handlers["job-manager.raise"] = {"errors": {5: "unknown job id"}}

    async def main() -> None:
        async with AsyncHandle() as handle:
            job = await handle.submit(["x"], ntasks=2)
            assert (await handle.wait(job)).returncode == 2
            assert len(await handle.submit(["x"], count=7)) == 7
            assert [event["name"] async for event in handle.job_events(job)] == ["submit"]
            with pytest.raises(FluxError, match="unknown job id"):
                await handle.cancel(5)

    run(main())


def test_it_must_be_open(broker: FakeBroker) -> None:
    async def main() -> None:
        handle = AsyncHandle()
        with pytest.raises(FluxError, match="not open"):
            await handle.rpc("broker.ping")

    run(main())
