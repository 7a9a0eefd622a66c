"""Waiting claims are woken by whatever makes a task due, and no wake-up is lost (protocol B2)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from kept.engine.engine import Engine
from kept.engine.waiters import Waiters
from kept.engine.waiting import Waiting
from kept.protocol import requests as r
from kept.protocol.records import Delivery, PromiseState, Task, TaskState
from kept.protocol.responses import OK, ClaimResult, Response
from kept.protocol.storage import DEFAULT_TENANT, Notice
from kept.runtime import SystemRuntime
from kept.stores.base import Transaction
from kept.stores.memory import MemoryStore
from tests.unit.engine.rig import (
    WatchedStore,
    beside,
    claimed,
    eventually,
    ok,
    running,
    started,
    turns,
    waiting_claim,
)
from tests.unit.machine.world import create

SEEDS = range(60)


async def _held(engine: Engine, store: WatchedStore, **tags: str) -> Task:
    """A job `j` that worker `w` holds."""
    await engine.submit(create("j", queue="q", backoff="fixed:5", **tags))
    await engine.submit(waiting_claim("q", wait=0, ttl=60_000))
    return store.task("j")


async def _by_create(engine: Engine, store: WatchedStore) -> None:
    await engine.submit(create("j", queue="q"))


async def _by_delay(engine: Engine, store: WatchedStore) -> None:
    due_at = engine.runtime.now_ms() + 30
    await engine.submit(create("j", queue="q", delay=str(due_at)))


async def _by_release(engine: Engine, store: WatchedStore) -> None:
    await engine.submit(r.TaskRelease("j", store.task("j").version))


async def _by_nack(engine: Engine, store: WatchedStore) -> None:
    await engine.submit(r.TaskNack("j", store.task("j").version, delay=20))


async def _by_continue(engine: Engine, store: WatchedStore) -> None:
    await engine.submit(r.TaskHalt("j"))
    await engine.submit(r.TaskContinue("j"))


async def _by_replay(engine: Engine, store: WatchedStore) -> None:
    await engine.submit(r.TaskNack("j", store.task("j").version, final="halt"))
    await engine.submit(r.DeadReplay(["j"]))


async def _by_settlement(engine: Engine, store: WatchedStore) -> None:
    await engine.submit(create("awaited", external="true"))
    action = r.CallbackAction(r.PromiseRegisterCallback("awaited", "j"))
    await engine.submit(r.TaskSuspend("j", store.task("j").version, [action]))
    await engine.submit(r.PromiseSettle("awaited", PromiseState.RESOLVED))


@pytest.mark.parametrize("wake", [_by_create, _by_delay])
async def test_a_new_job_wakes_a_waiting_claim(
    wake: Callable[[Engine, WatchedStore], asyncio.Future[None]],
) -> None:
    """A claim that found nothing is answered when a job is created, or when its delay is over."""
    store = WatchedStore()
    async with running(store) as engine, asyncio.timeout(5):
        claim = started(engine, waiting_claim("q"))
        await turns()
        await wake(engine, store)
        assert claimed(await claim) == ["j"]


@pytest.mark.parametrize("wake", [_by_release, _by_nack, _by_continue, _by_replay, _by_settlement])
async def test_a_job_that_comes_back_wakes_a_waiting_claim(
    wake: Callable[[Engine, WatchedStore], asyncio.Future[None]],
) -> None:
    """Whatever makes a held job due again answers the claim that waits for it."""
    store = WatchedStore()
    async with running(store) as engine, asyncio.timeout(5):
        await _held(engine, store)
        claim = started(engine, waiting_claim("q"))
        await turns()
        assert not claim.done()
        await wake(engine, store)
        assert claimed(await claim) == ["j"]


async def test_an_expired_lease_wakes_a_waiting_claim() -> None:
    """A job whose worker died goes to the claim that waits, after its backoff, without a scan."""
    store = WatchedStore()
    async with running(store, repair_ms=60_000) as engine, asyncio.timeout(5):
        await engine.submit(create("j", queue="q", backoff="fixed:10"))
        await engine.submit(waiting_claim("q", wait=0, ttl=40))
        assert claimed(await engine.submit(waiting_claim("q"))) == ["j"]
        assert (store.task("j").version, store.task("j").failures) == (2, 1)


@pytest.mark.parametrize(
    "notice", [Notice(queues={(DEFAULT_TENANT, "q")}), Notice(everything=True)]
)
async def test_another_process_wakes_a_waiting_claim(notice: Notice) -> None:
    """What another process committed is looked for when the store tells of it."""
    store, runtime = WatchedStore(), SystemRuntime()
    other = MemoryStore(runtime)
    other.tables = store.tables
    async with (
        running(store, watched=False) as engine,
        running(other, watched=False) as elsewhere,
        asyncio.timeout(5),
    ):
        claim = started(engine, waiting_claim("q"))
        await turns()
        await elsewhere.submit(create("j", queue="q"))
        await turns()
        assert not claim.done()
        assert store.on_notice is not None
        store.on_notice(notice)
        assert claimed(await claim) == ["j"]


async def test_claims_of_other_functions_do_not_swallow_a_wake_up() -> None:
    """A job wakes a claim that can take it, also where one that cannot has waited for longer."""
    store = WatchedStore()
    async with running(store) as engine, asyncio.timeout(5):
        first = started(engine, waiting_claim("q", functions=["f@1"]))
        await turns()
        second = started(engine, waiting_claim("q", functions=["g@1"]))
        await turns()
        await engine.submit(create("j", queue="q", function="g@1"))
        assert claimed(await second) == ["j"]
        assert not first.done()
        await engine.submit(create("k", queue="q", function="f@1"))
        assert claimed(await first) == ["k"]


async def test_one_commit_feeds_several_waiting_claims() -> None:
    """A commit of many jobs answers as many waiting claims, each with its own job."""
    store = WatchedStore()
    async with running(store) as engine, asyncio.timeout(5):
        claims = [started(engine, waiting_claim("q")) for _ in range(20)]
        await turns()
        requests = [(create(f"j{n}", queue="q"), r.RequestHead()) for n in range(20)]
        await engine.submit_batch(requests)
        taken = [id for claim in claims for id in claimed(await claim)]
        assert sorted(taken) == sorted(f"j{n}" for n in range(20))


@pytest.mark.parametrize("while_looking", [False, True])
async def test_a_claim_that_goes_away_passes_its_wake_up_on(*, while_looking: bool) -> None:
    """A client that disconnects when it is woken, or while it looks because it was woken, does not
    keep the job from the next one."""
    waiters = Waiters()
    looks: list[tuple[str, asyncio.Future[Response]]] = []
    waiting = Waiting(waiters, SystemRuntime(), lambda: False)
    nothing = Response(OK, ClaimResult([]))

    def claim(name: str) -> asyncio.Task[Response]:
        async def look() -> Response:
            looks.append((name, asyncio.get_running_loop().create_future()))
            return await looks[-1][1]

        return beside(waiting.claim(waiting_claim("q"), DEFAULT_TENANT, look))

    first = claim("first")
    await eventually(lambda: len(looks) == 1)
    second = claim("second")
    await eventually(lambda: len(looks) == 2)
    for _, look in looks:
        look.set_result(nothing)
    await turns()
    assert waiters.wake(Notice(queues={(DEFAULT_TENANT, "q")})) == 1
    if while_looking:
        await eventually(lambda: len(looks) == 3)
    first.cancel()
    await eventually(lambda: looks[-1][0] == "second" and len(looks) == 3 + while_looking)
    second.cancel()
    await asyncio.wait({first, second})


async def test_a_wake_up_during_a_look_is_another_look() -> None:
    """A wake-up that comes while a woken claim looks, too late for that look, is not forgotten."""
    waiters = Waiters()
    looks: list[asyncio.Future[Response]] = []

    async def look() -> Response:
        looks.append(asyncio.get_running_loop().create_future())
        return await looks[-1]

    waiting = Waiting(waiters, SystemRuntime(), lambda: False)
    claim = beside(waiting.claim(waiting_claim("q"), DEFAULT_TENANT, look))
    notice = Notice(queues={(DEFAULT_TENANT, "q")})
    nothing = Response(OK, ClaimResult([]))
    await eventually(lambda: len(looks) == 1)
    looks[-1].set_result(nothing)
    await turns()
    assert waiters.wake(notice) == 1
    for count in range(2, 5):
        # It looks because it was woken; what comes now may be too late for this look.
        await eventually(lambda n=count: len(looks) == n)  # type: ignore[misc]
        assert waiters.wake(notice) == 1
        looks[-1].set_result(nothing)
    await eventually(lambda: len(looks) == 5)
    looks[-1].set_result(nothing)
    await turns()
    assert len(looks) == 5, "nothing woke it after its last look"
    claim.cancel()
    await asyncio.wait({claim})
    assert not len(waiters)


class _SlowStore(MemoryStore):
    """Gives way at random before and within every transaction, so that everything interleaves."""

    def __init__(self, seed: int) -> None:
        super().__init__(SystemRuntime())
        self.random = random.Random(seed)

    async def pause(self) -> None:
        for _ in range(self.random.choice((0, 0, 1, 3, 8))):
            await asyncio.sleep(0)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        await self.pause()
        async with super().transaction() as transaction:
            await self.pause()
            yield transaction


async def _claim_and_finish(engine: Engine, rng: random.Random, done: set[str]) -> None:
    """A worker that takes jobs one by one, of all functions or of one."""
    functions = rng.choice((None, None, ["f@1"], ["g@1"]))
    queues = rng.choice((["a"], ["b"], ["a", "b"]))
    limit = rng.choice((1, 1, 2))
    while True:
        response = await engine.submit(
            waiting_claim(*queues, wait=rng.choice((0, 30_000)), limit=limit, functions=functions)
        )
        for id in claimed(response):
            done.add(id)
            settle = r.SettleAction(r.PromiseSettle(id, PromiseState.RESOLVED))
            await engine.submit(r.TaskFulfill(id, 1, settle))
        await asyncio.sleep(0)


@pytest.mark.parametrize("seeds", [SEEDS[:30], SEEDS[30:]])
async def test_no_job_waits_beside_a_claim_that_could_take_it(seeds: range) -> None:
    """However creates, claims, cancellations and commits interleave: once all is quiet, no due job
    is left that a waiting worker would take."""
    for seed in seeds:
        await _run_workers(seed)


async def _run_workers(seed: int) -> None:
    rng = random.Random(seed)
    store = _SlowStore(seed)
    async with running(store, watched=False) as engine:
        done: set[str] = set()
        # Somebody takes each kind of job, and then others come and go.
        steady = [
            beside(_all_of(engine, queue, function, done))
            for queue in ("a", "b")
            for function in ("f@1", "g@1")
        ]
        fickle = [beside(_claim_and_finish(engine, rng, done)) for _ in range(6)]
        for number in range(30):
            if rng.random() < 0.3:
                gone = rng.randrange(len(fickle))
                fickle[gone].cancel()
                fickle[gone] = beside(_claim_and_finish(engine, rng, done))
            queue, function = rng.choice("ab"), rng.choice(("f@1", "g@1"))
            await engine.submit(create(f"j{number}", queue=queue, function=function))
            await turns(rng.choice((0, 1, 20)))
        for worker in fickle:
            worker.cancel()
        await asyncio.wait(fickle)

        def left() -> list[str]:
            tasks = store.tables[DEFAULT_TENANT].tasks.values()
            return [t.id for t in tasks if t.state is TaskState.PENDING]

        try:
            await eventually(lambda: not left(), within=2)
        except TimeoutError:
            raise AssertionError(f"seed {seed}: nobody was woken for {left()}") from None
        finally:
            for worker in steady:
                worker.cancel()
            await asyncio.wait(steady)


async def _all_of(engine: Engine, queue: str, function: str, done: set[str]) -> None:
    while True:
        done.update(claimed(await engine.submit(waiting_claim(queue, functions=[function]))))


async def test_claims_are_answered_in_the_order_in_which_they_came() -> None:
    """No claim starves: of those that wait for the same, the one that waits longest is fed first."""
    store = WatchedStore()
    async with running(store) as engine, asyncio.timeout(5):
        claims = []
        for _ in range(5):
            claims.append(started(engine, waiting_claim("q")))
            await turns()
        for number, claim in enumerate(claims):
            await engine.submit(create(f"j{number}", queue="q"))
            assert claimed(await claim) == [f"j{number}"]


async def test_a_claim_without_a_job_is_answered_empty_after_its_wait() -> None:
    """The wait is a limit: then the answer is 200 without tasks, and nobody is registered."""
    store = WatchedStore()
    async with running(store) as engine:
        response = await ok(engine, waiting_claim("q", wait=30), ClaimResult)
        assert response.tasks == []
        assert engine.statistics.waiting == 0


async def test_a_timer_with_a_queue_is_never_claimed() -> None:
    """A timer's task only waits for its deadline, whatever its target (A5)."""
    store = WatchedStore()
    async with running(store) as engine:
        await engine.submit(create("t", queue="q", timer="true", timeout_at=2**52))
        assert store.task("t").delivery is Delivery.NEVER
        assert claimed(await engine.submit(waiting_claim("q", wait=10))) == []
