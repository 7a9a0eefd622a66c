"""A script of requests that are refused, each as the protocol says."""

from __future__ import annotations

from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.records import PromiseState, Value
from kept.sim.scripts.leases import suspend
from kept.sim.scripts.script import LEASE_MS, Script

_RESOLVED = PromiseState.RESOLVED


async def invalid(s: Script) -> None:
    """Fields that are wrong, and records that are not there."""
    work, inside = s.job("work"), s.external("inside")
    inside.tags = {}
    await s.ask(work)
    await s.ask(inside)
    await s.claimed(work.id)
    id, none = work.id, s.id("nobody")
    settle = r.SettleAction
    for status, request in (
        *_bad_creates(s),
        (400, r.PromiseSettle(id, PromiseState.PENDING)),
        (400, r.PromiseSettle(id, PromiseState.REJECTED_TIMEDOUT)),
        (400, suspend(id, 1)),
        (400, suspend(id, 1, id)),
        (400, suspend(id, 1, inside.id, inside.id)),
        (422, suspend(id, 1, inside.id)),
        (422, suspend(id, 1, none)),
        (404, suspend(none, 1, inside.id)),
        (400, r.TaskFulfill(id, 1, settle(r.PromiseSettle(inside.id, _RESOLVED)))),
        (404, r.TaskFulfill(none, 1, settle(r.PromiseSettle(none, _RESOLVED)))),
        (400, r.TaskNack(id, 1, final="sometimes")),
        (404, r.TaskNack(none, 1)),
        (404, r.TaskRelease(none, 1)),
        (404, r.TaskHalt(none)),
        (404, r.TaskContinue(none)),
        (404, r.TaskGet(inside.id)),
        (404, r.TaskAcquire(none, 0, s.pid, LEASE_MS)),
        (404, r.DeadGet(none)),
        (400, r.DeadReplay([])),
        (400, r.DeadReplay([none, none])),
        (400, r.TaskClaim([s.queue, s.queue], s.pid, LEASE_MS)),
        (400, r.TaskRecordStep(id, 1, r.PromiseCreate(id, s.deadline()), _RESOLVED)),
        (400, r.TaskRecordStep(id, 1, inside, PromiseState.PENDING)),
        (409, r.TaskNack(id, 2)),
        (409, r.TaskContinue(id)),
    ):
        await s.ask(request, status)
    await s.task_is(id, version=1, pid=s.pid)
    s.same("untouched", (await s.promise(id)).state, PromiseState.PENDING)


def _bad_creates(s: Script) -> list[tuple[int, r.Request]]:
    deadline = s.deadline()
    bad_tags: list[dict[str, str]] = [
        {tag.TARGET: "gopher://x"},
        {tag.TARGET: ""},
        {tag.TARGET: "queue://"},
        {tag.DELAY: "5"},
        {tag.TARGET: "queue://x", tag.DELAY: "soon"},
        {tag.TARGET: "queue://x", tag.DELAY: str(deadline)},
        {tag.TARGET: "queue://x", tag.PRIORITY: "10"},
        {tag.TARGET: "queue://x", tag.PRIORITY: "-1"},
        {tag.TARGET: "queue://x", tag.ATTEMPTS: "0"},
        {tag.TARGET: "queue://x", tag.ATTEMPTS: "1001"},
        {tag.TARGET: "queue://x", tag.EXHAUSTED: "shrug"},
        {tag.TARGET: "queue://x", tag.BACKOFF: "fixed"},
        {tag.TARGET: "queue://x", tag.BACKOFF: "linear:5"},
        {tag.TARGET: "queue://x", tag.BACKOFF: "random:5:6"},
        {str(number): "" for number in range(65)},
        {"large": "x" * 17_000},
    ]
    requests: list[tuple[int, r.Request]] = [
        (400, r.PromiseCreate(s.id(f"bad{number}"), deadline, tags=tags))
        for number, tags in enumerate(bad_tags)
    ]
    requests.append((400, r.PromiseCreate("x" * 1_025, deadline)))
    requests.append((400, r.PromiseCreate(s.id("large"), deadline, Value(data="x" * 1_048_577))))
    return requests
