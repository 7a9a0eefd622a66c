"""The debug requests: a clock that stands still until it is told to tick (protocol A4)."""

from __future__ import annotations

from kept.protocol import requests as r
from kept.protocol.limits import MAX_EDGES_PER_STEP, MAX_INSTANTS_PER_STEP
from kept.protocol.records import PromiseState, TaskState
from kept.protocol.responses import AcquiredTask, ClaimResult, Nothing, PromiseResult, Snapshot
from kept.protocol.storage import DEFAULT_TENANT
from tests.unit.engine.rig import (
    ScriptedTransport,
    WatchedStore,
    claimed,
    eventually,
    ok,
    running,
    turns,
    waiting_claim,
)
from tests.unit.machine.world import LISTENER, PUSHED, create, suspend

T = 1_000_000


async def test_without_debug_they_are_forbidden() -> None:
    """Without --debug each is a 403 and a debug time is not looked at."""
    async with running(WatchedStore()) as engine:
        for request in (r.DebugStart(), r.DebugStop(), r.DebugReset(), r.DebugSnap()):
            assert (await engine.submit(request)).status == 403
        assert (await engine.submit(r.DebugTick(T))).status == 403
        created = await ok(engine, create("p"), PromiseResult, debug_time=T)
        assert created.promise.created_at > T


async def test_a_paused_engine_does_nothing_by_itself() -> None:
    """Between start and stop no deadline fires and no message goes; stop resumes both."""
    store, transport = WatchedStore(), ScriptedTransport("http")
    async with running(store, transports=[transport], debug=True) as engine:
        await ok(engine, r.DebugStart(), Nothing)
        deadline = engine.runtime.now_ms() + 10
        await engine.submit(create("p", external="true", timeout_at=deadline))
        await engine.submit(create("t", target=PUSHED))
        until = deadline + 60
        await eventually(lambda: engine.runtime.now_ms() >= until)
        tables = store.tables[DEFAULT_TENANT]
        assert tables.promises["p"].pending
        assert not tables.outbox
        await ok(engine, r.DebugStop(), Nothing)
        await eventually(lambda: not tables.promises["p"].pending and bool(transport.delivered))


async def test_settlements_drain_while_paused() -> None:
    """Background steps 2 and 3 are part of the commit that settles, paused or not."""
    store = WatchedStore()
    async with running(store, debug=True) as engine:
        await ok(engine, r.DebugStart(), Nothing)
        await engine.submit(create("p", external="true"))
        await engine.submit(r.PromiseRegisterListener("p", LISTENER))
        await ok(
            engine, r.TaskCreate("w", 9, r.CreateAction(create("t", target=PUSHED))), AcquiredTask
        )
        await engine.submit(suspend("t", 1, "p"))
        await engine.submit(r.PromiseSettle("p", PromiseState.RESOLVED))
        assert store.task("t").state is TaskState.PENDING
        snapshot = await ok(engine, r.DebugSnap(), Snapshot)
        assert [message.message["kind"] for message in snapshot.messages] == ["unblock"]
        assert (snapshot.callbacks, snapshot.listeners) == ([], [])


async def test_debug_time_is_the_clock_of_its_request() -> None:
    """Every time in the records comes from the head's clock, forward or back."""
    store = WatchedStore()
    async with running(store, debug=True) as engine:
        await ok(engine, r.DebugStart(), Nothing)
        for now in (T, T + 5_000, T - 5_000, 2**52):
            made = await ok(engine, create(f"p{now}"), PromiseResult, debug_time=now)
            assert made.promise.created_at == now


async def test_a_tick_fires_what_is_due_then_and_nothing_later() -> None:
    """tick settles, expires, fires and dispatches at its instant, answers an empty list, and refuses
    another clock in its head."""
    store = WatchedStore()
    async with running(store, debug=True) as engine:
        await ok(engine, r.DebugStart(), Nothing)
        for id, at in (("due", T), ("later", T + 1)):
            await engine.submit(
                create(id, external="true", timeout_at=at), r.RequestHead(debug_time=T - 9)
            )
        await engine.submit(create("t", target=PUSHED), r.RequestHead(debug_time=T - 9))
        refused = await engine.submit(r.DebugTick(T), r.RequestHead(debug_time=T + 1))
        assert refused.status == 400
        assert await ok(engine, r.DebugTick(T), list, debug_time=T) == []
        promises = store.tables[DEFAULT_TENANT].promises
        assert (promises["due"].pending, promises["later"].pending) == (False, True)
        assert store.task("t").retry_at == T + engine.config.retry_timeout_ms
        snapshot = await ok(engine, r.DebugSnap(), Snapshot, debug_time=T)
        assert [m.message["data"]["task"]["id"] for m in snapshot.messages] == ["t"]


async def test_a_tick_fires_all_missed_instants() -> None:
    """A schedule that missed more instants than one step fires is brought up to date in one tick."""
    store = WatchedStore()
    async with running(store, debug=True) as engine:
        await ok(engine, r.DebugStart(), Nothing)
        every_second = r.ScheduleCreate("s", "* * * * * *", "{{.id}}.{{.timestamp}}", 10**9)
        await engine.submit(every_second, r.RequestHead(debug_time=T))
        seconds = 2 * MAX_INSTANTS_PER_STEP + 50
        await ok(engine, r.DebugTick(T + seconds * 1_000), list)
        fired = store.tables[DEFAULT_TENANT].promises
        assert sorted(p.created_at for p in fired.values()) == [
            T + 1_000 * n for n in range(1, seconds + 1)
        ]


async def test_a_tick_drains_what_a_settlement_left() -> None:
    """Edges beyond one step's are drained by the tick, all of them."""
    store = WatchedStore()
    count = 3 * MAX_EDGES_PER_STEP + 1
    async with running(store, watched=False, debug=True) as engine:
        await ok(engine, r.DebugStart(), Nothing)
        await engine.submit(create("p", external="true"))
        listeners = [r.PromiseRegisterListener("p", f"http://l.test/{n}") for n in range(count)]
        for start in range(0, count, 1_000):
            await engine.submit_batch(
                [(each, r.RequestHead()) for each in listeners[start : start + 1_000]]
            )
        await engine.submit(r.PromiseSettle("p", PromiseState.RESOLVED))
        tables = store.tables[DEFAULT_TENANT]
        assert len(tables.outbox) == MAX_EDGES_PER_STEP
        await ok(engine, r.DebugTick(T), list)
        assert len(tables.outbox) == count


async def test_a_claim_uses_its_debug_time() -> None:
    """A job delayed until an instant is claimed by a request of that instant, not by one before."""
    async with running(WatchedStore(), debug=True) as engine:
        await ok(engine, r.DebugStart(), Nothing)
        later = engine.runtime.now_ms() + 3_600_000
        await engine.submit(create("j", queue="q", delay=str(later)))
        claim = waiting_claim("q", wait=0)
        assert claimed(await engine.submit(claim, r.RequestHead(debug_time=later - 1))) == []
        assert claimed(await engine.submit(claim, r.RequestHead(debug_time=later))) == ["j"]


async def test_a_reset_forgets_everything() -> None:
    """After a reset nothing is there, ids can be used again, and what was armed does not fire."""
    store = WatchedStore()
    async with running(store, debug=True) as engine:
        await engine.submit(create("p", external="true", timeout_at=2**52))
        await ok(engine, r.TaskCreate("w", 9, r.CreateAction(create("t", queue="q"))), AcquiredTask)
        await ok(engine, r.DebugReset(), Nothing)
        snapshot = await ok(engine, r.DebugSnap(), Snapshot)
        assert (snapshot.promises, snapshot.tasks, snapshot.messages) == ([], [], [])
        assert (await ok(engine, waiting_claim("q", wait=0), ClaimResult)).tasks == []
        await ok(engine, create("p"), PromiseResult)
        await turns()


async def test_a_snapshot_is_projected_and_sorted() -> None:
    """snap shows what everybody would see at its instant: late promises settled, their tasks
    fulfilled, nothing of them armed, ids ascending."""
    async with running(WatchedStore(), debug=True) as engine:
        await ok(engine, r.DebugStart(), Nothing)
        for id, deadline in (("b", T + 10), ("a", T + 20), ("c", T + 30)):
            await engine.submit(
                create(id, target=PUSHED, timeout_at=deadline), r.RequestHead(debug_time=T)
            )
        snapshot = await ok(engine, r.DebugSnap(), Snapshot, debug_time=T + 20)
        assert [(p.id, p.state.value) for p in snapshot.promises] == [
            ("a", "rejected_timedout"),
            ("b", "rejected_timedout"),
            ("c", "pending"),
        ]
        assert [(t.id, t.state.value) for t in snapshot.tasks] == [
            ("a", "fulfilled"),
            ("b", "fulfilled"),
            ("c", "pending"),
        ]
        assert [(t.id, t.timeout) for t in snapshot.promise_timeouts] == [("c", T + 30)]
        assert [(t.id, t.type, t.timeout) for t in snapshot.task_timeouts] == [("c", 0, T)]
