"""Settled trees leave in the background, in commits of bounded size (protocol B6)."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from kept.engine.engine import Engine
from kept.protocol import requests as r
from kept.protocol.entries import EntryKind
from kept.protocol.limits import DEFAULT_RETENTION_MS, MAX_LEAVING_PER_COMMIT, NEVER_MS
from kept.protocol.records import PromiseState
from kept.protocol.responses import PromiseResult, QueueResult
from kept.protocol.storage import DEFAULT_TENANT, Changes, Dump
from kept.stores.base import Store
from kept.stores.memory import MemoryStore
from kept.stores.sqlite import SqliteStore
from tests.unit.engine.rig import ShiftedRuntime, ok, running
from tests.unit.machine.world import create

log = logging.getLogger(__name__)

# Promises of the tree that leaves: 100,000 with KEPT_TREE=100000, whose times are in the log
# (--log-cli-level=INFO).
SIZE = int(os.environ.get("KEPT_TREE", "1500"))
LIMIT_S = 20.0 + SIZE / 200


class _Commits:
    """How many promises each step removed."""

    def __init__(self) -> None:
        self.removed: list[int] = []

    def step(self, _tenant: str, _now: int, _name: str, _internal: bool, changes: Changes) -> None:  # noqa: FBT001
        self.removed.append(len(changes.removed))

    def mark(self) -> int:
        return len(self.removed)

    def rollback(self, mark: int) -> None:
        del self.removed[mark:]


def _store(kind: str, path: Path, runtime: ShiftedRuntime) -> Store:
    if kind == "memory":
        return MemoryStore(runtime)
    return SqliteStore(str(path / "kept.db"), runtime)


async def _plant(engine: Engine, size: int) -> None:
    """A settled tree."""
    await engine.submit(create("root", external="true"))
    for first in range(0, size, 500):
        ids = [f"root.{n}" for n in range(first, min(first + 500, size))]
        tags = {"resonate:origin": "root", "resonate:parent": "root"}
        creates = [(r.PromiseCreate(id, NEVER_MS, tags=tags), r.RequestHead()) for id in ids]
        settles = [(r.PromiseSettle(id, PromiseState.RESOLVED), r.RequestHead()) for id in ids]
        await engine.submit_batch([*creates, *settles])
    await engine.submit(r.PromiseSettle("root", PromiseState.RESOLVED))


async def _until(check: Callable[[], Awaitable[bool]]) -> None:
    """Returns once `check` answers so."""
    async with asyncio.timeout(LIMIT_S):
        while not await check():  # noqa: ASYNC110 - whatever it is, nobody signals it
            await asyncio.sleep(0)


async def _until_left(store: Store, count: int) -> None:
    """Returns once no more than `count` promises are left."""

    async def few() -> bool:
        return len(await store.scan_promises(DEFAULT_TENANT, None, SIZE + 2, {})) <= count

    await _until(few)


@pytest.mark.timeout(2 * LIMIT_S)
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_large_tree_leaves_while_requests_are_served(kind: str, tmp_path: Path) -> None:
    """Each step removes no more than its bound, and between two of them others get their turn."""
    runtime = ShiftedRuntime()
    store = _store(kind, tmp_path, runtime)
    commits = _Commits()
    async with running(store, watched=False, runtime=runtime, repair_ms=20) as engine:
        engine._committer._observer = commits
        await _plant(engine, SIZE)
        runtime.shift_ms += DEFAULT_RETENTION_MS + 1
        began, slowest, served = time.monotonic(), 0.0, 0
        async with asyncio.timeout(LIMIT_S):
            while (await engine.submit(r.PromiseGet("root"))).ok:
                asked = time.monotonic()
                assert (await engine.submit(create(f"other.{served}", external="true"))).ok
                slowest = max(slowest, time.monotonic() - asked)
                served += 1
        taken = time.monotonic() - began
        log.info("%d left in %.2f s, %d served, slowest %.4f s", SIZE, taken, served, slowest)
    assert sum(commits.removed) == SIZE + 1
    assert max(commits.removed) <= MAX_LEAVING_PER_COMMIT
    assert served > SIZE / MAX_LEAVING_PER_COMMIT / 2


async def test_another_engine_goes_on_after_a_crash(tmp_path: Path) -> None:
    """Half of a tree is gone when its server ends; the next one takes the rest, and the root was
    there until the end."""
    runtime = ShiftedRuntime()
    size = 5 * MAX_LEAVING_PER_COMMIT
    async with running(_store("sqlite", tmp_path, runtime), runtime=runtime) as engine:
        await _plant(engine, size)
    runtime.shift_ms += DEFAULT_RETENTION_MS + 1
    store = _store("sqlite", tmp_path, runtime)
    async with running(store, watched=False, runtime=runtime, repair_ms=20) as engine:
        await _until_left(store, size // 2)
        engine._background.paused = True
    store = _store("sqlite", tmp_path, runtime)
    await store.open()
    assert 0 < len((await store.dump(DEFAULT_TENANT)).promises) <= size // 2 + 1
    assert "root" in (await store.dump(DEFAULT_TENANT)).promises
    await store.close()
    store = _store("sqlite", tmp_path, runtime)
    async with running(store, watched=False, runtime=runtime, repair_ms=20):
        await _until_left(store, 0)
    await store.open()
    assert await store.dump(DEFAULT_TENANT) == Dump()
    await store.close()


async def test_two_engines_on_one_file(tmp_path: Path) -> None:
    """Both look at once; each promise is removed, nothing fails, and what is pending stays."""
    runtime = ShiftedRuntime()
    one, two = (_store("sqlite", tmp_path, runtime) for _ in range(2))
    async with (
        running(one, watched=False, runtime=runtime, repair_ms=20) as engine,
        running(two, watched=False, runtime=runtime, repair_ms=20) as other,
    ):
        await _plant(engine, 4 * MAX_LEAVING_PER_COMMIT)
        await other.submit(create("stays", external="true"))
        for n in range(300):
            await (engine if n % 2 else other).submit(create(f"job.{n}", queue="q"))
            await engine.submit(r.PromiseSettle(f"job.{n}", PromiseState.RESOLVED))
        runtime.shift_ms += DEFAULT_RETENTION_MS + 1
        await _until_left(one, 1)
        assert list((await two.dump(DEFAULT_TENANT)).promises) == ["stays"]


async def test_the_file_stops_growing(tmp_path: Path) -> None:
    """Under a steady flow freed pages are used again."""
    runtime = ShiftedRuntime()
    store = SqliteStore(str(tmp_path / "kept.db"), runtime)
    sizes: list[int] = []
    async with running(store, watched=False, runtime=runtime, repair_ms=20) as engine:
        await ok(engine, r.QueuePut("q", retention=1_000), QueueResult)
        for round in range(6):
            jobs = [create(f"{n}.{round}", queue="q") for n in range(400)]
            done = [r.PromiseSettle(job.id, PromiseState.RESOLVED) for job in jobs]
            head = r.RequestHead()
            await engine.submit_batch([(each, head) for each in (*jobs, *done)])
            runtime.shift_ms += 1_001
            await _until_left(store, 0)
            assert store._reader is not None
            sizes.append(store._reader.execute("PRAGMA page_count").fetchone()[0])
        left = await store.scan_entries(DEFAULT_TENANT, EntryKind.RETENTION, None, 9)
        assert left == []
    assert max(sizes[2:]) <= 1.1 * sizes[1], sizes


async def test_a_kept_id_is_known_after_a_restart(tmp_path: Path) -> None:
    """The event that comes again on day 8 is answered, and nobody runs it."""
    runtime = ShiftedRuntime()
    store = _store("sqlite", tmp_path, runtime)
    async with running(store, watched=False, runtime=runtime, repair_ms=20) as engine:
        await ok(engine, r.QueuePut("q", keep_ids=True), QueueResult)
        await engine.submit(create("event", queue="q"))
        await engine.submit(r.PromiseSettle("event", PromiseState.REJECTED))
        runtime.shift_ms += DEFAULT_RETENTION_MS + 1
        await _until_left(store, 0)
    store = _store("sqlite", tmp_path, runtime)
    async with running(store, watched=False, runtime=runtime) as engine:
        kept = await ok(engine, create("event", queue="q"), PromiseResult)
        assert kept.promise.state is PromiseState.REJECTED
        assert (await engine.submit(r.PromiseGet("event"))).status == 404
