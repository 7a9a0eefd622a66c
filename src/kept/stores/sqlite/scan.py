"""Scans: what is read outside of transactions, on a connection that cannot write."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from heapq import nsmallest
from typing import Final

import msgspec

from kept.protocol.entries import Entry, EntryKey, EntryKind
from kept.protocol.records import OutboxEntry, Promise, ScheduleRecord, Task
from kept.protocol.requests import DeadList
from kept.protocol.storage import Children, Due, DueEntry, Dump, Edge, Key, Letters, QueueCounts
from kept.stores.sqlite.load import Loader
from kept.stores.sqlite.ranges import text_after
from kept.stores.sqlite.rows import (
    ENTRY_COLUMNS,
    LETTER_COLUMNS,
    MESSAGE_COLUMNS,
    OBJECT_COLUMNS,
    OBJECT_JOINS,
    SCHEDULE_COLUMNS,
    Objects,
    entry_of,
    letter_of,
    message_of,
    schedule_of,
)

# Up to so many matches of a filter are sorted; where there are more, walking by id meets them soon.
MAX_SORTED_MATCHES: Final = 10_000
# The same for the dead letters of a queue, which are counted at each scan.
MAX_SORTED_LETTERS: Final = 2_000

_OBJECTS: Final = f"SELECT {OBJECT_COLUMNS} FROM promises p {OBJECT_JOINS} WHERE p.tenant = :tenant"
_IS_DELAYED: Final = "x.state = 'pending' AND x.delivery = 'pull' AND x.ready = 0"

_DUE_PROMISES: Final = (
    "SELECT tenant, id FROM promises WHERE deadline IS NOT NULL AND deadline <= ? "
    "ORDER BY deadline, seq LIMIT ?"
)


def _due_tasks(condition: str, at: str) -> str:
    return (
        "SELECT p.tenant, p.id FROM tasks x CROSS JOIN promises p ON p.seq = x.seq "
        f"WHERE {condition} AND x.{at} <= ? ORDER BY x.{at}, x.seq LIMIT ?"
    )


_DUE_LEASES: Final = _due_tasks("x.state = 'acquired'", "expires_at")
_DUE_RETRIES: Final = _due_tasks("x.state = 'pending' AND x.delivery = 'push'", "retry_at")
_DUE_READY: Final = _due_tasks(_IS_DELAYED, "retry_at")
_DUE_SCHEDULES: Final = (
    "SELECT tenant, id FROM schedules WHERE paused = 0 AND next_run_at <= ? "
    "ORDER BY next_run_at, tenant, id LIMIT ?"
)
# As the two indexes say it.
_OF_OTHERS: Final = "due_at IS NOT NULL AND kind NOT IN ('retention', 'retiring')"
_OF_TREES: Final = "due_at IS NOT NULL AND kind IN ('retention', 'retiring')"
_DUE_ENTRIES: Final = (
    "SELECT tenant, kind, name FROM entries "
    f"WHERE {_OF_OTHERS} AND due_at <= ? "
    "ORDER BY due_at, tenant, kind, name LIMIT ?"
)
_DUE_TREES: Final = (
    "SELECT tenant, kind, name FROM entries "
    f"WHERE {_OF_TREES} AND due_at <= ? "
    "ORDER BY due_at, tenant, kind, name LIMIT ?"
)
_DRAINS: Final = "SELECT tenant, id FROM promises WHERE undrained = 1 ORDER BY seq LIMIT ?"
_NEXT_DUE: Final = (
    "SELECT min(at) FROM ("
    "SELECT min(deadline) AS at FROM promises WHERE deadline IS NOT NULL "
    "UNION ALL SELECT min(expires_at) FROM tasks WHERE state = 'acquired' "
    "UNION ALL SELECT min(retry_at) FROM tasks WHERE state = 'pending' AND delivery = 'push' "
    f"UNION ALL SELECT min(x.retry_at) FROM tasks x WHERE {_IS_DELAYED} "
    "UNION ALL SELECT min(next_run_at) FROM schedules WHERE paused = 0 "
    f"UNION ALL SELECT min(due_at) FROM entries WHERE {_OF_OTHERS} "
    f"UNION ALL SELECT min(due_at) FROM entries WHERE {_OF_TREES} "
    "UNION ALL SELECT 0 WHERE EXISTS (SELECT 1 FROM promises WHERE undrained = 1))"
)
# Of many open channels, few have something to send.
_DUE_CHANNELS: Final = (
    "SELECT value FROM json_each(?) WHERE EXISTS "
    "(SELECT 1 FROM outbox WHERE channel = value AND due_at <= ?)"
)
_MESSAGE_KEYS: Final = (
    "SELECT due_at, tenant, kind, id, key_address FROM outbox WHERE channel = ? AND due_at <= ? "
    "ORDER BY due_at, tenant, kind, id, key_address LIMIT ?"
)
_MESSAGE: Final = (
    f"SELECT {', '.join('x.' + name for name in MESSAGE_COLUMNS.split(', '))}, {OBJECT_COLUMNS} "
    f"FROM outbox x CROSS JOIN promises p ON p.tenant = x.tenant AND p.id = x.id {OBJECT_JOINS} "
    "WHERE x.tenant = ? AND x.kind = ? AND x.id = ? AND x.key_address = ?"
)
_MESSAGE_END: Final = 1 + MESSAGE_COLUMNS.count(",")
_NEXT_MESSAGE: Final = (
    "SELECT min((SELECT min(due_at) FROM outbox WHERE channel = value)) FROM json_each(?)"
)

_OF_QUEUE: Final = "FROM tasks x WHERE x.tenant = :tenant AND x.queue = :queue"
_IS_READY: Final = "x.state = 'pending' AND x.delivery = 'pull' AND x.ready = 1"
# As the index says it: the planner compares conditions, not meanings.
_IS_PARKED: Final = "x.state IN ('suspended', 'halted') AND x.queue IS NOT NULL"
# What is due and not marked as ready yet counts as due. The oldest is the first by rank, because
# that can be told by the index alone.
_QUEUE_COUNTS: Final = (
    f"SELECT (SELECT count(*) {_OF_QUEUE} AND {_IS_READY}) + "
    f"(SELECT count(*) {_OF_QUEUE} AND {_IS_DELAYED} AND x.retry_at <= :now), "
    f"(SELECT count(*) {_OF_QUEUE} AND {_IS_DELAYED} AND x.retry_at > :now), "
    f"(SELECT count(*) {_OF_QUEUE} AND x.state = 'acquired' AND x.queue IS NOT NULL), "
    f"(SELECT count(*) {_OF_QUEUE} AND {_IS_PARKED} AND x.state = 'suspended'), "
    f"(SELECT count(*) {_OF_QUEUE} AND {_IS_PARKED} AND x.state = 'halted'), "
    "(SELECT count(*) FROM dead_letters WHERE tenant = :tenant AND queue = :queue), "
    "(SELECT min(at) FROM (SELECT retry_at AS at FROM tasks WHERE seq = "
    f"(SELECT seq FROM (SELECT x.seq AS seq, min(x.rank) {_OF_QUEUE} AND {_IS_READY})) "
    f"UNION ALL SELECT min(x.retry_at) {_OF_QUEUE} AND {_IS_DELAYED} AND x.retry_at <= :now))"
)

_COUNTS: Final = (
    ("promises", "SELECT next_seq - 1 - removed FROM meta"),
    ("tasks_acquired", "SELECT count(*) FROM tasks WHERE state = 'acquired'"),
    (
        "tasks_pending",
        "SELECT (SELECT count(*) FROM tasks WHERE state = 'pending' AND delivery = 'push') + "
        "(SELECT count(*) FROM tasks WHERE state = 'pending' AND delivery = 'pull' AND ready = 1) + "
        "(SELECT count(*) FROM tasks WHERE state = 'pending' AND delivery = 'pull' AND ready = 0)",
    ),
    ("schedules", "SELECT count(*) FROM schedules"),
    ("outbox", "SELECT count(*) FROM outbox"),
    ("dead_letters", "SELECT count(*) FROM dead_letters"),
)


def promises(
    connection: sqlite3.Connection,
    tenant: str,
    after: str | None,
    limit: int,
    equals: Mapping[str, str],
) -> list[Promise]:
    """Promises by id, beyond `after`, narrowed by `equals`."""
    values: dict[str, object] = {"tenant": tenant, "limit": limit, **equals}
    conditions = _range(values, after, equals.get("prefix", ""))
    order = "p.id"
    for name in ("origin", "parent", "branch", "function"):
        if name not in equals:
            continue
        # A plus keeps an index from being used: few are best found and then sorted, while of many
        # the first ones are soon met on a walk by id.
        are_few = _are_few(connection, tenant, name, equals[name])
        plus = "" if are_few else "+"
        order = "+p.id" if are_few else order
        if name == "origin":
            # It is stored only where it differs from the id.
            conditions += (
                f" AND ({plus}p.origin = :origin OR (p.id = :origin AND +p.origin IS NULL))"
            )
        else:
            conditions += f" AND {plus}p.{name} = :{name}"
    objects = Objects()
    rows = connection.execute(f"{_OBJECTS}{conditions} ORDER BY {order} LIMIT :limit", values)
    return [objects.promises[id] for id in objects.add(rows)]


def _are_few(connection: sqlite3.Connection, tenant: str, name: str, value: str) -> bool:
    query = f"SELECT count(*) FROM (SELECT 1 FROM promises WHERE tenant = ? AND {name} = ? LIMIT ?)"
    (count,) = connection.execute(query, (tenant, value, MAX_SORTED_MATCHES)).fetchone()
    return bool(count < MAX_SORTED_MATCHES)


def tasks(
    connection: sqlite3.Connection, tenant: str, after: str | None, limit: int, prefix: str
) -> list[tuple[Task, Promise]]:
    """Tasks with their promises by id, beyond `after`."""
    values: dict[str, object] = {"tenant": tenant, "limit": limit}
    conditions = _range(values, after, prefix) + " AND t.seq IS NOT NULL"
    objects = Objects()
    rows = connection.execute(f"{_OBJECTS}{conditions} ORDER BY p.id LIMIT :limit", values)
    return [(objects.tasks[id], objects.promises[id]) for id in objects.add(rows)]


def schedules(
    connection: sqlite3.Connection, tenant: str, after: str | None, limit: int, prefix: str
) -> list[ScheduleRecord]:
    """Schedules by id, beyond `after`."""
    values: dict[str, object] = {"tenant": tenant, "limit": limit}
    conditions = _range(values, after, prefix)
    rows = connection.execute(
        f"SELECT {SCHEDULE_COLUMNS} FROM schedules p "
        f"WHERE p.tenant = :tenant{conditions} ORDER BY p.id LIMIT :limit",
        values,
    )
    return [schedule_of(row) for row in rows]


def dead_letters(
    connection: sqlite3.Connection,
    tenant: str,
    filter: DeadList,
    after: str | None,
    limit: int,
    prefix: str,
    walk: int,
) -> Letters:
    """Matching dead letters by id, beyond `after`."""
    values: dict[str, object] = {"tenant": tenant, "limit": limit}
    matches = _letter_matches(filter, values)
    if filter.queue is not None and _are_few_letters(connection, tenant, filter.queue):
        # The index knows them all; payloads are not sorted with them.
        ids = _range(values, after, prefix, column="+p.id")
        rows = connection.execute(
            f"SELECT {LETTER_COLUMNS} FROM dead_letters WHERE seq IN (SELECT p.seq "
            "FROM dead_letters p WHERE p.tenant = :tenant AND p.queue = :queue"
            f"{matches}{ids} ORDER BY +p.id LIMIT :limit) ORDER BY id",
            values,
        )
        found = [letter_of(row) for row in rows]
        return Letters(found, found[-1].id if len(found) == limit else None)
    condition = f"p.tenant = :tenant{_range(values, after, prefix)}"
    last = _last_walked(connection, condition, {**values, "walk": walk}) if matches else None
    if last is not None:
        values["last"] = last
        condition += " AND p.id <= :last"
    rows = connection.execute(
        f"SELECT {LETTER_COLUMNS} FROM dead_letters p "
        f"WHERE {condition}{matches} ORDER BY p.id LIMIT :limit",
        values,
    )
    found = [letter_of(row) for row in rows]
    return Letters(found, found[-1].id if len(found) == limit else last)


def _letter_matches(filter: DeadList, values: dict[str, object]) -> str:
    """The conditions of a filter; puts what they compare with into `values`."""
    conditions = ""
    for name, condition in (
        ("queue", "+p.queue = :queue"),
        ("function", "p.function = :function"),
        ("reason", "p.reason = :reason"),
        ("since", "p.died_at >= :since"),
        ("until", "p.died_at < :until"),
    ):
        value = getattr(filter, name)
        if value is not None:
            values[name] = value
            conditions += f" AND {condition}"
    return conditions


def _are_few_letters(connection: sqlite3.Connection, tenant: str, queue: str) -> bool:
    query = (
        "SELECT count(*) FROM (SELECT 1 FROM dead_letters WHERE tenant = ? AND queue = ? LIMIT ?)"
    )
    (count,) = connection.execute(query, (tenant, queue, MAX_SORTED_LETTERS)).fetchone()
    return bool(count < MAX_SORTED_LETTERS)


def _last_walked(
    connection: sqlite3.Connection, condition: str, values: dict[str, object]
) -> str | None:
    """The id up to which a walk may look; None where it comes to the end before."""
    query = (
        f"SELECT p.id FROM dead_letters p WHERE {condition} ORDER BY p.id LIMIT 1 OFFSET :walk - 1"
    )
    row = connection.execute(query, values).fetchone()
    return None if row is None else str(row[0])


def entries(
    connection: sqlite3.Connection,
    tenant: str,
    kind: EntryKind,
    after: str | None,
    limit: int,
    prefix: str,
) -> list[Entry]:
    """Entries of a kind by name, beyond `after`."""
    values: dict[str, object] = {"tenant": tenant, "kind": kind.value, "limit": limit}
    conditions = _range(values, after, prefix, column="p.name")
    rows = connection.execute(
        f"SELECT {ENTRY_COLUMNS} FROM entries p WHERE p.tenant = :tenant AND p.kind = :kind"
        f"{conditions} ORDER BY p.name LIMIT :limit",
        values,
    )
    return [entry_of(row) for row in rows]


def children(
    connection: sqlite3.Connection, tenant: str, task_id: str, cursor: str | None, limit: int
) -> Children:
    """A page of a task's preload."""
    with _snapshot(connection):
        return Loader(connection, tenant, Objects()).children(task_id, cursor, limit)


def outbox(
    connection: sqlite3.Connection, now: int, limit: int, channels: Collection[str]
) -> list[tuple[str, OutboxEntry, Promise]]:
    """Messages due by `now` on these channels, oldest first."""
    with _snapshot(connection):
        keys = [
            key
            for (channel,) in connection.execute(_DUE_CHANNELS, (_names(channels), now)).fetchall()
            for key in connection.execute(_MESSAGE_KEYS, (channel, now, limit))
        ]
        found: list[tuple[str, OutboxEntry, Promise]] = []
        for _, tenant, *key in nsmallest(limit, keys):
            objects = Objects()
            for row in connection.execute(_MESSAGE, (tenant, *key)):
                (id,) = objects.add([row[_MESSAGE_END:]])
                found.append((tenant, message_of(row[:_MESSAGE_END]), objects.promises[id]))
    return found


def _names(channels: Collection[str]) -> str:
    return msgspec.json.encode(sorted(channels)).decode()


def next_message(connection: sqlite3.Connection, channels: Collection[str]) -> int | None:
    """The earliest instant at which a message on these channels is due."""
    (at,) = connection.execute(_NEXT_MESSAGE, (_names(channels),)).fetchone()
    assert at is None or isinstance(at, int)
    return at


def due(connection: sqlite3.Connection, now: int, limit: int) -> Due:
    """What is due by `now`, oldest first."""

    def keys(query: str, *values: int) -> list[Key]:
        return [Key(tenant, id) for tenant, id in connection.execute(query, values)]

    def entries(query: str) -> list[DueEntry]:
        return [
            DueEntry(tenant, EntryKey(EntryKind(kind), name))
            for tenant, kind, name in connection.execute(query, (now, limit))
        ]

    return Due(
        deadlines=keys(_DUE_PROMISES, now, limit),
        leases=keys(_DUE_LEASES, now, limit),
        retries=keys(_DUE_RETRIES, now, limit),
        ready=keys(_DUE_READY, now, limit),
        schedules=keys(_DUE_SCHEDULES, now, limit),
        drains=keys(_DRAINS, limit),
        entries=entries(_DUE_ENTRIES),
        trees=entries(_DUE_TREES),
    )


def next_due(connection: sqlite3.Connection) -> int | None:
    """The earliest instant at which something is due."""
    (at,) = connection.execute(_NEXT_DUE).fetchone()
    assert at is None or isinstance(at, int)
    return at


def queue_counts(connection: sqlite3.Connection, tenant: str, queue: str, now: int) -> QueueCounts:
    """How many tasks of a queue are in which state."""
    values = {"tenant": tenant, "queue": queue, "now": now}
    row = connection.execute(_QUEUE_COUNTS, values).fetchone()
    return QueueCounts(*row)


def dump(connection: sqlite3.Connection, tenant: str) -> Dump:
    """Everything a tenant has, as of one moment."""
    key = (tenant,)
    found = Dump()
    objects = Objects()
    with _snapshot(connection):
        objects.add(connection.execute(_OBJECTS, {"tenant": tenant}))
        found.promises, found.tasks = objects.promises, objects.tasks
        for table, of, to, edges in (
            ("callbacks", "awaited", "awaiter", found.callbacks),
            ("listeners", "awaited", "address", found.listeners),
            ("resumes", "task", "awaited", found.resumes),
        ):
            query = f"SELECT p.id, x.{to} FROM promises p JOIN {table} x ON x.{of} = p.seq"
            rows = connection.execute(f"{query} WHERE p.tenant = ?", key)
            edges.update(Edge(of_id, to_id) for of_id, to_id in rows)
        rows = connection.execute(
            "SELECT p.id, x.promise, x.number FROM promises p JOIN releases x ON x.task = p.seq "
            "WHERE p.tenant = ?",
            key,
        )
        found.releases = {Edge(task, promise): number for task, promise, number in rows}
        for row in connection.execute(
            f"SELECT {SCHEDULE_COLUMNS} FROM schedules WHERE tenant = ?", key
        ):
            found.schedules[row[0]] = schedule_of(row)
        for row in connection.execute(
            f"SELECT {MESSAGE_COLUMNS} FROM outbox WHERE tenant = ?", key
        ):
            entry = message_of(row)
            found.outbox[entry.key] = entry
        for row in connection.execute(
            f"SELECT {LETTER_COLUMNS} FROM dead_letters WHERE tenant = ?", key
        ):
            found.dead_letters[row[0]] = letter_of(row)
        for row in connection.execute(f"SELECT {ENTRY_COLUMNS} FROM entries WHERE tenant = ?", key):
            kept = entry_of(row)
            found.entries[kept.key] = kept
    return found


def counts(connection: sqlite3.Connection) -> dict[str, int]:
    """Numbers for metrics."""
    return {name: connection.execute(query).fetchone()[0] for name, query in _COUNTS}


@contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Several queries see the same moment."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("COMMIT")


def _range(values: dict[str, object], after: str | None, prefix: str, column: str = "p.id") -> str:
    """The condition on a column; puts what it compares with into `values`."""
    condition = ""
    if after is not None:
        values["after"] = after
        condition += f" AND {column} > :after"
    if prefix:
        values["prefix"] = prefix
        condition += f" AND {column} >= :prefix"
        end = text_after(prefix)
        if end is not None:
            values["prefix_end"] = end
            condition += f" AND {column} < :prefix_end"
    return condition
