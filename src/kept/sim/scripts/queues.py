"""Scripts about queues: whose turn it is, and when."""

from __future__ import annotations

import asyncio

from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.records import PromiseState, TaskState
from kept.protocol.responses import ClaimResult
from kept.sim.scripts.script import LEASE_MS, Script

_LATE_SECONDS = 1.0


async def ranks(s: Script) -> None:
    """Higher priorities first, within one the older ones first, whatever a claim takes at once."""
    priorities = [s.random.randrange(10) for _ in range(s.random.randint(2, 9))]
    jobs = [s.job(f"job{n}", priority=str(p)) for n, p in enumerate(priorities)]
    ids = []
    for create in jobs:
        await s.ask(create)
        # A later millisecond, so that the order is known.
        await s.runtime.sleep(0.01)
        ids.append(create.id)
    expected = [id for _, id in sorted(zip(priorities, ids, strict=True), key=lambda p: -p[0])]
    if not s.exact:
        return
    taken: list[str] = []
    while len(taken) < len(ids):
        limit = s.random.choice((1, 2, 5))
        result = (await s.twice(s.claim(limit))).data
        assert isinstance(result, ClaimResult)
        if not 0 < len(result.tasks) <= limit:
            s.fail(f"{len(result.tasks)} tasks came of {limit}")
        taken += [each.task.id for each in result.tasks]
    s.same("order", taken, expected)
    # Handed back, they are due anew, one after the other, and their priorities count as before.
    back = list(reversed(taken))
    for id in back:
        await s.ask(r.TaskRelease(id, 1))
        await s.runtime.sleep(0.01)
    again = []
    for _ in ids:
        result = await s.data(s.claim(1), ClaimResult)
        s.same("versions", [each.task.version for each in result.tasks], [2])
        again.append(result.tasks[0].task.id)
    rank = dict(zip(ids, priorities, strict=True))
    s.same("order again", again, sorted(back, key=lambda id: -rank[id]))


async def functions(s: Script) -> None:
    """A claim takes only what it can run, and others get the rest."""
    names = ("f@1", "g@1", "f@2")
    for number, name in enumerate(names):
        await s.ask(s.job(f"job{number}", function=name))
    await s.ask(s.job("plain"))
    for wanted, ids in (
        (["h@1"], []),
        (["g@1", "h@1"], [s.id("job1")]),
        (["f@1", "f@2"], [s.id("job0"), s.id("job2")]),
        (["f"], []),
    ):
        result = await s.data(s.claim(10, functions=wanted), ClaimResult)
        s.same(f"claimed for {wanted}", sorted(t.task.id for t in result.tasks), ids)
    await s.claimed(s.id("plain"))


async def several(s: Script) -> None:
    """A claim on several queues takes from all of them, in turn."""
    queues = [f"{s.queue}-{number}" for number in range(3)]
    ids: dict[str, list[str]] = {queue: [] for queue in queues}
    for queue in queues:
        for number in range(2):
            create = s.job(f"{queue}-{number}")
            create.tags[tag.TARGET] = f"queue://{queue}"
            await s.ask(create)
            ids[queue].append(create.id)
    result = await s.data(r.TaskClaim(queues, s.pid, LEASE_MS, limit=3), ClaimResult)
    first = [task.task.id for task in result.tasks]
    s.same("one of each", sorted(first), sorted(found[0] for found in ids.values()))
    result = await s.data(r.TaskClaim(queues[:2], s.pid, LEASE_MS, limit=10), ClaimResult)
    rest = sorted([ids[queues[0]][1], ids[queues[1]][1]])
    s.same("the rest of two", sorted(t.task.id for t in result.tasks), rest)


async def delays(s: Script) -> None:
    """Work with a delay begins then, not before, and soon after."""
    create = s.job("later")
    due = s.runtime.now_ms() + 700
    create.tags[tag.DELAY] = str(due)
    await s.ask(create)
    result = await s.data(s.claim(), ClaimResult)
    if result.tasks and s.runtime.now_ms() < due:
        s.fail(f"due at {due}, it came before")
    if not result.tasks:
        await s.claimed(create.id, wait=20_000)
    now = s.runtime.now_ms()
    if now < due:
        s.fail(f"due at {due}, it came at {now}")
    by_id = s.job("by id")
    by_id.tags[tag.DELAY] = str(s.runtime.now_ms() + 60_000)
    await s.ask(by_id)
    await s.ask(r.TaskAcquire(by_id.id, 0, s.pid, LEASE_MS))
    await s.task_is(by_id.id, state=TaskState.ACQUIRED)


async def expiry(s: Script) -> None:
    """A lease without heartbeats ends, which counts; one with a heartbeat lasts."""
    create = s.job("short", backoff="fixed:10")
    id = create.id
    await s.ask(create)
    await s.ask(r.TaskAcquire(id, 0, s.pid, 300))
    got = await s.claimed(id, wait=20_000)
    s.same("after its lease", (got.task.version, got.attempt), (2, 2))
    await s.ask(r.TaskRelease(id, 1), 409)
    other = s.job("pushed")
    other.tags[tag.TARGET] = "poll://any@nobody"
    await s.ask(other)
    await s.ask(r.TaskAcquire(other.id, 0, s.pid, 100))
    for _ in range(40):
        await s.runtime.sleep(0.5)
        response = await s.ask(r.TaskGet(other.id))
        if response.data.task.state is TaskState.PENDING:  # type: ignore[union-attr]
            return
    s.fail(f"{other.id} is held for 20 s by a lease of 100 ms")


async def waiting(s: Script) -> None:
    """Claims that wait are answered soon after their work comes, each with its own kind, and a
    burst feeds as many as it can."""
    other = f"{s.queue}-burst"
    requests = [s.claim(1, 20_000, functions=["f@1"]), s.claim(1, 20_000, functions=["g@1"])]
    requests += [r.TaskClaim([other], s.pid, LEASE_MS, 1, 20_000) for _ in range(2)]
    claims = [s.runtime.spawn(s.data(each, ClaimResult), "script-claim") for each in requests]
    try:
        await s.runtime.sleep(s.random.choice((0.0, 0.3)))
        started = s.runtime.monotonic()
        await s.ask(s.job("g", function="g@1"))
        await _comes(s, claims[1] if s.prompt else None, started)
        rest = [s.job(name) for name in ("one", "two")]
        for create in rest:
            create.tags[tag.TARGET] = f"queue://{other}"
        started = s.runtime.monotonic()
        await asyncio.gather(*(s.ask(create) for create in (*rest, s.job("f", function="f@1"))))
        for claim in claims:
            await _comes(s, claim, started)
        taken = [(await claim).tasks for claim in claims]
        ids = [task.task.id for tasks in taken for task in tasks]
        s.same("came", sorted(ids), sorted(s.id(name) for name in ("f", "g", "one", "two")))
    finally:
        for claim in claims:
            claim.cancel()


async def _comes(s: Script, claim: asyncio.Task[ClaimResult] | None, started: float) -> None:
    """Waits for a claim's answer, which must come soon where nothing may be late."""
    if claim is None:
        return
    await asyncio.wait((claim,))
    late = s.runtime.monotonic() - started
    if s.prompt and late > _LATE_SECONDS:
        s.fail(f"a claim that waits was answered {late:.1f} s after its work came")


async def settings(s: Script) -> None:
    """A paused queue gives nothing out, one of concurrency 1 one task; a full one takes no more."""
    for name in ("one", "two"):
        await s.ask(s.job(name))
    await s.ask(r.QueuePut(s.queue, paused=True))
    await s.nothing_to_claim()
    await s.ask(s.job("three"))
    await s.ask(r.QueueResume(s.queue))
    await s.ask(r.QueuePut(s.queue, concurrency=1))
    result = await s.data(s.claim(5), ClaimResult)
    s.same("at one time", len(result.tasks), 1)
    await s.nothing_to_claim()
    first = result.tasks[0].task
    settle = r.SettleAction(r.PromiseSettle(first.id, PromiseState.RESOLVED))
    await s.ask(r.TaskFulfill(first.id, 1, settle))
    result = await s.data(s.claim(5), ClaimResult)
    s.same("at one time", len(result.tasks), 1)
    await s.ask(r.QueuePut(s.queue, concurrency=None))
    result = await s.data(s.claim(5), ClaimResult)
    s.same("the rest", len(result.tasks), 1)
    await s.ask(r.QueueDelete(s.queue))
