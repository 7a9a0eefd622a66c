"""A script about settled work that leaves (B6)."""

from __future__ import annotations

from typing import Final

from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.limits import HELD_LOOK_MS, MIN_RETENTION_MS, NEVER_MS
from kept.protocol.records import PromiseState, TaskState, Value
from kept.protocol.responses import AcquiredTask, FenceResult
from kept.sim.scripts.script import LEASE_MS, Script

_NOT_FOUND: Final = 404
_LOOK_SECONDS: Final = 0.7
# After faults there is nobody for a while, and each thing that keeps a tree delays it by a look.
_PATIENCE_SECONDS: Final = 600.0


async def leaving(s: Script) -> None:
    """A tree stays while a promise of it is pending or a dead letter names it, then leaves as one;
    its id is free then, or known for ever where ids are kept."""
    retention = s.random.choice((MIN_RETENTION_MS, 3_000))
    await s.ask(r.QueuePut(s.queue, retention=retention))
    root = s.job("root", attempts="1")
    child = await _run(s, root)
    await _stays(s, root.id, retention)
    await s.ask(r.PromiseSettle(child, PromiseState.RESOLVED))
    await _gone(s, root.id)
    await s.ask(r.PromiseGet(child), _NOT_FOUND)
    await s.ask(r.PromiseGet(f"{root.id}.1"), _NOT_FOUND)
    # Its id is free again: another run, at its first version.
    before = s.runtime.now_ms()
    again = await s.promise_of(root)
    s.same("created anew", again.state, PromiseState.PENDING)
    if s.exact and again.created_at < before:
        s.fail(f"{root.id} was created at {again.created_at}, before {before}")
    lease = (await s.claimed(root.id)).task
    s.same("version", lease.version, 1)
    await s.ask(r.TaskNack(root.id, 1, error=Value(data="no")))
    await _stays(s, root.id, retention)
    await s.ask(r.DeadPurge([root.id]))
    await _gone(s, root.id)
    await _kept(s)


async def _run(s: Script, root: r.PromiseCreate) -> str:
    """The root runs, records a step, asks for a child and ends; the child is left pending."""
    await s.ask(root)
    await s.claimed(root.id)
    lineage = {tag.ORIGIN: root.id, tag.PARENT: root.id}
    step = r.PromiseCreate(f"{root.id}.1", NEVER_MS, tags=lineage)
    await s.ask(r.TaskRecordStep(root.id, 1, step, PromiseState.RESOLVED, Value(data="step")))
    child = r.PromiseCreate(f"{root.id}.2", s.deadline(), tags={**lineage, tag.EXTERNAL: "true"})
    await s.data(r.TaskFence(root.id, 1, r.CreateAction(child)), FenceResult)
    settle = r.SettleAction(r.PromiseSettle(root.id, PromiseState.RESOLVED))
    await s.ask(r.TaskFulfill(root.id, 1, settle))
    return child.id


async def _stays(s: Script, id: str, retention: int) -> None:
    """For longer than its retention it is there."""
    await s.runtime.sleep(retention * s.random.choice((1.5, 4)) / 1_000)
    await s.task_is(id, state=TaskState.FULFILLED)


async def _gone(s: Script, id: str) -> None:
    """It leaves, at the latest with the look after what kept it is gone."""
    until = s.runtime.monotonic() + _PATIENCE_SECONDS + HELD_LOOK_MS / 1_000
    while s.runtime.monotonic() < until:
        if not await s.is_there(id):
            return
        await s.runtime.sleep(_LOOK_SECONDS)
    s.fail(f"{id} does not leave")


async def _kept(s: Script) -> None:
    """Where ids are kept, a create of what has left is answered with its verdict."""
    await s.ask(r.QueuePut(s.queue, keep_ids=True))
    event = s.job("event")
    await s.ask(event)
    await s.claimed(event.id)
    settle = r.SettleAction(r.PromiseSettle(event.id, PromiseState.REJECTED, Value(data="why")))
    await s.ask(r.TaskFulfill(event.id, 1, settle))
    settled = await s.promise_of(event)
    await _gone(s, event.id)
    known = await s.promise_of(event)
    s.same("verdict", (known.state, known.settled_at), (settled.state, settled.settled_at))
    s.same("value", list(known.value.headers or {}), [tag.LEFT_HEADER])
    lease = await s.data(r.TaskCreate(s.pid, LEASE_MS, r.CreateAction(event)), AcquiredTask)
    s.same("no lease", lease.task.state, TaskState.FULFILLED)
    await s.nothing_to_claim()
