"""Scripts about lanes and limits: whose turn it is, how many may run, and what a full queue takes."""

from __future__ import annotations

from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.entries import LaneLimits, RateLimit
from kept.protocol.records import PromiseState
from kept.protocol.responses import ClaimResult
from kept.sim.scripts.script import LEASE_MS, Script

# Longer than any script takes, so that no new period begins but by chance.
_PERIOD_MS = 86_400_000
_WEIGHT = 2


async def _claimed_lanes(s: Script, limit: int) -> list[str]:
    """The lanes of what one claim took. What is answered again has no order."""
    result = await s.data(s.claim(limit), ClaimResult)
    return sorted(each.promise.tags[tag.LANE] for each in result.tasks)


async def turns(s: Script) -> None:
    """Lanes take turns, as many tasks at each as they weigh."""
    await s.ask(r.QueuePut(s.queue, lanes={"a": LaneLimits(weight=_WEIGHT)}))
    for number in range(4):
        for lane in "ab":
            await s.ask(s.job(f"{lane}{number}", lane=lane))
    taken = [lane for _ in range(8) for lane in await _claimed_lanes(s, 1)]
    order = "".join(taken)
    # Where the first turn begins is the engine's to say; in the end one lane has nothing left.
    if order not in ("aabaabbb", "baabaabb", "abaababb"):
        s.fail(f"lanes took turns as {order}, where a weighs {_WEIGHT}")


async def limits(s: Script) -> None:
    """A lane runs as many as it may, whoever takes them; others are not kept from theirs."""
    await s.ask(r.QueuePut(s.queue, lane=LaneLimits(concurrency=1)))
    for name in ("a1", "a2", "b1"):
        await s.ask(s.job(name, lane=name[0]))
    s.same("one of each", await _claimed_lanes(s, 5), ["a", "b"])
    left = s.id("a2")
    await s.ask(r.TaskAcquire(left, 0, s.pid, LEASE_MS), 429)
    settle = r.SettleAction(r.PromiseSettle(s.id("a1"), PromiseState.RESOLVED))
    await s.ask(r.TaskFulfill(s.id("a1"), 1, settle))
    await s.claimed(left)


async def rates(s: Script) -> None:
    """No more starts in a period than its rate says, in whatever way they start."""
    before = s.runtime.now_ms() // _PERIOD_MS
    await s.ask(r.QueuePut(s.queue, rate=RateLimit(2, _PERIOD_MS)))
    create = s.job("held")
    await s.ask(r.TaskCreate(s.pid, LEASE_MS, r.CreateAction(create)))
    for name in ("one", "two"):
        await s.ask(s.job(name))
    result = await s.data(s.claim(5), ClaimResult)
    left = await s.data(s.claim(5), ClaimResult)
    if s.exact and s.runtime.now_ms() // _PERIOD_MS == before:
        s.same("of a rate of 2", (len(result.tasks), len(left.tasks)), (1, 0))


async def depth(s: Script) -> None:
    """A full queue takes no new work, but what belongs to work that is under way; room is taken
    again as soon as there is some."""
    await s.ask(r.QueuePut(s.queue, max_depth=1))
    first, second, child = s.job("first"), s.job("second"), s.job("child")
    await s.ask(first)
    await s.ask(second, 429)
    child.tags[tag.PARENT] = first.id
    await s.ask(child)
    for id in (first.id, child.id):
        await s.ask(second, 429)
        await s.ask(r.TaskAcquire(id, 0, s.pid, LEASE_MS))
    await s.ask(second)
    await s.ask(s.job("third"), 429)


async def paused(s: Script) -> None:
    """A paused queue starts nothing, by whatever request; what runs goes on."""
    for name in ("waits", "runs"):
        await s.ask(s.job(name))
    await s.ask(r.TaskAcquire(s.id("runs"), 0, s.pid, LEASE_MS))
    await s.ask(r.QueuePut(s.queue, paused=True))
    await s.nothing_to_claim()
    await s.ask(r.TaskAcquire(s.id("waits"), 0, s.pid, LEASE_MS), 409)
    born = r.CreateAction(s.job("born"))
    await s.ask(r.TaskCreate(s.pid, LEASE_MS, born), 409)
    settle = r.SettleAction(r.PromiseSettle(s.id("runs"), PromiseState.RESOLVED))
    await s.ask(r.TaskFulfill(s.id("runs"), 1, settle))
    await s.ask(r.QueueResume(s.queue))
    await s.claimed(s.id("waits"))
