"""Our client while its server is killed and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from kept.client.connection import Connection
from kept.client.http import HttpConnection
from kept.client.retry import RetryPolicy
from kept.protocol import requests as r
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import PromiseState
from kept.protocol.responses import ClaimResult
from kept.runtime import SystemRuntime

CLIENTS = 8
JOBS = 150
KILLS = 3
# Patient enough for a server that takes its time to start on a loaded machine.
PATIENT = RetryPolicy(attempts=60, longest_seconds=1.0)


async def test_every_request_is_answered_across_kills(tmp_path: Path) -> None:
    """Eight clients work through jobs while the server is killed with SIGKILL three times: no
    create, claim or fulfil fails, each job is fulfilled once, by the one that claimed it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    done: list[str] = []
    killed = asyncio.Event()

    async def work(client: int, connection: Connection) -> None:
        for number in range(JOBS):
            if number == JOBS // 2:
                await killed.wait()
            await _one_job(connection, f"{client}.{number}", f"queue-{client}")
            done.append(f"{client}.{number}")

    connection = HttpConnection(f"http://127.0.0.1:{port}", SystemRuntime(), retry=PATIENT)
    workers = [asyncio.ensure_future(work(client, connection)) for client in range(CLIENTS)]
    for kill in range(KILLS):
        async with _server(tmp_path, port) as server:
            enough = CLIENTS * JOBS * (kill + 1) // (2 * KILLS + 2)
            await _until_done(done, enough, workers)
            server.kill()
    killed.set()
    async with _server(tmp_path, port):
        await asyncio.gather(*workers)
        await connection.close()
    assert len(done) == len(set(done)) == CLIENTS * JOBS


async def _one_job(connection: Connection, id: str, queue: str) -> None:
    create = r.PromiseCreate(id, NEVER_MS, tags={"resonate:target": f"queue://{queue}"})
    assert (await connection.send(create)).ok
    claimed = await connection.send(r.TaskClaim([queue], "worker", 600_000))
    assert isinstance(claimed.data, ClaimResult), claimed
    assert [lease.task.id for lease in claimed.data.tasks] == [id]
    settle = r.SettleAction(r.PromiseSettle(id, PromiseState.RESOLVED))
    version = claimed.data.tasks[0].task.version
    fulfilled = await connection.send(r.TaskFulfill(id, version, settle))
    assert (fulfilled.status, version) == (200, 1), fulfilled


@contextlib.asynccontextmanager
async def _server(directory: Path, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kept", "serve", "--port", str(port)),
        cwd=directory,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            server.kill()
        await server.wait()


async def _until_done(done: list[str], enough: int, workers: list[asyncio.Future[None]]) -> None:
    async with asyncio.timeout(30):
        while len(done) < enough:
            finished, _ = await asyncio.wait(workers, timeout=0.01)
            for worker in finished:
                worker.result()
