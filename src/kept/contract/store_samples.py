"""Records and short ways that the cases of the store suite share."""

from __future__ import annotations

import itertools
from contextlib import AbstractAsyncContextManager
from typing import Final

from kept.protocol import tags as tag
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import (
    EMPTY,
    Catchup,
    DeadLetter,
    Delivery,
    MessageKey,
    OutboxEntry,
    Overlap,
    Promise,
    PromiseState,
    ScheduleRecord,
    Task,
    TaskState,
    Value,
)
from kept.protocol.storage import DEFAULT_TENANT, Changes, Loaded, Notice, Reads
from kept.stores.base import Store

NOW: Final = 1_700_000_000_000

_batch_numbers = itertools.count(1)

# Ids that have broken storage engines: quotes, patterns, separators, spaces, case, normal forms,
# directions, characters beyond the basic plane, the largest one there is.
ODD_IDS: Final = (
    *("a'b", 'a"b', "a%b", "a_b", "a\\b", "a;--", "a b", " a", "a ", "a\n", "A", "a", "a*", "a?"),
    *("a/b", "a.b.1", "a:b:1", "ä", "a\u0308", "ß", "ı", "\u200b", "\u202e", "\ufeff", "\uffff"),
    *(
        "\u2028",
        "😀",
        "👩‍👩‍👧",
        "\U0010ffff",
        "\U0010ffffz",
        "\x01",
        "\x7f",
        "null",
        "0",
        "x" * 1_024,
    ),
)


class Opens:
    """What each group of cases needs of the suite."""

    def opened(self) -> AbstractAsyncContextManager[Store]:
        """A store that is open and empty, closed at the end."""
        raise NotImplementedError


def promise(
    id: str,
    *,
    at: int = NEVER_MS,
    param: Value = EMPTY,
    tags: dict[str, str] | None = None,
    created_at: int = NOW,
) -> Promise:
    """A pending promise."""
    return Promise(id, PromiseState.PENDING, param, EMPTY, tags or {}, at, created_at)


def settled(before: Promise, value: Value = EMPTY) -> Promise:
    """The same promise, resolved."""
    return Promise(
        before.id,
        PromiseState.RESOLVED,
        before.param,
        value,
        before.tags,
        before.timeout_at,
        before.created_at,
        NOW + 1,
    )


def queued(
    id: str,
    queue: str = "q",
    *,
    rank: int = 0,
    function: str | None = None,
    lane: str = "lane",
    due: int | None = None,
    at: int = NOW,
) -> Task:
    """A pending task of a queue: ready since `at` with a `rank`, or delayed until `due`."""
    return Task(
        id,
        TaskState.PENDING,
        retry_at=at if due is None else due,
        delivery=Delivery.PULL,
        queue=queue,
        lane=lane,
        function=function,
        ready=due is None,
        rank=rank,
    )


def pushed(id: str, due: int) -> Task:
    """A pending task whose target gets messages."""
    return Task(id, TaskState.PENDING, retry_at=due)


def acquired(
    id: str,
    expires_at: int,
    *,
    version: int = 1,
    request: str | None = None,
    lane: str | None = None,
) -> Task:
    """A task that a worker holds."""
    return Task(
        id,
        TaskState.ACQUIRED,
        version,
        ttl=1_000,
        pid="worker",
        expires_at=expires_at,
        delivery=Delivery.PULL,
        queue="q",
        lane=lane,
        last_request=request,
        last_answer=None if request is None else b'{"answer":1}',
    )


def schedule(id: str, next_run_at: int, *, paused: bool = False) -> ScheduleRecord:
    """A schedule with every field set."""
    return ScheduleRecord(
        id,
        "*/5 * * * *",
        "run.{{.timestamp}}",
        60_000,
        Value({"h": "é"}, "param"),
        {tag.TARGET: "queue://q"},
        NOW,
        next_run_at,
        NOW - 1,
        every=7_000,
        zone="Asia/Kolkata",
        jitter=9,
        overlap=Overlap.QUEUE,
        catchup=Catchup.LAST,
        paused=paused,
    )


def execute(task_id: str, due_at: int, address: str = "poll://any@g") -> OutboxEntry:
    """An execute message."""
    return OutboxEntry(MessageKey.execute(task_id), address, 3, due_at, 1)


def unblock(promise_id: str, due_at: int, address: str = "poll://any@g") -> OutboxEntry:
    """An unblock message."""
    return OutboxEntry(MessageKey.unblock(promise_id, address), address, 0, due_at, 0)


def letter(
    id: str, *, queue: str = "q", reason: str = "exhausted", died_at: int = NOW
) -> DeadLetter:
    """A dead letter with every field set."""
    return DeadLetter(
        id=id,
        queue=queue,
        function="f@1",
        reason=reason,
        error=Value({"h": "1"}, "error"),
        failures=3,
        created_at=NOW,
        died_at=died_at,
        halted=True,
        param=Value(None, "param"),
        tags={"a": "b"},
        replays=2,
    )


def births(*promises: Promise, tasks: tuple[Task, ...] = ()) -> Changes:
    """Changes that bear these."""
    return Changes(
        promises={each.id: each for each in promises},
        tasks={each.id: each for each in tasks},
        born_promises={each.id for each in promises},
        born_tasks={each.id for each in tasks},
    )


def jobs(*tasks: Task) -> Changes:
    """Changes that bear these tasks, each with its promise."""
    return births(
        *(promise(task.id, tags={tag.TARGET: "queue://q"}) for task in tasks), tasks=tasks
    )


def fresh_batch() -> str:
    """An id for a commit."""
    return f"batch-{next(_batch_numbers)}"


async def write(
    store: Store, *changes: Changes, tenant: str = DEFAULT_TENANT, now: int = NOW
) -> None:
    """Commits the changes in one transaction."""
    async with store.transaction() as transaction:
        for each in changes:
            await transaction.save(tenant, each)
        await transaction.commit(fresh_batch(), now, Notice())


async def read(
    store: Store, reads: Reads, *, tenant: str = DEFAULT_TENANT, now: int = NOW
) -> Loaded:
    """What a transaction of its own loads."""
    async with store.transaction() as transaction:
        return await transaction.load(tenant, reads, now)
