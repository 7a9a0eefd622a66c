"""What is counted of work: exactly what was committed, once, whatever was undone on the way."""

from __future__ import annotations

import pytest

from kept.engine.counting import WorkSeries
from kept.engine.engine import Engine
from kept.engine.labels import MAX_LABEL_SETS, OTHER
from kept.protocol import guard_requests as g
from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import PromiseState, Value
from kept.protocol.responses import ClaimResult, LockGrant, NackResult, Nothing, PromiseResult
from tests.unit.engine.rig import (
    ShiftedRuntime,
    WatchedStore,
    beside,
    claimed,
    eventually,
    ok,
    running,
    waiting_claim,
)


def job(id: str, queue: str = "q", **tags: str) -> r.PromiseCreate:
    named = {name.replace("_", ":", 1): text for name, text in tags.items()}
    return r.PromiseCreate(id, NEVER_MS, tags={tag.TARGET: f"queue://{queue}", **named})


def fulfil(id: str, version: int) -> r.TaskFulfill:
    settle = r.PromiseSettle(id, PromiseState.RESOLVED, Value())
    return r.TaskFulfill(id, version, r.SettleAction(settle))


def series(engine: Engine, queue: str = "q", function: str = "") -> WorkSeries:
    return engine.statistics.work.series["default", queue, function]


async def test_a_job_is_counted_at_each_of_its_steps() -> None:
    """Enqueued, claimed, failed, claimed, released, claimed, consumed; with latency and run times."""
    runtime = ShiftedRuntime()
    async with running(WatchedStore(runtime), runtime=runtime) as engine:
        await ok(engine, job("j", kept_function="f", kept_backoff="fixed:1000"), PromiseResult)
        await ok(engine, waiting_claim("q", wait=0), ClaimResult)
        runtime.shift_ms += 2_000
        await ok(engine, r.TaskNack("j", 1), NackResult)
        runtime.shift_ms += 4_000
        await ok(engine, waiting_claim("q", wait=0), ClaimResult)
        await ok(engine, r.TaskRelease("j", 2), Nothing)
        await ok(engine, waiting_claim("q", wait=0), ClaimResult)
        await ok(engine, fulfil("j", 3), PromiseResult)
        counted = series(engine, function="f")
        assert (counted.enqueued, counted.claimed) == (1, 3)
        assert counted.requeued == {"failed": 1, "released": 1}
        assert counted.consumed == {"resolved": 1}
        # Due after its backoff of one second, it waited for three.
        assert counted.latency.count == 3
        assert 3.0 <= counted.latency.sum < 4.0
        assert counted.run.count == 3
        assert 2.0 <= counted.run.sum < 3.0


async def test_several_moves_of_one_commit_count_each() -> None:
    """A batch that creates, claims, releases and claims again is one commit and four moves."""
    async with running(WatchedStore()) as engine:
        claim = waiting_claim("q", wait=0)
        batch: list[r.Request] = [job("j"), claim, r.TaskRelease("j", 1), claim, fulfil("j", 2)]
        await engine.submit_batch([(request, r.RequestHead()) for request in batch])
        counted = series(engine)
        assert (counted.enqueued, counted.claimed) == (1, 2)
        assert counted.requeued == {"released": 1}
        assert counted.consumed == {"resolved": 1}
        assert engine.statistics.commit_sizes.sum == 5


async def test_what_is_not_committed_is_not_counted() -> None:
    """A commit that fails counts nothing; asked again, it counts once."""
    store = WatchedStore()
    async with running(store) as engine:
        store.fail()
        assert (await engine.submit(job("j"))).status == 503
        assert not engine.statistics.work.series
        store.failure = None
        await ok(engine, job("j"), PromiseResult)
        assert series(engine).enqueued == 1


async def test_a_repeated_create_is_a_hit_and_no_job() -> None:
    """By its id, and by each kind of key."""
    async with running(WatchedStore()) as engine:
        keyed = {
            "dedupe": {"kept_dedupe": "k", "kept_dedupe-window": "60000"},
            "debounce": {"kept_debounce": "k"},
            "singleton": {"kept_singleton-key": "k", "kept_singleton": "return"},
        }
        await ok(engine, job("j"), PromiseResult)
        await ok(engine, job("j"), PromiseResult)
        for name, tags in keyed.items():
            for id in (f"{name}1", f"{name}2"):
                assert (await engine.submit(job(id, **tags))).ok, name
        hits = {("id",): 1, ("dedupe",): 1, ("debounce",): 1, ("singleton",): 1}
        assert engine.statistics.work.key_hits == hits
        assert series(engine).enqueued == 4


async def test_lease_expiries_and_dead_letters() -> None:
    """Each lease that runs out counts, the last one too, and the letter is counted by its reason."""
    runtime = ShiftedRuntime()
    async with running(WatchedStore(runtime), runtime=runtime, repair_ms=20) as engine:
        await ok(engine, job("j", kept_attempts="2", kept_backoff="fixed:0"), PromiseResult)
        for expiries in (1, 2):
            await ok(engine, waiting_claim("q", ttl=1_000), ClaimResult)
            runtime.shift_ms += 1_001
            await eventually(lambda n=expiries: series(engine).lease_expiries == n)  # type: ignore[misc]
        counted = series(engine)
        assert (counted.claimed, counted.requeued) == (2, {"lease_expired": 1})
        assert counted.consumed == {"rejected": 1}
        assert engine.statistics.work.dead == {("default", "q", "", "lease_expired"): 1}


async def test_results_of_lost_leases_and_their_heartbeats() -> None:
    """A second result is refused and counted; so is a heartbeat for a lease that is another's."""
    async with running(WatchedStore()) as engine:
        await ok(engine, job("j"), PromiseResult)
        await ok(engine, waiting_claim("q", wait=0), ClaimResult)
        await ok(engine, r.TaskRelease("j", 1), Nothing)
        assert claimed(await engine.submit(waiting_claim("q", wait=0))) == ["j"]
        assert (await engine.submit(fulfil("j", 1))).status == 409
        await engine.submit(r.TaskHeartbeat("w", [r.TaskRef("j", 1), r.TaskRef("j", 2)]))
        await ok(engine, fulfil("j", 2), PromiseResult)
        work = engine.statistics.work
        assert work.double_effects == {("task.fulfill",): 1}
        assert work.heartbeats_lost == {("superseded",): 1}
        assert series(engine).consumed == {"resolved": 1}


async def test_locks_are_counted_with_the_time_that_their_holders_waited() -> None:
    """Got at once is a wait of nothing; who waits conflicts once, however often it looks."""
    runtime = ShiftedRuntime()
    async with running(WatchedStore(runtime), runtime=runtime) as engine:
        first = await ok(engine, g.LockAcquire("door", "a", 60_000), LockGrant)
        waiting = beside(engine.submit(g.LockAcquire("door", "b", 60_000, wait=20_000)))
        work = engine.statistics.work
        await eventually(lambda: work.conflicts == {("lock",): 1})
        runtime.shift_ms += 3_000
        await ok(engine, g.LockRelease("door", "a", first.fence), Nothing)
        assert (await waiting).ok
        assert (await engine.submit(g.LockAcquire("door", "c", 60_000))).status == 409
        assert (await engine.submit(g.LockHeartbeat("door", "a", first.fence))).status == 409
        assert work.heartbeats_lost == {("lock",): 1}
        assert work.conflicts == {("lock",): 2}
        assert work.granted == {("lock",): 2}
        wait = work.lock_wait[("lock",)]
        assert wait.count == 2
        assert 3.0 <= wait.sum < 4.0


@pytest.mark.parametrize("beyond", [1, 7])
async def test_label_values_are_bounded_and_their_sum_is_exact(beyond: int) -> None:
    """What comes after so many queues is counted together."""
    async with running(WatchedStore(), watched=False) as engine:
        count = MAX_LABEL_SETS + beyond
        jobs = [(job(f"j{n}", f"q{n}"), r.RequestHead()) for n in range(count)]
        assert all(answer.ok for answer in await engine.submit_batch(jobs))
        numbers = engine.statistics.work.series
        assert len(numbers) == MAX_LABEL_SETS + 1
        assert numbers[OTHER, OTHER, OTHER].enqueued == beyond
        assert sum(each.enqueued for each in numbers.values()) == count
