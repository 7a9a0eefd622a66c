"""Scripts about tasks and what is done under their leases."""

from __future__ import annotations

from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.records import PromiseState, TaskState, Value
from kept.protocol.responses import (
    AcquiredTask,
    FenceResult,
    HeartbeatResult,
    PreloadResult,
    PromiseResult,
)
from kept.sim.scripts.script import LEASE_MS, Script

_RESOLVED = PromiseState.RESOLVED


def suspend(id: str, version: int, *awaited: str, released: list[str] | None = None) -> r.Request:
    """A suspend on promises."""
    actions = [r.CallbackAction(r.PromiseRegisterCallback(each, id)) for each in awaited]
    return r.TaskSuspend(id, version, actions, released or [])


def record(s: Script, id: str, version: int, name: str, released: list[str]) -> r.TaskRecordStep:
    """A finished step, as a child of the task."""
    tags = {tag.PARENT: id, tag.ORIGIN: id, tag.BRANCH: id}
    create = r.PromiseCreate(f"{id}.{name}", s.deadline(), Value(data=name), tags)
    return r.TaskRecordStep(id, version, create, _RESOLVED, Value(data=f"of {name}"), released)


async def life(s: Script) -> None:
    """Created, acquired, steps recorded, suspended, woken, fulfilled."""
    create = s.job("root")
    id = create.id
    born = (await s.data(create, PromiseResult)).promise
    s.same("param", born.param, create.param)
    s.same("tags", born.tags, create.tags)
    s.same("read", await s.promise(id), born)
    await s.task_is(id, state=TaskState.PENDING, version=0, resumes=0, pid=None)
    acquire = r.TaskAcquire(id, 0, s.pid, LEASE_MS)
    got = (await s.twice(acquire)).data
    assert isinstance(got, AcquiredTask)
    s.same("version, attempt, preload", (got.task.version, got.attempt, got.preload), (1, 1, []))
    await s.task_is(id, state=TaskState.ACQUIRED, version=1, pid=s.pid, ttl=LEASE_MS)
    await s.ask(acquire, 409)
    await s.ask(r.TaskAcquire(id, 1, s.pid, LEASE_MS), 409)
    await s.nothing_to_claim()
    for name in ("2", "1"):
        result = (await s.twice(record(s, id, 1, name, []))).data
        assert isinstance(result, PromiseResult)
        s.same("recorded", result.promise.value, Value(data=f"of {name}"))
    other = record(s, id, 1, "2", [])
    other.state, other.value = PromiseState.REJECTED, Value(data="other")
    found = (await s.data(other, PromiseResult)).promise
    s.same("recorded", (found.state, found.value), (_RESOLVED, Value(data="of 2")))
    wait = s.external("wait")
    await s.ask(wait)
    await s.ask(suspend(id, 2, wait.id), 409)
    await s.twice(suspend(id, 1, wait.id, released=[f"{id}.2", f"{id}.1"]))
    await s.task_is(id, state=TaskState.SUSPENDED, version=1, resumes=0, pid=None)
    await s.nothing_to_claim()
    await s.ask(r.TaskRelease(id, 1), 409)
    await s.ask(r.PromiseSettle(wait.id, _RESOLVED, Value(data="it")))
    await s.task_is(id, state=TaskState.PENDING, version=1, resumes=1)
    again = await s.claimed(id)
    s.same("version", (again.task.version, again.attempt), (2, 1))
    s.same("released", again.released, [f"{id}.2", f"{id}.1"])
    s.same("preload", [p.id for p in again.preload], [f"{id}.2", f"{id}.1"])
    await s.ask(record(s, id, 1, "3", []), 409)
    resumed = (await s.twice(suspend(id, 2, wait.id), 300)).data
    assert isinstance(resumed, PreloadResult)
    s.same("preload", [p.id for p in resumed.preload], [f"{id}.2", f"{id}.1"])
    await s.twice(r.TaskRelease(id, 2))
    await s.task_is(id, state=TaskState.PENDING, version=2, pid=None)
    last = await s.claimed(id, preload=1)
    s.same("attempt", (last.attempt, len(last.preload), last.more is None), (1, 1, False))
    end = r.SettleAction(r.PromiseSettle(id, PromiseState.REJECTED, Value(data="no")))
    await s.ask(r.TaskFulfill(id, 2, end), 409)
    ended = (await s.twice(r.TaskFulfill(id, 3, end))).data
    s.same("read", PromiseResult(await s.promise(id)), ended)
    await s.task_is(id, state=TaskState.FULFILLED, version=3, resumes=0, pid=None, ttl=None)
    await s.ask(r.TaskHalt(id), 409)
    await s.ask(r.TaskContinue(id), 409)


async def fences(s: Script) -> None:
    """Others are created and settled only while the lease holds."""
    create = s.job("fenced")
    id = create.id
    await s.ask(create)
    await s.claimed(id)
    child = s.external("child")
    lineage = {tag.EXTERNAL: "true", tag.PARENT: id}
    made = r.CreateAction(r.PromiseCreate(child.id, child.timeout_at, Value(data="1"), lineage))
    done = r.SettleAction(r.PromiseSettle(child.id, _RESOLVED, Value(data="2")))
    await s.ask(r.TaskFence(id, 2, made), 409)
    await s.ask(r.PromiseGet(child.id), 404)
    for action, state in ((made, PromiseState.PENDING), (done, _RESOLVED), (done, _RESOLVED)):
        result = await s.data(r.TaskFence(id, 1, action), FenceResult)
        inner = result.action
        assert isinstance(inner.data, PromiseResult), inner
        s.same("inner", (inner.head.status, inner.data.promise.state), (200, state))
    missing = r.SettleAction(r.PromiseSettle(s.id("nobody"), _RESOLVED))
    result = await s.data(r.TaskFence(id, 1, missing), FenceResult)
    s.same("inner status", result.action.head.status, 404)
    bad = r.SettleAction(r.PromiseSettle(child.id, PromiseState.PENDING))
    result = await s.data(r.TaskFence(id, 1, bad), FenceResult)
    s.same("inner status", result.action.head.status, 400)
    await s.ask(r.TaskFence(id, 1, r.SettleAction(r.PromiseSettle(id, _RESOLVED))), 400)
    await s.ask(r.TaskRelease(id, 1))
    await s.ask(r.TaskFence(id, 1, made), 409)
    again = await s.claimed(id)
    s.same("preload", [p.id for p in again.preload], [child.id])


async def parked(s: Script) -> None:
    """Halted and let go on, with wake-ups meanwhile, and awaited twice over."""
    create, one, two = s.job("parked"), s.external("one"), s.external("two")
    id = create.id
    for each in (create, one, two):
        await s.ask(each)
    await s.ask(r.TaskContinue(id), 409)
    await s.claimed(id)
    await s.ask(r.TaskHalt(id))
    await s.ask(r.TaskHalt(id))
    await s.task_is(id, state=TaskState.HALTED, version=1, pid=None)
    await s.ask(r.TaskRelease(id, 1), 409)
    await s.nothing_to_claim()
    await s.ask(r.TaskContinue(id))
    await s.task_is(id, state=TaskState.PENDING)
    await s.claimed(id)
    await s.ask(suspend(id, 2, one.id, two.id))
    await s.ask(r.TaskHalt(id))
    await s.ask(r.PromiseSettle(one.id, _RESOLVED))
    await s.task_is(id, state=TaskState.HALTED, resumes=1)
    await s.ask(r.TaskContinue(id))
    await s.ask(r.PromiseSettle(two.id, PromiseState.REJECTED_CANCELED))
    await s.task_is(id, state=TaskState.PENDING, resumes=2)
    got = await s.claimed(id)
    s.same("resumes", (got.task.resumes, got.task.version), (0, 3))
    await s.ask(r.PromiseSettle(id, PromiseState.REJECTED_CANCELED))
    await s.task_is(id, state=TaskState.FULFILLED)
    end = r.SettleAction(r.PromiseSettle(id, _RESOLVED))
    await s.ask(r.TaskFulfill(id, 3, end), 409)
    s.same("state", (await s.promise(id)).state, PromiseState.REJECTED_CANCELED)


async def beats(s: Script) -> None:
    """A heartbeat says which leases are lost, and why."""
    names = ("kept", "moved", "halted", "over", "given")
    ids = {name: s.id(name) for name in names}
    for name in names:
        await s.ask(s.job(name))
        await s.ask(r.TaskAcquire(ids[name], 0, s.pid, LEASE_MS))
    await s.ask(r.TaskRelease(ids["moved"], 1))
    await s.ask(r.TaskAcquire(ids["moved"], 1, s.pid, LEASE_MS))
    await s.ask(r.TaskHalt(ids["halted"]))
    await s.ask(r.PromiseSettle(ids["over"], _RESOLVED))
    await s.ask(r.TaskRelease(ids["given"], 1))
    refs = [r.TaskRef(ids[name], 1) for name in names] + [r.TaskRef(s.id("nobody"), 1)]
    report = await s.data(r.TaskHeartbeat(s.pid, refs, report=True), HeartbeatResult)
    found = {lost.id: lost.reason for lost in report.lost or ()}
    expected = {
        ids["moved"]: "superseded",
        ids["halted"]: "halted",
        ids["over"]: "settled",
        ids["given"]: "expired",
        s.id("nobody"): "unknown",
    }
    s.same("lost", found, expected)
    other = r.TaskHeartbeat("somebody else", [r.TaskRef(ids["kept"], 1)], report=True)
    lost = (await s.data(other, HeartbeatResult)).lost or []
    s.same("of another", [each.reason for each in lost], ["superseded"])
    await s.task_is(ids["kept"], state=TaskState.ACQUIRED, version=1, pid=s.pid)


async def created(s: Script) -> None:
    """task.create, on what is new and on what is there."""
    new, plain, later = s.job("new"), s.external("plain"), s.job("later")

    def create(action: r.PromiseCreate) -> r.TaskCreate:
        return r.TaskCreate(s.pid, LEASE_MS, r.CreateAction(action))

    await s.ask(create(plain), 400)
    await s.ask(plain)
    without = r.PromiseCreate(plain.id, plain.timeout_at, tags=new.tags)
    await s.ask(create(without), 422)
    got = await s.data(create(new), AcquiredTask)
    s.same("version", (got.task.version, got.task.state), (1, TaskState.ACQUIRED))
    s.same("promise", got.promise.state, PromiseState.PENDING)
    await s.ask(create(new), 409)
    await s.ask(later)
    got = await s.data(create(later), AcquiredTask)
    s.same("version", (got.task.version, got.task.state), (1, TaskState.ACQUIRED))
    await s.ask(r.PromiseSettle(later.id, _RESOLVED))
    got = await s.data(create(later), AcquiredTask)
    s.same("task", (got.task.version, got.task.state), (1, TaskState.FULFILLED))
    dead = r.PromiseCreate(s.id("dead"), 1, tags=new.tags)
    got = await s.data(create(dead), AcquiredTask)
    s.same("born dead", (got.task.version, got.task.state), (0, TaskState.FULFILLED))
    s.same("created", (got.promise.created_at, got.promise.settled_at), (1, 1))
    s.same("state", got.promise.state, PromiseState.REJECTED_TIMEDOUT)
