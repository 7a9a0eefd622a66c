"""Timers fire when they are due, idle engines do nothing, scans repair what a crash left (A5)."""

from __future__ import annotations

import pytest

from kept.machine import dispatch
from kept.machine.background import TimeoutPromise
from kept.machine.step import Step
from kept.protocol import requests as r
from kept.protocol.limits import MAX_EDGES_PER_STEP
from kept.protocol.records import PromiseState, TaskState
from kept.protocol.responses import PromiseResult
from kept.protocol.storage import DEFAULT_TENANT, Edge
from kept.runtime import SystemRuntime
from kept.stores.memory import MemoryStore
from tests.unit.engine.rig import (
    ShiftedRuntime,
    WatchedStore,
    eventually,
    ok,
    running,
    turns,
)
from tests.unit.machine.world import create

FAN_IN = 3 * MAX_EDGES_PER_STEP
# Milliseconds by which a timer may be late on a machine that is busy with other tests.
LATE_MS = 150


async def test_a_deadline_fires_when_it_is_due() -> None:
    """An external promise is stored as settled within some ms of its deadline, without a scan."""
    store = WatchedStore()
    async with running(store, repair_ms=60_000) as engine:
        deadline = engine.runtime.now_ms() + 60
        await engine.submit(create("p", external="true", timeout_at=deadline))
        promises = store.tables[DEFAULT_TENANT].promises
        await eventually(lambda: not promises["p"].pending)
        late = engine.runtime.now_ms() - deadline
        assert 0 <= late < LATE_MS
        assert promises["p"].settled_at == deadline


async def test_an_earlier_deadline_overtakes_a_later_one() -> None:
    """The one timer is for what is due next, whichever was armed first."""
    store = WatchedStore()
    async with running(store, repair_ms=60_000) as engine:
        now = engine.runtime.now_ms()
        await engine.submit(create("late", external="true", timeout_at=now + 90_000))
        await turns()
        await engine.submit(create("soon", external="true", timeout_at=now + 40))
        promises = store.tables[DEFAULT_TENANT].promises
        await eventually(lambda: not promises["soon"].pending)
        assert promises["late"].pending


async def test_an_idle_engine_looks_for_nothing() -> None:
    """With nothing due there is a look at start, one after what was armed, and the repair scans:
    no polling and no busy loop."""
    store = WatchedStore()
    async with running(store, repair_ms=60_000) as engine:
        far = engine.runtime.now_ms() + 3_600_000
        await engine.submit(create("p", external="true", timeout_at=far))
        await turns()
        looks = store.looks
        result = await ok(engine, r.PromiseWait("p", 150), PromiseResult)
        assert result.promise.state is PromiseState.PENDING
        assert store.looks == looks
        assert looks <= 3


async def test_a_clock_that_was_set_back_is_waited_for() -> None:
    """While the clock of the commits stands still, what is due by it soon is not looked for again
    and again: it becomes due when the wall's clock has caught up."""
    runtime = ShiftedRuntime()
    store = WatchedStore(runtime)
    async with running(store, runtime=runtime, repair_ms=60_000) as engine:
        await engine.submit(create("p", external="true"))
        promises = store.tables[DEFAULT_TENANT].promises
        runtime.shift_ms = -300
        deadline = promises["p"].created_at + 1
        looks = store.looks
        await engine.submit(create("q", external="true", timeout_at=deadline))
        await eventually(lambda: not promises["q"].pending)
        assert store.looks - looks <= 5
        assert promises["q"].settled_at == deadline


async def test_repair_scans_find_what_nobody_told_of() -> None:
    """What another process committed, and died before telling, is done within the repair period."""
    store, runtime = WatchedStore(), SystemRuntime()
    async with running(store, watched=False, repair_ms=30):
        other = MemoryStore(runtime)
        other.tables = store.tables
        async with running(other, watched=False) as elsewhere:
            deadline = runtime.now_ms() + 5
            await elsewhere.submit(create("p", external="true", timeout_at=deadline))
        promises = store.tables[DEFAULT_TENANT].promises
        await eventually(lambda: not promises["p"].pending)


async def test_a_store_that_fails_is_not_hammered() -> None:
    """While commits fail, due work is tried again each repair period, not in a busy loop; when they
    succeed again it is done."""
    store = WatchedStore()
    async with running(store, repair_ms=40) as engine:
        await engine.submit(create("wait"))
        deadline = engine.runtime.now_ms() + 20
        await engine.submit(create("p", external="true", timeout_at=deadline))
        store.fail()
        until = engine.runtime.now_ms() + 250
        await eventually(lambda: engine.runtime.now_ms() >= until)
        assert store.looks <= 20
        store.failure = None
        promises = store.tables[DEFAULT_TENANT].promises
        await eventually(lambda: not promises["p"].pending)


async def test_a_step_that_fails_each_time_keeps_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A record on which a step raises is left for the repair scans; the others are settled."""
    name, handler = dispatch._INTERNAL[TimeoutPromise]

    def timeout(step: Step, due: TimeoutPromise) -> None:
        if due.id == "poison":
            raise RuntimeError("a fault of the machine")
        handler(step, due)

    monkeypatch.setitem(dispatch._INTERNAL, TimeoutPromise, (name, timeout))
    store = WatchedStore()
    async with running(store, repair_ms=40) as engine:
        deadline = engine.runtime.now_ms() + 20
        for id in ("a", "poison", "z"):
            await engine.submit(create(id, external="true", timeout_at=deadline))
        promises = store.tables[DEFAULT_TENANT].promises
        await eventually(lambda: not promises["a"].pending and not promises["z"].pending)
        looks, until = store.looks, engine.runtime.now_ms() + 200
        await eventually(lambda: engine.runtime.now_ms() >= until)
        assert store.looks - looks <= 15
        assert promises["poison"].pending


async def _suspend_many(store: MemoryStore, count: int) -> None:
    """`count` tasks that wait for the promise `awaited`."""
    async with running(store, watched=False) as engine:
        await engine.submit(create("awaited", external="true"))
        batch: list[r.Request] = []
        for number in range(count):
            id = f"t{number:05}"
            callback = r.PromiseRegisterCallback("awaited", id)
            batch.append(r.TaskCreate("w", 60_000, r.CreateAction(create(id, queue="q"))))
            batch.append(r.TaskSuspend(id, 1, [r.CallbackAction(callback)]))
        for start in range(0, len(batch), 1_000):
            items = [(each, r.RequestHead()) for each in batch[start : start + 1_000]]
            assert {a.status for a in await engine.submit_batch(items)} == {200}


def _left(store: MemoryStore) -> tuple[int, int]:
    """How many tasks are suspended, and how many callbacks there are."""
    tables = store.tables[DEFAULT_TENANT]
    suspended = sum(t.state is TaskState.SUSPENDED for t in tables.tasks.values())
    return suspended, len(tables.callbacks.get("awaited", ()))


async def test_a_fan_in_larger_than_a_step_drains() -> None:
    """Three thousand awaiters of one promise are all woken, a thousand in the commit that settles,
    each with the awaited promise as its one resume."""
    store = MemoryStore(SystemRuntime())
    await _suspend_many(store, FAN_IN)
    async with running(store, watched=False, repair_ms=60_000) as engine:
        await engine.submit(r.PromiseSettle("awaited", PromiseState.RESOLVED))
        assert _left(store)[0] == FAN_IN - MAX_EDGES_PER_STEP
        await eventually(lambda: _left(store) == (0, 0))
        tables = store.tables[DEFAULT_TENANT]
        assert not tables.undrained
        resumes = (await store.dump(DEFAULT_TENANT)).resumes
        assert resumes == {Edge(id, "awaited") for id in tables.tasks}


async def test_a_fan_in_drains_after_a_restart() -> None:
    """An engine that stops between the settlement and the last awaiter leaves the rest to the next
    one: it is stored that edges are left."""
    store = MemoryStore(SystemRuntime())
    await _suspend_many(store, FAN_IN)
    async with running(store, watched=False, debug=True, repair_ms=60_000) as engine:
        # The background stands still, as if the process died with this commit.
        await engine.submit(r.DebugStart())
        await engine.submit(r.PromiseSettle("awaited", PromiseState.RESOLVED))
        await turns()
        assert _left(store)[0] == FAN_IN - MAX_EDGES_PER_STEP
    async with running(store, watched=False, repair_ms=60_000):
        await eventually(lambda: _left(store) == (0, 0))


async def test_waits_end_with_the_settlement() -> None:
    """promise.wait answers when the promise settles, is settled, passes its deadline, or else at its
    timeout with the pending record; 404 at once."""
    store = WatchedStore()
    async with running(store, repair_ms=60_000) as engine:
        assert (await engine.submit(r.PromiseWait("none", 60_000))).status == 404
        await engine.submit(create("p"))
        pending = await ok(engine, r.PromiseWait("p", 20), PromiseResult)
        assert pending.promise.state is PromiseState.PENDING
        await engine.submit(r.PromiseSettle("p", PromiseState.REJECTED))
        settled = await ok(engine, r.PromiseWait("p", 60_000), PromiseResult)
        assert settled.promise.state is PromiseState.REJECTED


@pytest.mark.parametrize("tags", [{"external": "true"}, {"timer": "true"}, {}])
async def test_a_wait_ends_at_the_deadline(tags: dict[str, str]) -> None:
    """At its deadline a promise is settled for whoever waits, also an internal one, for which no
    timer is armed."""
    store = WatchedStore()
    async with running(store, repair_ms=60_000) as engine:
        deadline = engine.runtime.now_ms() + 50
        await engine.submit(create("p", timeout_at=deadline, **tags))
        result = await ok(engine, r.PromiseWait("p", 60_000), PromiseResult)
        assert result.promise.state is not PromiseState.PENDING
        assert result.promise.settled_at == deadline
        assert engine.runtime.now_ms() - deadline < LATE_MS
