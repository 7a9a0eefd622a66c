"""Queues: claiming due tasks and counting failures (protocol B2)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import cycle

import msgspec
from msgspec.structs import replace

from kept.machine.announcements import UNREGISTERED, is_abandoned
from kept.machine.effects import put_acquired, put_parked, put_pending, read_promise, settle
from kept.machine.events import LetterFiled
from kept.machine.limits import queue_refusal, settings_of
from kept.machine.preload import payload_size
from kept.machine.refusals import Refusal
from kept.machine.step import Step
from kept.machine.tasks import acquired_task, held
from kept.machine.turns import is_due, tasks_by_turns
from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.limits import (
    DEFAULT_BACKOFF_BASE_MS,
    DEFAULT_BACKOFF_MAX_MS,
    MAX_CLAIM_BYTES,
    MAX_INTEGER,
)
from kept.protocol.records import (
    EMPTY,
    DeadLetter,
    Promise,
    PromiseState,
    Task,
    TaskState,
    Value,
)
from kept.protocol.responses import (
    OK,
    AcquiredTask,
    ClaimResult,
    LimitedQueue,
    NackResult,
    Response,
)
from kept.protocol.storage import Head
from kept.protocol.validation import parse_backoff

DEFAULT_BACKOFF = ("full_jitter", DEFAULT_BACKOFF_BASE_MS, DEFAULT_BACKOFF_MAX_MS)
EXHAUSTED = "exhausted"
LEASE_EXPIRED = "lease_expired"


def heads_of(request: r.TaskClaim) -> list[Head]:
    """The heads that a claim looks at, in its order."""
    functions = tuple(sorted(request.functions)) if request.functions is not None else None
    return [Head(queue, functions) for queue in request.queues]


def task_claim(step: Step, request: r.TaskClaim) -> Response:
    """Up to `limit` due tasks, taken from the queues in turn, within each by rank; fewer where
    they carry so much that the answer would be too large to travel."""
    taken: list[AcquiredTask] = []
    limited: dict[str, LimitedQueue] = {}
    size = 0
    due = [_due_tasks(step, head, limited) for head in _shuffled(step, request)]
    empty: set[int] = set()
    for index in cycle(range(len(due))):
        if len(taken) == request.limit or len(empty) == len(due) or size > MAX_CLAIM_BYTES:
            break
        if index in empty:
            continue
        found = next(due[index], None)
        if found is None:
            empty.add(index)
            continue
        task = put_acquired(step, found[0], request.pid, request.ttl)
        taken.append(acquired_task(step, task, found[1], request.preload))
        size += _payload_size(taken[-1])
    return Response(OK, ClaimResult(taken, list(limited.values()) or None))


def _shuffled(step: Step, request: r.TaskClaim) -> list[Head]:
    """The heads in the order of their turns: for each worker another one in each millisecond, so
    that small claims starve none of their queues, at whatever pace and however many are empty."""
    heads = heads_of(request)
    if len(heads) == 1:
        return heads
    return sorted(heads, key=lambda head: _hash(step.now, request.pid, head.queue))


def _payload_size(taken: AcquiredTask) -> int:
    size = payload_size(taken.promise.param)
    for record in taken.preload:
        size += payload_size(record.param) + payload_size(record.value)
    return size


def _due_tasks(
    step: Step, head: Head, limited: dict[str, LimitedQueue]
) -> Iterator[tuple[Task, Promise]]:
    """Tasks of a head that may be claimed now; `limited` gains what keeps others from it."""
    settings = settings_of(step.records, head.queue)
    refused: list[Refusal] = []
    if settings.lane or settings.lanes or step.records.heads.is_laned(head):
        due = tasks_by_turns(step, head, settings, refused)
    else:
        due = _tasks_by_rank(step, head)
    while True:
        refusal = queue_refusal(step, head.queue, settings)
        if refusal is not None:
            refused.append(refusal)
        found = next(due, None) if refusal is None else None
        if refused:
            limited[head.queue] = _most_urgent(head.queue, refused)
        if found is None:
            return
        yield found


def _most_urgent(queue: str, refused: list[Refusal]) -> LimitedQueue:
    """What ends first by itself, else whatever it is."""
    timed = [refusal for refusal in refused if refusal.retry_at is not None]
    first = min(timed, key=lambda refusal: refusal.retry_at or 0) if timed else refused[0]
    return LimitedQueue(queue, first.reason, first.retry_at)


def _tasks_by_rank(step: Step, head: Head) -> Iterator[tuple[Task, Promise]]:
    """Due tasks in order of rank; those whose promise is over drop out."""
    records = step.records
    for id in records.heads.candidates(head, step.now):
        task = records.task(id)
        if task is None or not is_due(task, step.now):
            continue
        promise = read_promise(step, id)
        if promise is not None and promise.pending:
            yield task, promise


def task_nack(step: Step, request: r.TaskNack) -> Response:
    """A failed attempt: again later, or exhausted."""
    lease = held(step, request.id, request.version)
    if isinstance(lease, Response):
        return lease
    task, promise = lease
    failures = task.failures + 1 if request.consume else task.failures
    error = request.error or EMPTY
    exhausted = request.consume and is_exhausted(promise, failures)
    if request.reason == UNREGISTERED and not request.consume and request.final is None:
        exhausted = is_abandoned(step, promise)
    if request.final is not None or exhausted:
        outcome = request.final or promise.tags.get(tag.EXHAUSTED, "reject")
        reason = request.reason or EXHAUSTED
        give_up(step, replace(task, failures=failures), promise, outcome, reason, error)
        return Response(OK, NackResult("halted" if outcome == "halt" else "rejected"))
    delay = request.delay
    if delay is None:
        delay = backoff_ms(promise, task.version, max(failures, 1))
    retry_at = min(step.now + delay, MAX_INTEGER)
    put_pending(step, task, promise, retry_at, failures=failures)
    return Response(OK, NackResult("retry", retry_at))


def is_exhausted(promise: Promise, failures: int) -> bool:
    """Whether the failures allowed are used up; without the tag they are unlimited."""
    attempts = promise.tags.get(tag.ATTEMPTS)
    return attempts is not None and failures >= int(attempts)


def give_up(
    step: Step, task: Task, promise: Promise, outcome: str, reason: str, error: Value
) -> None:
    """Ends work that cannot succeed, in the commit that files its dead letter (B2, B4)."""
    if outcome == "halt":
        put_parked(step, task, TaskState.HALTED, failures=task.failures)
    else:
        step.records.put_task(task)
        settle(step, promise, PromiseState.REJECTED, error, step.now)
    letter = DeadLetter(
        id=task.id,
        queue=task.queue,
        function=task.function,
        reason=reason,
        error=error.normal(),
        failures=task.failures,
        created_at=promise.created_at,
        died_at=step.now,
        halted=outcome == "halt",
        param=promise.param,
        tags=promise.tags,
    )
    step.records.put_dead_letter(letter)
    step.records.events.append(LetterFiled(letter))


def backoff_ms(promise: Promise, version: int, failures: int) -> int:
    """How long to wait after a failure. Jitter is a hash: the machine has no randomness (B2)."""
    policy = parse_backoff(promise.tags.get(tag.BACKOFF, "")) or DEFAULT_BACKOFF
    name, base, limit = policy
    if name == "fixed":
        return base
    if name == "linear":
        return min(base * failures, limit)
    # Beyond 2**53 every base has reached every limit.
    full = min(base << min(failures - 1, 53), limit)
    if name == "exponential":
        return full
    if name == "equal_jitter":
        return full // 2 + _jitter(promise.id, version, failures, full - full // 2)
    return _jitter(promise.id, version, failures, full)


def _jitter(id: str, version: int, failures: int, limit: int) -> int:
    """A number from 0 to `limit` that looks random and is always the same."""
    return _hash(id, version, failures) % (limit + 1)


def _hash(*parts: str | int) -> int:
    """A number that looks random: the machine has no randomness (B2)."""
    seed = msgspec.json.encode(parts)
    return int.from_bytes(hashlib.blake2b(seed, digest_size=8).digest(), "big")
