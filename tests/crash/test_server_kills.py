"""What was acknowledged survives SIGKILL of the server, and nothing is applied twice."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from pathlib import Path

import pytest

from kept.check.monitor import Monitor
from kept.protocol.records import PromiseState, TaskState
from kept.protocol.storage import DEFAULT_TENANT, Dump
from kept.runtime import SystemRuntime
from kept.stores.sqlite import SqliteStore
from tests.crash.load import Client, Ledger
from tests.crash.server import ServerProcess

log = logging.getLogger("tests.crash")

CLIENTS = 8
# Ten keep the suite short; the full run is KEPT_CRASHES=100.
KILLS = int(os.environ.get("KEPT_CRASHES", "10"))
# How many more answers the clients get before the next kill.
ANSWERS_BETWEEN_KILLS = (1, 400)
SECONDS_PER_KILL = 10


@pytest.mark.timeout(60 + SECONDS_PER_KILL * KILLS)
async def test_acknowledged_work_survives_kills_of_the_server(tmp_path: Path) -> None:
    """Eight clients create, settle, claim and fulfil while the server is killed at random moments:
    every acknowledged create, settle and fulfil is stored as it was answered, each promise has one
    settlement, each version of a task one holder, and the store keeps every named property."""
    seed = int(os.environ.get("KEPT_CRASH_SEED", "1"))
    rng, ledger = random.Random(seed), Ledger()
    server = ServerProcess(tmp_path / "kept.db", tmp_path / "server.log")
    try:
        await server.start()
        clients = [Client(f"c{n}", server.url, seed + n, ledger) for n in range(CLIENTS)]
        working = [asyncio.create_task(client.run()) for client in clients]
        for _ in range(KILLS):
            await _answered(ledger, rng.randint(*ANSWERS_BETWEEN_KILLS), working)
            await server.kill()
            await server.start()
        await _answered(ledger, 200, working)
        for client in clients:
            client.stopping = True
        await asyncio.gather(*working)
        assert await server.stop() == 0
    finally:
        await server.end()
    dump = await _stored(tmp_path / "kept.db")
    _check(ledger, dump)
    log.info(
        "%d kills, %d answers, %d unknown outcomes, %d creates, %d settles, %d fulfils",
        server.starts - 1,
        ledger.acknowledged,
        ledger.unknown,
        len(ledger.created),
        len(ledger.settled),
        len(ledger.fulfilled),
    )


async def _answered(ledger: Ledger, count: int, working: list[asyncio.Task[None]]) -> None:
    """Returns after `count` more answers; a client that failed fails the test at once."""
    target = ledger.acknowledged + count
    while ledger.acknowledged < target:
        ledger.answered.clear()
        answered = asyncio.create_task(ledger.answered.wait())
        await asyncio.wait({answered, *working}, return_when=asyncio.FIRST_COMPLETED)
        answered.cancel()
        for each in working:
            if each.done():
                each.result()


async def _stored(path: Path) -> Dump:
    runtime = SystemRuntime()
    store = SqliteStore(str(path), runtime)
    await store.open()
    try:
        dump = await store.dump(DEFAULT_TENANT)
    finally:
        await store.close()
    Monitor().begin(dump, runtime.now_ms())
    return dump


def _check(ledger: Ledger, dump: Dump) -> None:
    assert len(ledger.created) >= KILLS
    assert len(ledger.settled) >= KILLS
    assert len(ledger.fulfilled) >= KILLS
    for id, created in ledger.created.items():
        stored = dump.promises[id].record()
        assert (stored.param, stored.tags, stored.created_at) == (
            created.param,
            created.tags,
            created.created_at,
        ), id
    for id, answers in ledger.settled.items():
        assert all(answer == dump.promises[id].record() for answer in answers), id
    for id, fulfils in ledger.fulfilled.items():
        assert [answer for _, answer in fulfils] == [dump.promises[id].record()], id
        assert dump.tasks[id].version == fulfils[0][0], id
    _check_leases(ledger, dump)


def _check_leases(ledger: Ledger, dump: Dump) -> None:
    for id, leases in ledger.leases.items():
        holders = dict(leases)
        # The same claim may be answered twice, to the same client.
        assert all(holders[version] == client for version, client in leases), id
        assert max(holders) <= dump.tasks[id].version, id
    for id, task in dump.tasks.items():
        settled = dump.promises[id].state is not PromiseState.PENDING
        assert settled == (task.state is TaskState.FULFILLED), id
