"""Short ways to write records, states and cases down. The time is 100 unless a case says other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kept.check.state import Edges, State
from kept.protocol.addresses import BASE_SCHEMES
from kept.protocol.records import (
    EMPTY,
    DeadLetter,
    MessageKey,
    OutboxEntry,
    Promise,
    PromiseState,
    ScheduleRecord,
    Task,
    TaskState,
    Value,
)

NOW: Final = 100
HOOK: Final = "http://worker.test/hook"
TARGETED: Final = {"resonate:target": HOOK}
EXTERNAL: Final = {"resonate:external": "true"}
TIMER: Final = {"resonate:timer": "true"}
DATA: Final = Value(data="1")

Pairs = Iterable[tuple[str, str]]
Record = Promise | Task | ScheduleRecord | OutboxEntry | DeadLetter


def pending(id: str = "p", tags: Mapping[str, str] = EXTERNAL, **fields: Any) -> Promise:
    """A pending promise, created at 10, with its deadline at 1000."""
    return _promise(id, PromiseState.PENDING, tags, fields)


def resolved(id: str = "p", tags: Mapping[str, str] = EXTERNAL, **fields: Any) -> Promise:
    """A promise that was resolved at 100, before its deadline at 1000."""
    return _promise(id, PromiseState.RESOLVED, tags, {"settled_at": NOW, **fields})


def timed_out(id: str = "p", tags: Mapping[str, str] = EXTERNAL, **fields: Any) -> Promise:
    """A promise that was settled by its deadline, at 50."""
    stamps = {"timeout_at": 50, "settled_at": 50, **fields}
    return _promise(id, PromiseState.REJECTED_TIMEDOUT, tags, stamps)


def _promise(
    id: str, state: PromiseState, tags: Mapping[str, str], fields: dict[str, Any]
) -> Promise:
    rest = {"param": EMPTY, "value": EMPTY, "timeout_at": 1000, "created_at": 10, **fields}
    return Promise(**{"id": id, "state": state, "tags": dict(tags), **rest})


def waiting(id: str = "p", **fields: Any) -> Task:
    """A pending task, due now."""
    return Task(**{"id": id, "state": TaskState.PENDING, "retry_at": NOW, **fields})


def acquired(id: str = "p", **fields: Any) -> Task:
    """A task acquired by `w` at version 1 until 130."""
    lease = {"version": 1, "pid": "w", "ttl": 30, "expires_at": NOW + 30}
    return Task(**{"id": id, "state": TaskState.ACQUIRED, **lease, **fields})


def suspended(id: str = "p", **fields: Any) -> Task:
    return Task(**{"id": id, "state": TaskState.SUSPENDED, "version": 1, **fields})


def halted(id: str = "p", **fields: Any) -> Task:
    return Task(**{"id": id, "state": TaskState.HALTED, "version": 1, **fields})


def fulfilled(id: str = "p", **fields: Any) -> Task:
    return Task(**{"id": id, "state": TaskState.FULFILLED, "version": 1, **fields})


def schedule(id: str = "c", **fields: Any) -> ScheduleRecord:
    """A schedule created at 10, which fires next at 200."""
    rest = {
        "cron": "* * * * *",
        "promise_id": "x",
        "promise_timeout": 60,
        "promise_param": EMPTY,
        "promise_tags": {},
        "created_at": 10,
        "next_run_at": 200,
    }
    return ScheduleRecord(**{"id": id, **rest, **fields})


def execute(id: str = "p", address: str = HOOK, version: int = 0) -> OutboxEntry:
    return OutboxEntry(MessageKey.execute(id), address, version)


def unblock(id: str = "p", address: str = HOOK) -> OutboxEntry:
    return OutboxEntry(MessageKey.unblock(id, address), address)


def dead_letter(id: str = "p") -> DeadLetter:
    return DeadLetter(id, "lease_expired", EMPTY, 1, 10, NOW, True, EMPTY, {}, "q")


def state(
    *records: Record,
    callbacks: Pairs = (),
    listeners: Pairs = (),
    resumes: Pairs = (),
    misplaced: Mapping[Any, Record] | None = None,
) -> State:
    """A state of these records, each under its own key but for the `misplaced` ones."""
    result = State()
    for record in records:
        _put(result, record.key if isinstance(record, OutboxEntry) else record.id, record)
    for key, record in (misplaced or {}).items():
        _put(result, key, record)
    result.callbacks = Edges(callbacks)
    result.listeners = Edges(listeners)
    result.resumes = Edges(resumes)
    return result


def _put(into: State, key: Any, record: Record) -> None:
    match record:
        case Promise():
            into.promises[key] = record
        case Task():
            into.tasks[key] = record
        case ScheduleRecord():
            into.schedules[key] = record
        case DeadLetter():
            into.dead_letters[key] = record
        case OutboxEntry():
            into.outbox[key] = record
            if key.address:
                into.unblocks.add(key.id, key.address)


@dataclass(frozen=True)
class StateCase:
    """A state in which a property is false by one of its clauses, and one in which it holds."""

    name: str
    clause: str
    bad: State
    good: State
    now: int = NOW
    schemes: frozenset[str] = BASE_SCHEMES


@dataclass(frozen=True)
class Step:
    """A step from one state to another."""

    before: State
    after: State
    name: str = "some.request"
    now: int = NOW
    internal: bool = False


@dataclass(frozen=True)
class StepCase:
    """A step in which a property is false by one of its clauses, and one in which it holds."""

    name: str
    clause: str
    bad: Step
    good: Step
