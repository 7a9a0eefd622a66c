"""An app over HTTP, against a server that runs as a process of its own."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

import kept
from tests.unit.sdk.effects import BODIES, Body, World
from tests.unit.sdk.site import eventually
from tests.unit.sdk.test_replay import EXPECTED

SOURCE = Path(kept.__file__).parents[1]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server's address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = tmp_path_factory.mktemp("server")
    command = ["serve", "--port", str(port), "--store", f"sqlite:///{place}/kept.db"]
    server = subprocess.Popen(
        [sys.executable, "-m", "kept", *command],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stderr=subprocess.DEVNULL,
    )
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait(10)


async def served(app: kept.App) -> None:
    """Waits for the server to answer."""

    async def answers() -> bool:
        try:
            await app.handle("nothing").done()
        except kept.ConnectionFailedError:
            return False
        except kept.NotFoundError:
            return True
        return True

    await eventually(answers, 30)


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
async def test_workflows_over_http(url: str, body: Body) -> None:
    """Each workflow comes to its result through a server, with a worker that keeps nothing."""
    world = World()
    app = world.app
    app.url, app.queue, app._works, app._cache = url, f"queue-{body.__name__}", True, 0
    workflow = world.workflow(body)
    async with app:
        await served(app)
        async with asyncio.timeout(20):
            assert await app.run(workflow) == EXPECTED[body.__name__]


async def test_the_ledger_over_http(url: str) -> None:
    """Two programs, many callers: one of them runs it, all get its result; also after a failure."""
    runs: list[str] = []

    async def charge(idempotency_key: str) -> int:
        runs.append(idempotency_key)
        await asyncio.sleep(0)
        if len(runs) == 1:
            raise ValueError("declined")
        return len(runs)

    async with kept.App(url, worker=False) as one, kept.App(url, worker=False) as two:
        await served(one)
        async with asyncio.timeout(20):
            calls = [(one, two)[n % 2].once("charge-42", charge) for n in range(20)]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert sorted(map(str, outcomes)) == ["2"] * 19 + ["declined"]
            assert await two.once("charge-42", charge) == 2
    assert len(runs) == 2
    assert len(set(runs)) == 1


async def test_jobs_over_http(url: str) -> None:
    """What starts say, what jobs say of themselves, settings of queues, and a result that has left."""
    app = kept.App(url, queue="jobs-over-http", queues=["jobs-in-bulk"])
    tries: list[str] = []

    @app.function(retry=kept.Exponential(attempts=2, base=0.01, jitter=True))
    async def job(name: str) -> str:
        tries.append(name)
        match name:
            case "reject":
                raise kept.RejectJob("no such order", reason="unknown")
            case "later" if tries.count(name) < 4:
                raise kept.RetryJob("busy", delay=0.05)
            case "fails":
                raise ValueError("no")
        return name

    async with app, asyncio.timeout(30):
        await served(app)
        await app.queues.put("jobs-in-bulk", paused=True, max_depth=2)
        in_bulk = job.options(queue="jobs-in-bulk", lane="ann")
        waiting = await app.start_many(in_bulk, [("a",), ("b",)])
        assert (await app.queues.stats("jobs-in-bulk")).depth == 2
        await app.queues.resume("jobs-in-bulk")
        assert [await each for each in waiting] == ["a", "b"]

        delayed = timedelta(milliseconds=200)
        assert await app.run(job, "plain", delay=delayed, priority=9, timeout=20) == "plain"
        assert await app.run(job, "later") == "later"
        for name, retry in (("reject", kept.Constant()), ("fails", kept.Constant(attempts=3))):
            with pytest.raises(kept.PromiseRejectedError, match=r"no such order|ValueError: no"):
                await app.run(job, name, id=name, retry=retry)
        letters = [each async for each in app.dead.list(queue="jobs-over-http")]
        assert [(each.id, each.reason, each.failures) for each in letters] == [
            ("fails", "exhausted", 3),
            ("reject", "unknown", 1),
        ]

        await app.queues.put("jobs-over-http", retention=1, keep_ids=True)
        handle = await app.start(job, "leaves", id="leaves")
        assert await handle == "leaves"
        known = app.handle("leaves")
        while not await _has_left(known):
            pass
        with pytest.raises(kept.ResultGoneError, match=r"leaves ended \(resolved\)"):
            await app.run(job, "leaves", id="leaves")
        with pytest.raises(kept.ResultGoneError):
            await handle
    counts = {name: tries.count(name) for name in tries}
    assert counts == {"a": 1, "b": 1, "plain": 1, "later": 4, "reject": 1, "fails": 3, "leaves": 1}


async def _has_left(handle: kept.Handle[str]) -> bool:
    try:
        await handle
    except kept.NotFoundError:
        return True
    return False
