"""Trees: the promises of an origin, and what names them (protocol B6)."""

from __future__ import annotations

import sqlite3
from typing import Final

from kept.protocol.entries import EntryKey
from kept.protocol.storage import EntryPrefix, Member, Members, TreePage
from kept.stores.sqlite.ranges import text_after
from kept.stores.sqlite.rows import PROMISE_STATES, Row, pairs_of

# Whatever begins at the promise or its task, or ends there; a message; a dead letter.
_NAMED: Final = " OR ".join(
    f"EXISTS (SELECT 1 FROM {names})"
    for names in (
        "callbacks WHERE awaited = p.seq",
        "listeners WHERE awaited = p.seq",
        "resumes WHERE task = p.seq",
        "callbacks c CROSS JOIN promises q ON q.seq = c.awaited "
        "WHERE c.awaiter = p.id AND q.tenant = p.tenant",
        "resumes r CROSS JOIN promises q ON q.seq = r.task "
        "WHERE r.awaited = p.id AND q.tenant = p.tenant",
        "outbox WHERE tenant = p.tenant AND kind IN ('execute', 'unblock') AND id = p.id",
        "dead_letters WHERE tenant = p.tenant AND id = p.id",
    )
)
_PARENT_PENDING: Final = (
    "EXISTS (SELECT 1 FROM promises q WHERE q.tenant = p.tenant AND q.id IN (p.parent, p.branch) "
    "AND q.id <> p.id AND q.state = 'pending')"
)
_MEMBERS: Final = (
    "SELECT p.id, p.state, p.timeout_at, p.created_at, p.settled_at, p.tags, t.version, "
    f"{_NAMED}, {_PARENT_PENDING} FROM promises p LEFT JOIN tasks t ON t.seq = p.seq "
    "WHERE p.tenant = ?"
)
# By the index on origins, in which those of one origin are in the order of their birth.
_YOUNGEST: Final = f"{_MEMBERS} AND p.origin = ? AND p.seq < ? ORDER BY p.seq DESC LIMIT ?"
_ROOT: Final = f"{_MEMBERS} AND p.id = ? AND p.origin IS NULL"
_SEQ: Final = "SELECT seq FROM promises WHERE tenant = ? AND id = ?"
_LAST_SEQ: Final = (1 << 63) - 1


def members(connection: sqlite3.Connection, tenant: str, page: TreePage) -> Members:
    """A page of the promises of an origin, the youngest first and its own last."""
    until = _LAST_SEQ
    if page.before is not None:
        row = connection.execute(_SEQ, (tenant, page.before)).fetchone()
        if row is not None and page.before == page.origin:
            return Members([], more=False)
        until = row[0] if row is not None else until
    key = (tenant, page.origin, until, page.limit + 1)
    rows = connection.execute(_YOUNGEST, key).fetchall()
    if len(rows) <= page.limit:
        rows += connection.execute(_ROOT, (tenant, page.origin))
    return Members([_member(row) for row in rows[: page.limit]], len(rows) > page.limit)


def _member(row: Row) -> Member:
    (id, state, timeout_at, created_at, settled_at, tags, version, named, parent_pending) = row
    return Member(
        id,
        PROMISE_STATES[state],
        timeout_at,
        created_at,
        settled_at,
        pairs_of(tags),
        version,
        named == 1,
        parent_pending == 1,
    )


def entry_keys(connection: sqlite3.Connection, tenant: str, wanted: EntryPrefix) -> list[EntryKey]:
    """The first entries of a kind whose names begin alike."""
    kind, prefix, limit = wanted
    end = text_after(prefix)
    query = "SELECT name FROM entries WHERE tenant = ? AND kind = ? AND name >= ?"
    values: list[object] = [tenant, kind.value, prefix]
    if end is not None:
        query += " AND name < ?"
        values.append(end)
    rows = connection.execute(f"{query} ORDER BY name LIMIT ?", (*values, limit))
    return [EntryKey(kind, name) for (name,) in rows]
