"""Scripts about failures: counted, waited for, exhausted, filed and replayed."""

from __future__ import annotations

from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.records import DeadLetter, PromiseState, TaskState, Value
from kept.protocol.responses import (
    DeadLetterPage,
    DeadLetterResult,
    NackResult,
    ReplayResult,
)
from kept.sim.inspector import backoff_range
from kept.sim.scripts.leases import suspend
from kept.sim.scripts.script import Script

# So that to go beyond a limit takes longer than messages do.
POLICIES = (
    "fixed:40",
    "linear:900:1200",
    "exponential:700:1000",
    "full_jitter:300:400",
    "equal_jitter:800:1000",
)
_WAIT_MS = 20_000


async def _letter(s: Script, id: str) -> DeadLetter:
    return (await s.data(r.DeadGet(id), DeadLetterResult)).letter


async def _replay(s: Script, request: r.DeadReplay) -> list[tuple[int, str | None]]:
    result = await s.data(request, ReplayResult)
    return [(each.status, each.replayed_as) for each in result.replays]


async def rejected(s: Script) -> None:
    """Three attempts are granted, and no fourth; then the letter is replayed, twice."""
    policy = s.random.choice(POLICIES)
    create = s.job("doomed", attempts="3", backoff=policy, function="f@1", priority="2")
    id = create.id
    create.tags[tag.ORIGIN] = "elsewhere"
    await s.ask(create)
    for failures in (1, 2):
        got = await s.claimed(id, wait=_WAIT_MS)
        s.same("attempt", (got.attempt, got.task.version), (failures, failures))
        nack = r.TaskNack(id, failures, error=Value(data=f"error {failures}"))
        before = s.runtime.now_ms()
        answer = (await s.twice(nack)).data
        assert isinstance(answer, NackResult)
        s.same("outcome", answer.outcome, "retry")
        if s.exact:
            due, (low, high) = answer.retry_at or 0, backoff_range(policy, failures)
            if not low + before <= due <= high + s.runtime.now_ms():
                s.fail(f"after {failures} failures by {policy}: {due - before} ms later")
        await s.ask(nack, 409)
    await s.claimed(id, wait=_WAIT_MS)
    last = Value(headers={"h": "x"}, data="the last")
    answer = (await s.twice(r.TaskNack(id, 3, 0, last))).data
    s.same("outcome", answer, NackResult("rejected"))
    promise = await s.promise(id)
    s.same("promise", (promise.state, promise.value), (PromiseState.REJECTED, last))
    letter = await _letter(s, id)
    s.same("letter", (letter.queue, letter.function, letter.reason, letter.failures),
           (s.queue, "f@1", "exhausted", 3))  # fmt: skip
    s.same("letter", (letter.error, letter.halted, letter.param, letter.tags),
           (last, False, create.param, create.tags))  # fmt: skip
    s.same("letter's times", (letter.created_at, letter.died_at),
           (promise.created_at, promise.settled_at))  # fmt: skip
    for number in (1, 2):
        again = f"{id}~{number}"
        param = Value(data="other") if number == 2 else None
        unknown = s.id("nobody")
        s.same("replay", await _replay(s, r.DeadReplay([unknown, id], param)),
               [(404, None), (200, again)])  # fmt: skip
        got = await s.claimed(again)
        s.same("attempt", (got.attempt, got.task.version), (1, 1))
        s.same("param", got.promise.param, param or create.param)
        tags = {k: t for k, t in create.tags.items() if k != tag.ORIGIN} | {tag.REPLAY_OF: id}
        s.same("tags", got.promise.tags, tags)
        span = promise.timeout_at - promise.created_at
        s.same("span", got.promise.timeout_at - got.promise.created_at, span)
    s.same("replays", (await _letter(s, id)).replays, 2)


async def halted(s: Script) -> None:
    """Exhausted work that halts stays pending, and goes on where it stood when it is replayed."""
    create = s.job("halting", attempts="1", exhausted="halt", backoff="fixed:1")
    id = create.id
    await s.ask(create)
    await s.claimed(id)
    s.same("no failure", (await s.ask(r.TaskNack(id, 1, 0, consume=False))).data.__class__,
           NackResult)  # fmt: skip
    got = await s.claimed(id, wait=_WAIT_MS)
    s.same("attempt", (got.attempt, got.task.version), (1, 2))
    answer = await s.data(r.TaskNack(id, 2, 0, Value(data="e"), "why"), NackResult)
    s.same("outcome", answer.outcome, "halted")
    await s.task_is(id, state=TaskState.HALTED, version=2)
    s.same("promise", (await s.promise(id)).state, PromiseState.PENDING)
    letter = await _letter(s, id)
    s.same("letter", (letter.reason, letter.halted, letter.failures), ("why", True, 1))
    await s.nothing_to_claim()
    s.same("replay", await _replay(s, r.DeadReplay([id])), [(200, id)])
    s.same("replay again", await _replay(s, r.DeadReplay([id])), [(409, None)])
    got = await s.claimed(id)
    s.same("attempt", (got.attempt, got.task.version), (1, 3))
    await s.ask(r.TaskNack(id, 3, 0, final="halt"))
    s.same("failures", (await _letter(s, id)).failures, 1)
    s.same("replay with a param", await _replay(s, r.DeadReplay([id], Value(data="p"))),
           [(200, f"{id}~1")])  # fmt: skip
    page = await s.data(r.DeadList(queue=s.queue), DeadLetterPage)
    s.same("letters", [each.id for each in page.letters], [id])
    page = await s.data(r.DeadList(queue=s.queue, reason="other"), DeadLetterPage)
    s.same("letters", page.letters, [])
    since = letter.died_at + 1_000_000
    page = await s.data(r.DeadList(queue=s.queue, since=since), DeadLetterPage)
    s.same("letters since", page.letters, [])


async def settled(s: Script) -> None:
    """Progress forgives failures; a release and a nack that consumes nothing count none."""
    create, wait = s.job("patient", attempts="3"), s.external("awaited")
    id = create.id
    await s.ask(create)
    await s.ask(wait)
    await s.claimed(id)
    await s.ask(r.TaskNack(id, 1, 0))
    s.same("attempt", (await s.claimed(id, wait=_WAIT_MS)).attempt, 2)
    await s.ask(r.TaskRelease(id, 2))
    s.same("attempt", (await s.claimed(id)).attempt, 2)
    await s.ask(r.TaskNack(id, 3, 0, consume=False))
    s.same("attempt", (await s.claimed(id, wait=_WAIT_MS)).attempt, 2)
    await s.ask(suspend(id, 4, wait.id))
    await s.ask(r.PromiseSettle(wait.id, PromiseState.RESOLVED))
    s.same("attempt", (await s.claimed(id)).attempt, 1)
    answer = await s.data(r.TaskNack(id, 5, final="reject", reason="unwanted"), NackResult)
    s.same("outcome", answer.outcome, "rejected")
    s.same("reason", (await _letter(s, id)).reason, "unwanted")
    await s.ask(r.DeadGet(wait.id), 404)
