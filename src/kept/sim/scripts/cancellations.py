"""Scripts about canceled work: what a cancellation reaches, and how its code hears of it (B3)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Final

from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.entries import CancelMode
from kept.protocol.limits import CANCEL_GRACE_MS
from kept.protocol.records import PromiseRecord, PromiseState, TaskState, Value
from kept.protocol.responses import (
    CancelResult,
    FenceResult,
    HeartbeatResult,
    PreloadResult,
    PromiseResult,
)
from kept.sim.breakage import Broken
from kept.sim.scripts.leases import suspend
from kept.sim.scripts.script import Script

_CANCELED: Final = PromiseState.REJECTED_CANCELED
_WHY: Final = "nobody wants it"
_AGAIN_SECONDS: Final = 0.3
_PATIENCE_SECONDS: Final = 600.0
_LATE_MS: Final = 1_000


def _within_the_grace(
    play: Callable[[Script], Awaitable[None]],
) -> Callable[[Script], Awaitable[None]]:
    """A script in which the work is stopped after its grace, where a world is that slow: from then
    on nothing is as it says."""

    @wraps(play)
    async def played(s: Script) -> None:
        try:
            await play(s)
        except Broken:
            root = await s.promise(s.id("root"))
            if (root.settled_at or 0) - root.created_at < CANCEL_GRACE_MS:
                raise

    return played


@_within_the_grace
async def tree(s: Script) -> None:
    """Asked or forced, it reaches all that the work called, and neither what was detached, nor work
    of its own, nor, before the end, clean-up and timers; without `recursive` nobody else."""
    mode = s.random.choice((CancelMode.REQUEST, CancelMode.REQUEST, CancelMode.FORCE))
    recursive = s.random.random() < 0.8
    root = await _begun(s, "root")
    called = [await _child(s, root, f"called{number}") for number in range(s.random.randint(1, 3))]
    below = await _below(s, root, called[0])
    spared = [
        await _child(s, root, "detached", {tag.DETACHED: "true"}),
        await _child(s, root, "another", {tag.ORIGIN: s.id("another")}),
    ]
    # A detached tree goes on with all that it called itself.
    spared.append(await _below(s, root, spared[0]))
    late = [
        await _child(s, root, "clean-up", {tag.COMPENSATION: "true"}),
        await _child(s, root, "timer", {tag.TIMER: "true"}),
    ]
    await _cancel(s, root, mode, recursive=recursive)
    forced = mode is CancelMode.FORCE
    reached = [*called, below, *(late if forced else [])] if recursive else []
    for id in reached:
        await _is_canceled(s, id)
    await _ended_spreading(s, root)
    for id in (*called, below, *late, *spared):
        if id not in reached:
            s.same(f"{id}, which is not reached", (await s.promise(id)).state, PromiseState.PENDING)
    if forced:
        await _is_canceled(s, root)
        await s.ask(_ended_as_canceled(root, 1), 409)
    else:
        await s.ask(_ended_as_canceled(root, 1))
        await _is_canceled(s, root)
    for id in spared:
        settled = await s.data(r.PromiseSettle(id, PromiseState.RESOLVED), PromiseResult)
        s.same(f"{id}, which is not reached", settled.promise.state, PromiseState.RESOLVED)


@_within_the_grace
async def heard(s: Script) -> None:
    """Work that runs hears of it with its heartbeat, and may still clean up; the second time nothing
    is new; what has not begun ends at once."""
    root, waiting = await _begun(s, "root"), s.job("waiting")
    await _beat(s, root, 1, [])
    first = await _cancel(s, root, CancelMode.REQUEST)
    s.same("still there", first.promise.state, PromiseState.PENDING)
    await _beat(s, root, 1, [root])
    again = await _cancel(s, root, CancelMode.REQUEST)
    asked = first.cancel and again.cancel and again.cancel.requested_at == first.cancel.requested_at
    s.same("asked once", asked, True)
    clean_up = await _child(s, root, "clean-up", {tag.COMPENSATION: "true"})
    await s.ask(r.PromiseSettle(clean_up, PromiseState.RESOLVED))
    await s.ask(waiting)
    await _cancel(s, waiting.id, CancelMode.REQUEST)
    await _is_canceled(s, waiting.id)
    await s.nothing_to_claim()
    if s.random.random() < 0.5:
        # Code that has done its work all the same is right, too.
        resolved = r.SettleAction(r.PromiseSettle(root, PromiseState.RESOLVED))
        await s.ask(r.TaskFulfill(root, 1, resolved))
        s.same("its own end", (await s.promise(root)).state, PromiseState.RESOLVED)
    else:
        await s.ask(_ended_as_canceled(root, 1))
        await _is_canceled(s, root)


@_within_the_grace
async def asleep(s: Script) -> None:
    """Suspended work is woken to hear of it, once; one that suspends while it is asked is woken at
    once; then it may wait for its clean-up."""
    root = await _begun(s, "root")
    detached = await _child(s, root, "detached", {tag.DETACHED: "true"})
    before = s.random.random() < 0.5
    if before:
        await s.ask(suspend(root, 1, detached))
    await _cancel(s, root, CancelMode.REQUEST)
    if not before:
        await s.twice(suspend(root, 1, detached))
    await s.task_is(root, state=TaskState.PENDING, version=1)
    told = (await s.claimed(root)).cancel_requested_at
    s.same("told", told is not None, True)
    clean_up = await _child(s, root, "clean-up", {tag.COMPENSATION: "true"}, version=2)
    await s.ask(suspend(root, 2, clean_up))
    await s.task_is(root, state=TaskState.SUSPENDED, version=2)
    await s.ask(r.PromiseSettle(clean_up, PromiseState.RESOLVED))
    s.same("told again", (await s.claimed(root)).cancel_requested_at, told)
    await s.data(suspend(root, 3, clean_up, detached), PreloadResult, 300)
    await s.ask(_ended_as_canceled(root, 3))
    await _is_canceled(s, root)
    s.same("detached", (await s.promise(detached)).state, PromiseState.PENDING)


async def grace(s: Script) -> None:
    """Work that does not stop is stopped when its grace is over, with its clean-up, not before."""
    root = await _begun(s, "root")
    clean_up = await _child(s, root, "clean-up", {tag.COMPENSATION: "true"})
    record = (await _cancel(s, root, CancelMode.REQUEST)).cancel
    if record is None:
        s.fail(f"{root} is pending, and nothing is to be done")
    s.same("ends", record.ends_at, record.requested_at + CANCEL_GRACE_MS)
    ended = (await s.settled(root)).promise
    s.same("state", ended.state, _CANCELED)
    late = (ended.settled_at or 0) - (record.ends_at or 0)
    if late < 0 or (s.prompt and late > _LATE_MS):
        s.fail(f"{root} was stopped {late} ms after its grace")
    await s.ask(_ended_as_canceled(root, 1), 409)
    await _is_canceled(s, clean_up)


# -- what they are made of


async def _begun(s: Script, name: str) -> str:
    """A job that somebody works on, at version 1."""
    create = s.job(name)
    await s.ask(create)
    await s.claimed(create.id)
    return create.id


async def _child(
    s: Script, parent: str, name: str, tags: dict[str, str] | None = None, version: int = 1
) -> str:
    """A promise that the holder of the root asks for, external unless its tags say otherwise."""
    root = s.id("root")
    lineage = {tag.EXTERNAL: "true", tag.ORIGIN: root, tag.PARENT: parent, **(tags or {})}
    create = r.PromiseCreate(s.id(name), s.deadline(), tags=lineage)
    await s.data(r.TaskFence(root, version, r.CreateAction(create)), FenceResult)
    return create.id


async def _below(s: Script, root: str, parent: str) -> str:
    """What a child calls in its turn, as a job that nobody claims."""
    target = {tag.TARGET: f"queue://{s.queue}-below"}
    return await _child(s, parent, f"below-{parent}", target)


async def _cancel(s: Script, id: str, mode: CancelMode, *, recursive: bool = True) -> CancelResult:
    return await s.data(r.PromiseCancel(id, _WHY, mode, recursive), CancelResult)


async def _ended_spreading(s: Script, id: str) -> None:
    """Returns when all is reached that is to be."""
    until = s.runtime.monotonic() + _PATIENCE_SECONDS
    while s.runtime.monotonic() < until:
        # Asking again for the least of it changes nothing, and tells how far it is.
        record = (await _cancel(s, id, CancelMode.REQUEST, recursive=False)).cancel
        if record is None or not record.spreading:
            return
        await s.runtime.sleep(_AGAIN_SECONDS)
    s.fail(f"the cancellation of {id} spreads on and on")


async def _is_canceled(s: Script, id: str) -> None:
    """Settled, now or soon, with the reason."""
    ended: PromiseRecord = (await s.settled(id)).promise
    why = (ended.value.headers or {}).get(tag.CANCEL_REASON_HEADER)
    s.same(f"{id}", (ended.state, why), (_CANCELED, _WHY))


def _ended_as_canceled(id: str, version: int) -> r.TaskFulfill:
    return r.TaskFulfill(id, version, r.SettleAction(r.PromiseSettle(id, _CANCELED, Value())))


async def _beat(s: Script, id: str, version: int, asked: list[str]) -> None:
    beat = r.TaskHeartbeat(s.pid, [r.TaskRef(id, version)], report=True)
    answer = await s.data(beat, HeartbeatResult)
    s.same("told", (answer.lost or [], answer.cancel or []), ([], asked))
