"""Acquires that wait: woken when their turn comes, in order, and gone when their caller is (B5)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kept.engine.committer import Item
from kept.engine.engine import Engine
from kept.machine.locks import lock_key
from kept.protocol import requests as r
from kept.protocol.guard_requests import (
    LockAcquire,
    LockGet,
    LockRelease,
    LockSearch,
    SlotAcquire,
    SlotGet,
    SlotRelease,
)
from kept.protocol.limits import TURN_MS
from kept.protocol.responses import (
    BAD_REQUEST,
    CONFLICT,
    OK,
    LockGrant,
    LockPage,
    LockRecord,
    LockResult,
    Nothing,
    Response,
    SlotResult,
)
from kept.protocol.storage import DEFAULT_TENANT, Notice
from kept.runtime import SystemRuntime
from kept.stores.sqlite import SqliteStore
from kept.stores.sqlite.surroundings import ALONE, REAL
from tests.unit.engine.rig import (
    ShiftedRuntime,
    WatchedStore,
    eventually,
    ok,
    running,
    started,
    turns,
)

TTL = 60_000


def acquire(holder: str, wait: int = 30_000, ttl: int = TTL) -> LockAcquire:
    return LockAcquire("door", holder, ttl, wait)


async def waiting(engine: Engine) -> int:
    return (await ok(engine, LockGet("door"), LockResult)).lock.waiting


async def in_line(engine: Engine, *holders: str) -> list[asyncio.Task[Response]]:
    """Acquires that wait, one after another."""
    tasks = []
    for holder in holders:
        before = await waiting(engine)
        tasks.append(started(engine, acquire(holder)))
        async with asyncio.timeout(10):
            while await waiting(engine) == before:
                pass
    return tasks


async def test_a_release_wakes_the_next_in_line() -> None:
    """Each gets it when the one before gives it back, in the order in which they came."""
    async with running(WatchedStore()) as engine:
        fence = (await ok(engine, acquire("one"), LockGrant)).fence
        second, third = await in_line(engine, "two", "three")
        for holder, answer in (("one", second), ("two", third)):
            await ok(engine, LockRelease("door", holder, fence), Nothing)
            grant = (await answer).data
            assert isinstance(grant, LockGrant)
            assert grant.fence > fence
            fence = grant.fence
        assert (await ok(engine, LockGet("door"), LockResult)).lock.holder == "three"


async def test_the_commit_that_frees_it_hands_it_over() -> None:
    """However many wait, a release and the next grant are one commit, and nobody looks in vain."""
    store = WatchedStore()
    async with running(store) as engine:
        fence = (await ok(engine, acquire("one"), LockGrant)).fence
        tasks = await in_line(engine, *(f"waiter-{n}" for n in range(10)))
        commits, requests = store.commits, engine.statistics.batch_requests
        await ok(engine, LockRelease("door", "one", fence), Nothing)
        assert (await tasks[0]).status == OK
        assert store.commits - commits == 1
        assert engine.statistics.batch_requests - requests == 1


async def test_a_handover_whose_commit_fails_did_not_happen() -> None:
    """The lock stays with its holder, and those who wait go on waiting."""
    store = WatchedStore()
    async with running(store) as engine:
        fence = (await ok(engine, acquire("one"), LockGrant)).fence
        (answer,) = await in_line(engine, "two")
        store.fail()
        assert (await engine.submit(LockRelease("door", "one", fence))).status == 503
        store.failure = None
        assert (await ok(engine, LockGet("door"), LockResult)).lock.holder == "one"
        assert not answer.done()
        await ok(engine, LockRelease("door", "one", fence), Nothing)
        assert (await answer).status == OK


async def test_a_lapse_wakes_the_next_in_line() -> None:
    """A holder that says nothing more is followed at the instant of its expiry."""
    async with running(WatchedStore()) as engine:
        await ok(engine, acquire("one", ttl=100), LockGrant)
        assert (await engine.submit(acquire("two"))).status == OK


async def test_the_wait_ends_with_a_refusal() -> None:
    """409 with the holder's expiry, and no place in line is left behind."""
    async with running(WatchedStore()) as engine:
        await ok(engine, acquire("one"), LockGrant)
        refused = await engine.submit(acquire("two", wait=20))
        assert refused.status == CONFLICT
        assert refused.detail is not None
        assert refused.detail["holder"] == "one"
        assert "place" not in refused.detail
        assert await waiting(engine) == 0


async def test_a_caller_that_leaves_gives_up_its_place() -> None:
    """The next in line does not wait for the turn of one that is gone."""
    async with running(WatchedStore()) as engine:
        fence = (await ok(engine, acquire("one"), LockGrant)).fence
        gone, next_one = await in_line(engine, "gone", "next")
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        await ok(engine, LockRelease("door", "one", fence), Nothing)
        assert (await next_one).status == OK


async def test_a_place_that_is_waited_in_twice() -> None:
    """A client that asks again while its first request still hangs keeps the place."""
    async with running(WatchedStore()) as engine:
        fence = (await ok(engine, acquire("one"), LockGrant)).fence
        (first,) = await in_line(engine, "two")
        again = started(engine, acquire("two"))
        await turns()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert await waiting(engine) == 1
        await ok(engine, LockRelease("door", "one", fence), Nothing)
        assert (await again).status == OK


async def test_a_dead_waiter_is_passed_over() -> None:
    """One that never comes for its turn, as when its process was killed, costs that turn only."""
    runtime = ShiftedRuntime()
    store = WatchedStore(runtime)
    async with running(store, runtime=runtime) as engine:
        fence = (await ok(engine, acquire("one"), LockGrant)).fence
        (dead, alive) = await in_line(engine, "dead", "alive")
        # As if it had been waiting in a process that is no more.
        waiter = engine._waiters._by_place.pop((DEFAULT_TENANT, "lock", "door", "dead"))
        await ok(engine, LockRelease("door", "one", fence), Nothing)
        assert not alive.done()
        runtime.shift_ms = TURN_MS
        engine._background.expect(0)
        assert (await alive).status == OK
        engine._waiters._by_place[DEFAULT_TENANT, "lock", "door", "dead"] = waiter
        dead.cancel()
        await asyncio.gather(dead, return_exceptions=True)


async def test_those_who_wait_when_the_engine_stops_keep_their_place() -> None:
    """They are told to ask again, and are still in line when they do so elsewhere."""
    store = WatchedStore()
    async with running(store) as engine:
        await ok(engine, acquire("one"), LockGrant)
        (answer,) = await in_line(engine, "two")
    assert (await answer).status == 503
    lock = store.tables[DEFAULT_TENANT].entries[lock_key("door")]
    assert [waiter.holder for waiter in lock.data.waiters] == ["two"]  # type: ignore[attr-defined]


async def test_slots_are_waited_for_alike() -> None:
    """A slot that comes free goes to the first in line."""

    def slot(holder: str) -> SlotAcquire:
        return SlotAcquire("api", 2, holder, TTL, 30_000)

    async with running(WatchedStore()) as engine:
        for holder in ("one", "two"):
            assert (await engine.submit(slot(holder))).status == OK
        waits = [started(engine, slot(holder)) for holder in ("three", "four")]
        async with asyncio.timeout(10):
            while (await ok(engine, SlotGet("api"), SlotResult)).waiting < len(waits):
                pass
        for holder, answer in zip(("one", "two"), waits, strict=True):
            await ok(engine, SlotRelease("api", holder), Nothing)
            assert (await answer).status == OK


async def test_a_late_copy_of_an_acquire_does_not_wait() -> None:
    """What was granted to a request and given back since is refused to it at once."""
    async with running(WatchedStore()) as engine:
        fence = (await ok(engine, acquire("one"), LockGrant, request_id="r1")).fence
        await ok(engine, LockRelease("door", "one", fence), Nothing)
        again = await engine.submit(acquire("one"), r.RequestHead(request_id="r1"))
        assert (again.status, again.detail) == (CONFLICT, None)


async def test_a_wait_travels_alone() -> None:
    """In a batch it is a 400; without a wait it is a request like others."""
    async with running(WatchedStore()) as engine:
        head = r.RequestHead()
        requests = (acquire("one"), acquire("one", wait=0))
        answers = await engine.submit_batch([(each, head) for each in requests])
        assert [answer.status for answer in answers] == [BAD_REQUEST, OK]


@pytest.mark.parametrize("neighbours", [True, False])
async def test_a_release_elsewhere_wakes_who_waits_here(tmp_path: Path, neighbours: bool) -> None:  # noqa: FBT001
    """Two engines on one file: the one with the notice at once, without it by looking."""
    runtime = SystemRuntime()
    stores = [
        SqliteStore(str(tmp_path / "kept.db"), runtime, REAL if neighbours else ALONE)
        for _ in range(2)
    ]
    async with (
        running(stores[0], watched=False) as here,
        running(stores[1], watched=False) as there,
    ):
        fence = (await ok(there, acquire("there"), LockGrant)).fence
        (answer,) = await in_line(here, "here")
        await ok(there, LockRelease("door", "there", fence), Nothing)
        assert (await answer).status == OK


async def test_a_crowd_on_two_engines_takes_turns(tmp_path: Path) -> None:
    """Everybody gets it once, never two at a time, with rising fences."""
    runtime = SystemRuntime()
    stores = [SqliteStore(str(tmp_path / "kept.db"), runtime) for _ in range(2)]
    holders: list[str] = []
    fences: list[int] = []

    async def contend(engine: Engine, holder: str) -> None:
        fence = (await ok(engine, acquire(holder), LockGrant)).fence
        holders.append(holder)
        fences.append(fence)
        assert len(holders) == 1
        await turns(5)
        holders.remove(holder)
        await ok(engine, LockRelease("door", holder, fence), Nothing)

    async with (
        running(stores[0], watched=False) as one,
        running(stores[1], watched=False) as two,
        asyncio.timeout(20),
    ):
        await asyncio.gather(*(contend((one, two)[n % 2], f"holder-{n}") for n in range(30)))
    assert fences == sorted(set(fences))
    assert len(fences) == 30


async def test_a_notice_names_whose_turn_it_is() -> None:
    """Whoever commits tells other processes whom to wake, where none of theirs waits here."""
    store = WatchedStore()
    heard: list[Notice] = []
    async with running(store) as engine:
        fence = (await ok(engine, acquire("one"), LockGrant)).fence
        # As one of another process would.
        elsewhere = Item(DEFAULT_TENANT, acquire("two"))
        await engine._committer.apply([elsewhere])
        noticed = engine._committer._on_commit

        def overhear(notice: Notice) -> None:
            heard.append(notice)
            noticed(notice)

        engine._committer._on_commit = overhear
        await ok(engine, LockRelease("door", "one", fence), Nothing)
    assert heard[0].turns == {(DEFAULT_TENANT, "lock", "door", "two")}


async def test_locks_are_listed_in_pages() -> None:
    """By name, narrowed by a prefix that the caller names and by one that it may not leave."""
    async with running(WatchedStore()) as engine:
        for name in ("a", "b1", "b2", "b3", "c"):
            await ok(engine, LockAcquire(name, "one", TTL), LockGrant)

        async def names(
            prefix: str | None, allowed: str | None = None, **page: object
        ) -> list[str]:
            request = LockSearch(prefix, **page)  # type: ignore[arg-type]
            found = (await engine.submit(request, prefix=allowed)).data
            assert isinstance(found, LockPage)
            assert all(isinstance(lock, LockRecord) for lock in found.locks)
            return [lock.resource for lock in found.locks]

        assert await names(None) == ["a", "b1", "b2", "b3", "c"]
        assert await names("b", limit=2) == ["b1", "b2"]
        assert await names("b", limit=2, cursor="b2") == ["b3"]
        assert await names("b", "b2") == await names("b2", "b") == ["b2"]
        assert await names("a", "b") == []


async def test_nothing_is_left_of_those_who_waited() -> None:
    """The engine's own tables are empty again."""
    async with running(WatchedStore()) as engine:
        await ok(engine, acquire("one"), LockGrant)
        await engine.submit(acquire("two", wait=5))
        await eventually(lambda: not engine._waiters._by_place)
        assert len(engine._waiters) == 0
