"""An app over HTTP, against a server that runs as a process of its own."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
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
