"""Keys of creates and bulk operations through the engine: races, wake-ups, restarts (protocol B4)."""

from __future__ import annotations

import asyncio
from pathlib import Path

from kept.engine.engine import Engine
from kept.protocol import requests as r
from kept.protocol.entries import LetterFilter
from kept.protocol.limits import MAX_BULK_LETTERS
from kept.protocol.responses import (
    BulkRecord,
    BulkResult,
    DeadLetterPage,
    PromiseResult,
    PurgeResult,
    ReplayResult,
)
from kept.runtime import SystemRuntime
from kept.stores.base import Store
from kept.stores.memory import MemoryStore
from kept.stores.sqlite import SqliteStore
from tests.unit.engine.rig import claimed, ok, running, started, turns, waiting_claim
from tests.unit.machine.world import create

LETTERS = MAX_BULK_LETTERS + 600


def _store(path: Path) -> SqliteStore:
    return SqliteStore(str(path / "kept.db"), SystemRuntime())


async def _file_letters(engine: Engine, count: int) -> None:
    ids = [f"j{number:04}" for number in range(count)]
    for id in ids:
        request = r.TaskCreate("w", 60_000, r.CreateAction(create(id, queue="q")))
        assert (await engine.submit(request)).status == 200
    nacks = [r.TaskNack(id, 1, final="reject") for id in ids]
    answers = await asyncio.gather(*(engine.submit(nack) for nack in nacks))
    assert all(answer.status == 200 for answer in answers)


async def _finished(engine: Engine, id: str) -> BulkRecord:
    """The operation once it is over."""
    async with asyncio.timeout(20):
        while True:
            record = (await ok(engine, r.DeadBulk(id), BulkResult)).bulk
            if record.finished_at is not None:
                return record
            await turns()


async def test_of_racing_creates_under_one_key_exactly_one_promise_exists(tmp_path: Path) -> None:
    """Two engines on one file, many creates at once: all are answered with the same promise."""
    async with (
        running(_store(tmp_path), watched=False) as one,
        running(_store(tmp_path), watched=False) as other,
    ):
        for kind in ({"dedupe": "k"}, {"singleton": "return", "singleton_key": "k"}):
            tag = next(iter(kind))
            asked = [
                ok(engine, create(f"{tag}-{name}-{number}", queue="q", **kind), PromiseResult)
                for number in range(25)
                for name, engine in (("one", one), ("other", other))
            ]
            ids = {answer.promise.id for answer in await asyncio.gather(*asked)}
            assert len(ids) == 1
            found = [f"{tag}-{name}-{n}" for n in range(25) for name in ("one", "other")]
            looks = await asyncio.gather(*(one.submit(r.PromiseGet(id)) for id in found))
            assert sum(look.status == 200 for look in looks) == 1


async def test_a_postponed_job_is_claimed_when_its_time_has_come() -> None:
    """A claim that waits gets it at the later instant, by a timer and not by a scan."""
    async with running(MemoryStore(SystemRuntime()), repair_ms=60_000) as engine:
        now = engine.runtime.now_ms()
        first, later = str(now + 60), str(now + 200)
        await engine.submit(create("a", queue="q", debounce="k", delay=first))
        answer = await ok(engine, create("b", queue="q", debounce="k", delay=later), PromiseResult)
        assert answer.promise.id == "a"
        claim = started(engine, waiting_claim("q"))
        async with asyncio.timeout(5):
            assert claimed(await claim) == ["a"]
        assert engine.runtime.now_ms() >= now + 200


async def test_a_bulk_replay_survives_a_restart(tmp_path: Path) -> None:
    """Stopped after its first part, it goes on in the next engine, and does each letter once."""
    async with running(_store(tmp_path)) as engine:
        await _file_letters(engine, LETTERS)
        request = r.DeadReplay(filter=LetterFilter(queue="q"), bulk="b")
        begun = (await ok(engine, request, ReplayResult)).bulk
        assert begun is not None
    async with running(_store(tmp_path), watched=False) as engine:
        record = await _finished(engine, "b")
        assert (record.done, record.failed) == (LETTERS, 0)
        claim = r.TaskClaim(["q"], "w", 60_000, 1_000)
        first, second = [claimed(await engine.submit(claim)) for _ in range(2)]
        assert sorted(first + second) == [f"j{number:04}~1" for number in range(LETTERS)]


async def test_two_engines_purge_each_letter_once(tmp_path: Path) -> None:
    """Both see the operation due; of each part only one does it."""
    async with (
        running(_store(tmp_path), watched=False, repair_ms=5) as one,
        running(_store(tmp_path), watched=False, repair_ms=5) as other,
    ):
        await _file_letters(one, LETTERS)
        wanted = LetterFilter(prefix="j0")
        request = r.DeadPurge(filter=wanted, bulk="b")
        assert (await ok(other, request, PurgeResult)).bulk is not None
        record = await _finished(one, "b")
        assert (record.done, record.failed) == (1_000, 0)
        left = (await ok(one, r.DeadList(limit=1_000), DeadLetterPage)).letters
        assert [letter.id for letter in left] == [f"j{n}" for n in range(1_000, LETTERS)]


async def _dry(store: Store) -> BulkRecord:
    async with running(store) as engine:
        await _file_letters(engine, 3)
        request = r.DeadPurge(filter=LetterFilter(), dry_run=True, bulk="b")
        await ok(engine, request, PurgeResult)
        record = await _finished(engine, "b")
        assert len((await ok(engine, r.DeadList(), DeadLetterPage)).letters) == 3
        return record


async def test_a_dry_run_counts_in_the_background() -> None:
    """Nothing is gone, and the count is there."""
    record = await _dry(MemoryStore(SystemRuntime()))
    assert (record.done, record.dry_run) == (3, True)
