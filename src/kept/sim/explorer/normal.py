"""The normal form of records: two databases of one normal form behave alike for ever.

Theory of operation. Instants are told from now, and one that has passed has only passed: no handler
asks how long ago. Versions are compared for equality alone and only rise, so a task's present version
is 1 (0 before its first lease), and every other one is 0: it is stale and stays so. A request's id
matters while somebody may still ask again under it. So the states of a world are finitely many,
however often leases change hands, and its runs without end are cycles.

A normal form is a database like any other: the real machine goes on from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from kept.protocol import tags as tag
from kept.protocol.entries import Cancellation, Entry
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import (
    DeadLetter,
    Delivery,
    MessageKey,
    OutboxEntry,
    Promise,
    Task,
    TaskState,
    Value,
)
from kept.protocol.storage import Dump, Edge
from kept.sim.explorer.programs import GRACE_MS, NOW_MS

PAST_MS: Final = NOW_MS - 1
# The id of a request that nobody will repeat, while it is applied, and afterwards.
ONCE: Final = "once"
FORGOTTEN: Final = "forgotten"


def normal_version(version: int, current: int) -> int:
    """The normal form of a version of a task that is at `current`."""
    return min(current, 1) if version == current else 0


def normal(dump: Dump, passed_ms: int = 0, forgotten: str = ONCE) -> Dump:
    """The normal form of records as seen `passed_ms` later, when nobody asks again under the
    request id `forgotten`."""
    tasks = {id: dump.tasks[id] for id in sorted(dump.tasks)}
    ranks = sorted({task.rank for task in tasks.values() if _is_due(task, passed_ms)})
    numbers, counts = _numbered(dump.releases)
    return Dump(
        promises={id: _promise(dump.promises[id], passed_ms) for id in sorted(dump.promises)},
        tasks={
            id: _task(
                task,
                dump.promises[id],
                passed_ms,
                forgotten,
                rank=_rank(task, ranks, passed_ms),
                releases=counts.get(id, 0),
            )
            for id, task in tasks.items()
        },
        callbacks=dump.callbacks,
        listeners=dump.listeners,
        resumes=dump.resumes,
        releases=numbers,
        outbox={
            key: _message(dump.outbox[key], dump.tasks.get(key.id), passed_ms)
            for key in sorted(dump.outbox)
        },
        dead_letters={id: _letter(dump.dead_letters[id]) for id in sorted(dump.dead_letters)},
        entries={
            key: _entry(entry, dump.promises.get(key.name), passed_ms)
            for key, entry in sorted(dump.entries.items())
        },
    )


def _entry(entry: Entry, promise: Promise | None, passed_ms: int) -> Entry:
    """Of those that there are here, only cancellations know instants."""
    if not isinstance(entry.data, Cancellation):
        return entry
    requested_at = PAST_MS
    if promise is not None and promise.pending:
        requested_at = _requested(entry.data.requested_at, passed_ms)
    due_at = None if entry.due_at is None else _later(entry.due_at, passed_ms)
    return replace(entry, data=replace(entry.data, requested_at=requested_at), due_at=due_at)


def _requested(instant: int, passed_ms: int) -> int:
    """When a pending promise was asked to stop; it matters until the grace is over."""
    return max(instant - passed_ms, NOW_MS - GRACE_MS)


def _is_due(task: Task, passed_ms: int) -> bool:
    """Whether a task has its place in a queue by now."""
    if task.delivery is not Delivery.PULL or task.retry_at is None:
        return False
    return task.retry_at - passed_ms <= NOW_MS


def _rank(task: Task, ranks: list[int], passed_ms: int) -> int:
    """The place of a task that is due among those that are; of one that is not, its time to come,
    which is behind all of them."""
    if _is_due(task, passed_ms):
        return ranks.index(task.rank)
    return 0 if task.retry_at is None else _later(task.rank, passed_ms)


def _later(instant: int, passed_ms: int) -> int:
    return NEVER_MS if instant == NEVER_MS else max(instant - passed_ms, NOW_MS)


def _promise(promise: Promise, passed_ms: int) -> Promise:
    if promise.pending:
        timeout_at = _later(promise.timeout_at, passed_ms)
        asked_at = promise.cancel_requested_at
        if asked_at is not None:
            asked_at = _requested(asked_at, passed_ms)
        elif promise.created_at == PAST_MS and promise.timeout_at == timeout_at:
            return promise
        return replace(
            promise, created_at=PAST_MS, timeout_at=timeout_at, cancel_requested_at=asked_at
        )
    if promise.cancel_requested_at is not None:
        # Nobody asks any more.
        promise = replace(promise, cancel_requested_at=None)
    if promise.created_at == PAST_MS and promise.settled_at == PAST_MS:
        return promise
    by_deadline = promise.settled_at == promise.timeout_at
    timeout_at = PAST_MS if by_deadline else NEVER_MS
    return replace(promise, created_at=PAST_MS, settled_at=PAST_MS, timeout_at=timeout_at)


def _task(
    task: Task, promise: Promise, passed_ms: int, forgotten: str, *, rank: int, releases: int
) -> Task:
    request, answer = task.last_request, task.last_answer
    if request == forgotten:
        request, answer = FORGOTTEN, None
    return replace(
        task,
        version=min(task.version, 1),
        expires_at=None if task.expires_at is None else _later(task.expires_at, passed_ms),
        retry_at=None if task.retry_at is None else _later(task.retry_at, passed_ms),
        rank=rank,
        # Without a bound on the attempts nothing depends on how many there were.
        failures=task.failures if tag.ATTEMPTS in promise.tags else 0,
        releases=releases,
        last_request=request,
        last_answer=answer,
    )


def _message(entry: OutboxEntry, task: Task | None, passed_ms: int) -> OutboxEntry:
    version = 0 if task is None else normal_version(entry.version, task.version)
    return replace(entry, version=version, due_at=_later(entry.due_at, passed_ms), tries=0)


def _letter(letter: DeadLetter) -> DeadLetter:
    return replace(letter, created_at=PAST_MS, died_at=PAST_MS)


def _numbered(releases: Mapping[Edge, int]) -> tuple[dict[Edge, int], dict[str, int]]:
    """Release numbers without gaps, and the last one of each task."""
    counts: dict[str, int] = {}
    numbers: dict[Edge, int] = {}
    for edge in sorted(releases, key=lambda each: (each.of, releases[each])):
        counts[edge.of] = numbers[edge] = counts.get(edge.of, 0) + 1
    return dict(sorted(numbers.items())), counts


def renamed(dump: Dump, names: Mapping[str, str]) -> Dump:
    """The same records with other names of promises and workers."""

    def name(text: str) -> str:
        return names.get(text, text)

    def edges(of: set[Edge]) -> set[Edge]:
        return {Edge(name(edge.of), name(edge.to)) for edge in of}

    def key(of: MessageKey) -> MessageKey:
        return replace(of, id=name(of.id))

    def by_name(records: Mapping[str, Any], rename: Any) -> dict[str, Any]:
        found = {name(id): rename(record) for id, record in records.items()}
        return dict(sorted(found.items()))

    def value(of: Value) -> Value:
        return of if of.data is None else Value(data=name(of.data))

    def tags(of: dict[str, str]) -> dict[str, str]:
        return {each: name(text) for each, text in of.items()}

    return Dump(
        promises=by_name(
            dump.promises,
            lambda p: replace(p, id=name(p.id), value=value(p.value), tags=tags(p.tags)),
        ),
        tasks=by_name(
            dump.tasks,
            lambda t: replace(t, id=name(t.id), pid=None if t.pid is None else name(t.pid)),
        ),
        callbacks=edges(dump.callbacks),
        listeners=edges(dump.listeners),
        resumes=edges(dump.resumes),
        releases=dict(sorted((Edge(name(e.of), name(e.to)), n) for e, n in dump.releases.items())),
        outbox=dict(sorted((key(k), replace(m, key=key(k))) for k, m in dump.outbox.items())),
        dead_letters=by_name(
            dump.dead_letters,
            lambda d: replace(d, id=name(d.id), error=value(d.error), tags=tags(d.tags)),
        ),
        entries=dump.entries,
    )


_ENCODER: Final = msgspec.msgpack.Encoder()


def fingerprint(dump: Dump) -> bytes:
    """What two dumps in normal form share if and only if they are equal."""
    return _ENCODER.encode(
        (
            list(dump.promises.values()),
            list(dump.tasks.values()),
            sorted(dump.callbacks),
            sorted(dump.listeners),
            sorted(dump.resumes),
            list(dump.releases.items()),
            list(dump.outbox.values()),
            list(dump.dead_letters.values()),
            list(dump.entries.values()),
        )
    )


def is_over(dump: Dump) -> bool:
    """Whether every promise is settled, and stored so."""
    return not any(promise.pending for promise in dump.promises.values())


def next_instant(dump: Dump) -> int | None:
    """The next instant (ms) that lies ahead of now and at which something is due."""
    instants = [p.timeout_at for p in dump.promises.values() if p.pending]
    for task in dump.tasks.values():
        if task.state is TaskState.ACQUIRED and task.expires_at is not None:
            instants.append(task.expires_at)
        elif task.retry_at is not None and task.delivery is not Delivery.NEVER:
            instants.append(task.retry_at)
    instants += [message.due_at for message in dump.outbox.values()]
    instants += [entry.due_at for entry in dump.entries.values() if entry.due_at is not None]
    return min((at for at in instants if NOW_MS < at < NEVER_MS), default=None)
