"""What an operator asks about: each question is answered by few seeks in an index, or it says that
it did not look at everything."""

from __future__ import annotations

import sqlite3
from typing import Final

from kept.protocol.limits import MAX_CALLBACKS_WALKED
from kept.protocol.storage import Awaited, Holder, Slots

# The conditions of partial indexes, as those say it: the planner compares conditions, not meanings.
_LINES: Final = (
    ("tasks", "state = 'pending' AND delivery = 'pull' AND ready = 1"),
    ("tasks", "state = 'pending' AND delivery = 'pull' AND ready = 0"),
    ("tasks", "state = 'acquired' AND queue IS NOT NULL"),
    ("tasks", "state IN ('suspended', 'halted') AND queue IS NOT NULL"),
    ("dead_letters", "queue IS NOT NULL"),
)
_IS_READY: Final = "state = 'pending' AND delivery = 'pull' AND ready = 1"
# From one function to the next by a seek each, however many tasks they have.
_FUNCTIONS: Final = (
    "WITH RECURSIVE f (name) AS ("
    f"SELECT min(function) FROM tasks WHERE tenant = :tenant AND queue = :queue AND {_IS_READY} "
    "UNION ALL SELECT (SELECT min(function) FROM tasks "
    f"WHERE tenant = :tenant AND queue = :queue AND function > f.name AND {_IS_READY}) "
    "FROM f WHERE f.name IS NOT NULL) "
    "SELECT name FROM f WHERE name IS NOT NULL UNION ALL SELECT NULL"
)
_BEFORE: Final = (
    "SELECT count(*) FROM (SELECT 1 FROM tasks WHERE tenant = :tenant AND queue = :queue "
    f"AND function IS :function AND lane IS :lane AND {_IS_READY} "
    "AND rank <= :rank AND (rank < :rank OR seq < :seq) LIMIT :limit)"
)
_AWAITED_CHILDREN: Final = (
    "SELECT p.id FROM promises p JOIN callbacks c ON c.awaited = p.seq AND c.awaiter = :id "
    "WHERE p.tenant = :tenant AND p.parent = :id ORDER BY p.id LIMIT :limit"
)
_AWAITED: Final = (
    "SELECT p.id FROM (SELECT awaited, awaiter FROM callbacks LIMIT :walked) c "
    "JOIN promises p ON p.seq = c.awaited WHERE c.awaiter = :id AND p.tenant = :tenant "
    "ORDER BY p.id LIMIT :limit"
)


def queue_names(connection: sqlite3.Connection, limit: int) -> list[tuple[str, str]]:
    """Queues with their tenants, in order."""
    found: set[tuple[str, str]] = set()
    for table, condition in _LINES:
        last = ("", "")
        for _ in range(limit):
            following = _next_queue(connection, f"FROM {table} WHERE {condition}", *last)
            if following is None:
                break
            found.add(last := following)
    return sorted(found)[:limit]


def _next_queue(
    connection: sqlite3.Connection, of: str, tenant: str, queue: str
) -> tuple[str, str] | None:
    """The queue that comes after one, by a seek within its tenant, or to the next tenant: an index
    does not serve a comparison of both columns at once."""
    for condition, values in (
        ("tenant = ? AND queue > ?", (tenant, queue)),
        ("tenant > ?", (tenant,)),
    ):
        query = f"SELECT tenant, queue {of} AND {condition} ORDER BY tenant, queue LIMIT 1"
        row = connection.execute(query, values).fetchone()
        if row is not None:
            return row[0], row[1]
    return None


def worker_leases(connection: sqlite3.Connection, limit: int) -> dict[str, int]:
    """How many tasks each worker holds."""
    query = (
        "SELECT pid, count(*) FROM (SELECT pid FROM tasks WHERE state = 'acquired' "
        "ORDER BY expires_at LIMIT ?) GROUP BY pid"
    )
    return dict(connection.execute(query, (limit,)).fetchall())


def holders(connection: sqlite3.Connection, tenant: str, slots: Slots, limit: int) -> list[Holder]:
    """Who holds tasks of a queue, or of a lane."""
    lane = "" if slots.lane is None else "AND x.lane = :lane "
    query = (
        "SELECT p.id, x.pid, x.expires_at FROM tasks x CROSS JOIN promises p ON p.seq = x.seq "
        "WHERE x.tenant = :tenant AND x.queue = :queue AND x.state = 'acquired' "
        f"AND x.queue IS NOT NULL {lane}ORDER BY x.lane, x.seq LIMIT :limit"
    )
    values = {"tenant": tenant, "queue": slots.queue, "lane": slots.lane, "limit": limit}
    return [Holder(*row) for row in connection.execute(query, values)]


def count_before(connection: sqlite3.Connection, tenant: str, id: str, limit: int) -> int:
    """How many ready tasks of its queue and lane come before a ready task."""
    row = connection.execute(
        "SELECT x.queue, x.lane, x.rank, x.seq FROM promises p JOIN tasks x ON x.seq = p.seq "
        "WHERE p.tenant = ? AND p.id = ?",
        (tenant, id),
    ).fetchone()
    values = dict(zip(("queue", "lane", "rank", "seq"), row, strict=True))
    values |= {"tenant": tenant}
    count = 0
    for (function,) in connection.execute(_FUNCTIONS, values).fetchall():
        values |= {"function": function, "limit": limit - count}
        count += connection.execute(_BEFORE, values).fetchone()[0]
        if count >= limit:
            break
    return count


def awaited_by(connection: sqlite3.Connection, tenant: str, id: str, limit: int) -> Awaited:
    """Promises for which a task has a callback. They are found by what is awaited, so all callbacks
    are looked through while there are few; of many, those among a task's children."""
    walked = MAX_CALLBACKS_WALKED
    few = "SELECT count(*) FROM (SELECT 1 FROM callbacks LIMIT ?)"
    (count,) = connection.execute(few, (walked + 1,)).fetchone()
    values = {"tenant": tenant, "id": id, "limit": limit + 1, "walked": walked}
    query = _AWAITED if count <= walked else _AWAITED_CHILDREN
    ids = [row[0] for row in connection.execute(query, values)]
    return Awaited(ids[:limit], count <= walked and len(ids) <= limit)
