"""Batches: what arrives during a commit shares the next one, and what fails leaves no trace."""

from __future__ import annotations

import asyncio

import pytest

from kept.engine import committer
from kept.errors import CommitUnknownError
from kept.machine import dispatch, promises
from kept.machine.step import Step
from kept.protocol import requests as r
from kept.protocol.records import PromiseState
from kept.protocol.responses import ClaimResult, PromiseResult, Response
from kept.protocol.storage import DEFAULT_TENANT
from tests.unit.engine.rig import (
    ShiftedRuntime,
    WatchedStore,
    claimed,
    eventually,
    ok,
    running,
    started,
    turns,
    waiting_claim,
)
from tests.unit.machine.world import PUSHED, create


def _fail_when_settling(step: Step, request: r.PromiseSettle) -> Response:
    promises.promise_settle(step, request)
    raise RuntimeError("a fault of the machine, after it wrote")


async def test_requests_that_arrive_during_a_commit_share_the_next_one() -> None:
    """One commit is in flight, fifty requests arrive: they are committed together."""
    store = WatchedStore()
    async with running(store) as engine:
        store.gate.clear()
        first = started(engine, create("first"))
        await turns()
        others = [started(engine, create(f"p{n}")) for n in range(50)]
        await turns()
        assert store.commits == 0
        store.gate.set()
        answers = await asyncio.gather(first, *others)
        assert {answer.status for answer in answers} == {200}
        assert store.commits == 2
        assert engine.statistics.batches == 2


async def test_an_idle_engine_commits_at_once() -> None:
    """A request that comes alone waits for no timer: it is committed within a few turns."""
    store = WatchedStore()
    async with running(store) as engine:
        await turns()
        request = started(engine, create("p"))
        await turns(10)
        assert request.done()
        assert store.commits == 1


async def test_nobody_is_answered_before_the_commit() -> None:
    """An answer means durable: reads in the batch of a write wait for it too."""
    store = WatchedStore()
    async with running(store) as engine:
        store.gate.clear()
        requests = [started(engine, create("p")), started(engine, r.PromiseGet("p"))]
        await turns()
        assert not any(request.done() for request in requests)
        store.gate.set()
        assert [(await request).status for request in requests] == [200, 200]


async def test_a_request_that_raises_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault inside the machine is one 500; what the request wrote is undone, the rest commits."""
    monkeypatch.setitem(dispatch.HANDLERS, r.PromiseSettle, _fail_when_settling)
    store = WatchedStore()
    async with running(store, broken=True) as engine:
        batch: list[r.Request] = [
            create("a", external="true"),
            r.PromiseSettle("a", PromiseState.RESOLVED),
            create("b"),
        ]
        answers = await engine.submit_batch([(each, r.RequestHead()) for each in batch])
        assert [answer.status for answer in answers] == [200, 500, 200]
        assert "Runtime" not in str(answers[1].data)
        assert store.commits == 1
        stored = store.tables[DEFAULT_TENANT].promises
        assert {id: p.state.value for id, p in stored.items()} == {"a": "pending", "b": "pending"}


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (None, 503),
        # Whoever hears that nothing was applied repeats the request, and here that may be twice.
        (CommitUnknownError("the disk went away"), 500),
        (RuntimeError("not a store's error"), 500),
    ],
)
async def test_a_failed_commit_fails_all_and_leaves_no_trace(
    failure: Exception | None, status: int
) -> None:
    """Every request of a failed commit is refused; nothing is stored, no claim is woken, no message
    sent, and the engine goes on."""
    store = WatchedStore()
    async with running(store, broken=status == 500) as engine:
        claim = started(engine, waiting_claim("q", wait=5_000))
        await turns()
        store.fail() if failure is None else setattr(store, "failure", failure)
        requests = [started(engine, create(f"j{n}", queue="q")) for n in range(5)]
        assert {(await request).status for request in requests} == {status}
        store.failure = None
        assert not store.tables.get(DEFAULT_TENANT) or not store.tables[DEFAULT_TENANT].promises
        assert not claim.done()
        assert engine.statistics.wakeups == 0
        assert (await engine.submit(r.PromiseGet("j0"))).status == 404
        await engine.submit(create("j0", queue="q"))
        assert claimed(await claim) == ["j0"]


async def test_a_batch_keeps_its_order_and_sees_its_own_writes() -> None:
    """Items are applied in order, searches among them, each with its own answer."""
    store = WatchedStore()
    async with running(store) as engine:
        batch: list[r.Request] = [
            r.PromiseGet("p"),
            create("p"),
            r.PromiseGet("p"),
            r.PromiseSearch(),
            create("q", target="nowhere"),
            r.PromiseSettle("p", PromiseState.REJECTED),
            r.PromiseSearch(state=PromiseState.REJECTED),
        ]
        answers = await engine.submit_batch([(each, r.RequestHead()) for each in batch])
        assert [answer.status for answer in answers] == [404, 200, 200, 200, 400, 200, 200]
        assert [len(answers[n].data.promises) for n in (3, 6)] == [1, 1]  # type: ignore[union-attr]


async def test_waiting_requests_are_refused_in_a_batch() -> None:
    """A request that waits would hold up the others: 400, and only for itself."""
    store = WatchedStore()
    async with running(store) as engine:
        batch: list[r.Request] = [
            waiting_claim("q", wait=1),
            r.PromiseWait("p", 1),
            r.PromiseWait("p", 0),
            waiting_claim("q", wait=0),
            create("p"),
        ]
        answers = await engine.submit_batch([(each, r.RequestHead()) for each in batch])
        assert [answer.status for answer in answers] == [400, 400, 404, 200, 200]


async def test_a_batch_larger_than_a_commit_is_answered_whole() -> None:
    """A thousand items span commits, and all are answered in order."""
    store = WatchedStore()
    async with running(store) as engine:
        batch = [(create(f"p{n:04}"), r.RequestHead()) for n in range(1_000)]
        answers = await engine.submit_batch(batch)
        ids = [a.data.promise.id for a in answers if isinstance(a.data, PromiseResult)]
        assert ids == [f"p{n:04}" for n in range(1_000)]
        assert store.commits == 2


async def test_what_does_not_fit_into_the_queue_is_shed(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the bound a request is refused with 429 at once, stores nothing, and the others go on."""
    monkeypatch.setattr(committer, "MAX_QUEUED_ITEMS", 5)
    store = WatchedStore()
    async with running(store) as engine:
        store.gate.clear()
        running_now = started(engine, create("first"))
        await turns()
        queued = [started(engine, create(f"p{n}")) for n in range(5)]
        await turns()
        assert (await engine.submit(create("one-too-many"))).status == 429
        store.gate.set()
        assert {(await each).status for each in (running_now, *queued)} == {200}
        assert (await engine.submit(r.PromiseGet("one-too-many"))).status == 404


async def test_a_client_that_goes_away_disturbs_nobody() -> None:
    """A cancelled request is still applied, and the others of its commit are answered."""
    store = WatchedStore()
    async with running(store) as engine:
        store.gate.clear()
        gone, stays = started(engine, create("gone")), started(engine, create("stays"))
        await turns()
        gone.cancel()
        store.gate.set()
        assert (await stays).status == 200
        assert (await engine.submit(r.PromiseGet("gone"))).status == 200


async def test_the_clock_of_commits_never_goes_back() -> None:
    """When the wall clock is set back, records and searches stay at the latest commit's instant."""
    store, runtime = WatchedStore(), ShiftedRuntime()
    async with running(store, runtime=runtime) as engine:
        before = await ok(engine, create("a", external="true"), PromiseResult)
        runtime.shift_ms = -3_600_000
        after = await ok(engine, create("b"), PromiseResult)
        assert after.promise.created_at >= before.promise.created_at


async def test_stop_answers_waiters_and_finishes_what_is_in_flight() -> None:
    """At a stop, waiting claims and waits are answered as they stand, requests in flight commit, and
    later ones are told to ask again."""
    store = WatchedStore()
    async with running(store, watched=False) as engine:
        await engine.submit(create("p"))
        claim = started(engine, waiting_claim("q", wait=30_000))
        wait = started(engine, r.PromiseWait("p", 60_000))
        await turns()
        store.gate.clear()
        flying = started(engine, create("late"))
        await turns()
        stopping = asyncio.get_running_loop().create_task(engine.stop())
        await turns()
        assert not stopping.done()
        store.gate.set()
        await stopping
        assert isinstance((await claim).data, ClaimResult)
        assert (await wait).status == 200
        assert (await flying).status == 200
        assert (await engine.submit(create("after"))).status == 503
        assert set(store.tables[DEFAULT_TENANT].promises) == {"p", "late"}


async def test_pushed_work_is_dispatched_in_the_commit_that_makes_it_due() -> None:
    """A create of pushed work commits its message too: no second commit, no scan."""
    store = WatchedStore()
    async with running(store) as engine:
        await engine.submit(create("t", target=PUSHED))
        assert store.commits == 1
        await eventually(lambda: len(store.tables[DEFAULT_TENANT].outbox) == 1)
        assert store.task("t").retry_at is not None
