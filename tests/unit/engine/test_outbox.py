"""Messages leave the outbox when they were delivered, and not before (protocol A6)."""

from __future__ import annotations

import asyncio
import json

import pytest

from kept.engine import outbox
from kept.engine.outbox import FIRST_BACKOFF_MS, MAX_BACKOFF_MS, backoff_ms
from kept.protocol import requests as r
from kept.protocol.records import MessageKind, OutboxEntry, PromiseState
from kept.protocol.responses import AcquiredTask
from kept.protocol.storage import DEFAULT_TENANT
from tests.unit.engine.rig import (
    ScriptedTransport,
    ShiftedRuntime,
    WatchedStore,
    eventually,
    ok,
    running,
    turns,
)
from tests.unit.machine.world import LISTENER, PUSHED, create

HTTP = "http"


def _outbox(store: WatchedStore) -> list[OutboxEntry]:
    return list(store.tables[DEFAULT_TENANT].outbox.values())


def _executes(transport: ScriptedTransport) -> list[tuple[str, int]]:
    """Task ids and versions of the execute messages that were delivered."""
    messages = [json.loads(message) for _, message in transport.delivered]
    tasks = [m["data"]["task"] for m in messages if m["kind"] == "execute"]
    return [(task["id"], task["version"]) for task in tasks]


async def test_a_delivered_message_leaves_the_outbox() -> None:
    """The execute of a new task is sent at once with its version, and is gone after the success."""
    store, transport = WatchedStore(), ScriptedTransport(HTTP)
    async with running(store, transports=[transport], server_url="http://me") as engine:
        await engine.submit(create("t", target=PUSHED))
        await eventually(lambda: not _outbox(store) and bool(transport.delivered))
        address, message = transport.delivered[0]
        assert address == PUSHED
        assert json.loads(message) == {
            "kind": "execute",
            "head": {"serverUrl": "http://me"},
            "data": {"task": {"id": "t", "version": 0}},
        }
    assert transport.closed


async def test_a_listener_gets_the_settled_record() -> None:
    """An unblock carries the promise as it was settled."""
    store, transport = WatchedStore(), ScriptedTransport(HTTP)
    async with running(store, transports=[transport]) as engine:
        await engine.submit(create("p", external="true"))
        await engine.submit(r.PromiseRegisterListener("p", LISTENER))
        await engine.submit(r.PromiseSettle("p", PromiseState.REJECTED))
        await eventually(lambda: bool(transport.delivered))
        message = json.loads(transport.delivered[0][1])
        assert message["kind"] == "unblock"
        assert message["data"]["promise"]["state"] == "rejected"
        await eventually(lambda: not _outbox(store))


async def test_a_refused_message_is_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure leaves the message with its tries counted and a later instant, then it is sent
    again without a scan."""
    monkeypatch.setattr(outbox, "FIRST_BACKOFF_MS", 20)
    store, transport = WatchedStore(), ScriptedTransport(HTTP)
    transport.refusals = 3
    async with running(store, transports=[transport], repair_ms=60_000) as engine:
        await engine.submit(create("t", target=PUSHED))
        await eventually(lambda: bool(_outbox(store)) and _outbox(store)[0].tries == 1)
        await eventually(lambda: bool(transport.delivered))
        assert len(transport.asked) == 4
        assert engine.statistics.messages_failed == 3
        await eventually(lambda: not _outbox(store))


def test_the_backoff_doubles_up_to_its_limit() -> None:
    """Tries come later and later, but never later than the limit."""
    waits = [backoff_ms(tries) for tries in range(1, 40)]
    assert waits[:3] == [FIRST_BACKOFF_MS, 2 * FIRST_BACKOFF_MS, 4 * FIRST_BACKOFF_MS]
    assert waits[-1] == MAX_BACKOFF_MS == max(waits)
    assert waits == sorted(waits)


async def test_messages_to_an_unconnected_group_stay_untouched() -> None:
    """Nobody of the group is connected: no try is made and none is counted; when somebody connects
    the message goes out at once."""
    store, transport = WatchedStore(), ScriptedTransport("poll:elsewhere")
    async with running(store, transports=[transport], repair_ms=60_000) as engine:
        await engine.submit(create("t", target="poll://any@group"))
        await turns(200)
        assert [(entry.tries, entry.version) for entry in _outbox(store)] == [(0, 0)]
        assert transport.asked == []
        transport.open.append("poll:group")
        engine.receiver_connected()
        await eventually(lambda: bool(transport.delivered))
        await eventually(lambda: not _outbox(store))


async def test_a_newer_version_replaces_an_older_one() -> None:
    """One execute per task: what waits in the outbox names the latest version, and only that is
    sent."""
    store, transport = WatchedStore(), ScriptedTransport()
    async with running(store, transports=[transport], repair_ms=60_000) as engine:
        await engine.submit(create("t", target="poll://any@group"))
        await ok(engine, r.TaskAcquire("t", 0, "w", 60_000), AcquiredTask)
        await engine.submit(r.TaskRelease("t", 1))
        assert [entry.version for entry in _outbox(store)] == [1]
        transport.open.append("poll:group")
        engine.receiver_connected()
        await eventually(lambda: bool(transport.delivered))
        assert _executes(transport) == [("t", 1)]


async def test_an_execute_that_nobody_needs_is_dropped() -> None:
    """A task that was acquired meanwhile is not offered again; the message goes without a try."""
    store, transport = WatchedStore(), ScriptedTransport()
    async with running(store, transports=[transport], repair_ms=60_000) as engine:
        await engine.submit(create("t", target="poll://any@group"))
        await ok(engine, r.TaskAcquire("t", 0, "w", 60_000), AcquiredTask)
        transport.open.append("poll:group")
        engine.receiver_connected()
        await eventually(lambda: not _outbox(store))
        assert transport.asked == []


async def test_a_newer_message_survives_the_delivery_of_an_older_one() -> None:
    """While version 0 is on its way the task comes to version 1: that message is sent too."""
    store = WatchedStore()
    arrived, released = asyncio.Event(), asyncio.Event()

    class Slow(ScriptedTransport):
        async def deliver(
            self, address: str, message: bytes, tenant: str, kind: MessageKind
        ) -> None:
            arrived.set()
            await released.wait()
            await super().deliver(address, message, tenant, kind)

    transport = Slow(HTTP)
    async with running(store, transports=[transport], repair_ms=60_000) as engine:
        await engine.submit(create("t", target=PUSHED))
        await arrived.wait()
        await ok(engine, r.TaskAcquire("t", 0, "w", 60_000), AcquiredTask)
        await engine.submit(r.TaskRelease("t", 1))
        released.set()
        await eventually(lambda: _executes(transport) == [("t", 0), ("t", 1)])
        await eventually(lambda: not _outbox(store))


async def test_more_messages_than_may_be_in_flight_go_out_without_a_scan(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the bound of deliveries, each one that ends makes room for the next at once."""
    monkeypatch.setattr(outbox, "MAX_MESSAGES_IN_FLIGHT", 4)
    store, transport = WatchedStore(), ScriptedTransport(HTTP)
    async with running(store, transports=[transport], repair_ms=60_000) as engine:
        batch = [(create(f"t{n}", target=PUSHED), r.RequestHead()) for n in range(50)]
        await engine.submit_batch(batch)
        await eventually(lambda: len(_executes(transport)) == 50)
        await eventually(lambda: not _outbox(store))


async def test_messages_go_out_though_the_wall_clock_was_set_back() -> None:
    """Messages are due by the clock of the commits, which a step back of the wall's does not move."""
    store, transport, runtime = WatchedStore(), ScriptedTransport(HTTP), ShiftedRuntime()
    async with running(store, transports=[transport], runtime=runtime, repair_ms=60_000) as engine:
        await engine.submit(create("before"))
        runtime.shift_ms = -3_600_000
        await engine.submit(create("t", target=PUSHED))
        await eventually(lambda: bool(transport.delivered), within=2)


async def test_the_next_try_waits_for_a_clock_that_was_set_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Until the wall's clock has caught up with a message's instant, nobody looks again and again."""
    monkeypatch.setattr(outbox, "FIRST_BACKOFF_MS", 30)
    runtime = ShiftedRuntime()
    store, transport = WatchedStore(runtime), ScriptedTransport(HTTP)
    transport.refusals = 1
    async with running(store, transports=[transport], runtime=runtime, repair_ms=60_000) as engine:
        await engine.submit(create("t", target=PUSHED))
        await eventually(lambda: bool(_outbox(store)) and _outbox(store)[0].tries == 1)
        await eventually(lambda: engine.statistics.messages_failed == 1)
        runtime.shift_ms = -300
        await eventually(lambda: bool(transport.delivered))
        assert store.message_looks <= 10


async def test_a_task_that_nobody_acquires_is_offered_again() -> None:
    """A delivered execute is repeated after the retry timeout while the task stays pending."""
    store, transport = WatchedStore(), ScriptedTransport(HTTP)
    async with running(
        store, transports=[transport], repair_ms=60_000, retry_timeout_ms=30
    ) as engine:
        await engine.submit(create("t", target=PUSHED))
        await eventually(lambda: len(transport.delivered) >= 3)
        assert set(_executes(transport)) == {("t", 0)}


async def test_a_timer_with_a_target_is_never_sent() -> None:
    """Sleeps arrive as timers with a target: they are armed and never dispatched (A7.2)."""
    store, transport = WatchedStore(), ScriptedTransport(HTTP)
    async with running(store, transports=[transport], repair_ms=60_000) as engine:
        deadline = engine.runtime.now_ms() + 40
        await engine.submit(create("s", target=PUSHED, timer="true", timeout_at=deadline))
        promises = store.tables[DEFAULT_TENANT].promises
        await eventually(lambda: promises["s"].state is PromiseState.RESOLVED)
        assert not _outbox(store)
        assert transport.asked == []
