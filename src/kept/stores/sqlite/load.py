"""What a transaction loads: one query for each table and round, whatever the size of the batch."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable
from typing import Final

import msgspec

from kept.protocol.entries import EntryKind
from kept.protocol.limits import MAX_CHILDREN_WALKED, MAX_EDGES_PER_STEP, MAX_PRELOAD_RECORDS
from kept.protocol.storage import (
    ChildPage,
    Children,
    Head,
    Loaded,
    PendingChildren,
    Reads,
)
from kept.stores.paging import page_of, position_of
from kept.stores.sqlite import trees
from kept.stores.sqlite.heads import Fronts
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

_encode: Final = msgspec.json.Encoder().encode

_BY_ID: Final = (
    f"SELECT {OBJECT_COLUMNS} FROM json_each(?) j "
    f"CROSS JOIN promises p ON p.tenant = ? AND p.id = j.value {OBJECT_JOINS}"
)
_BY_SEQ: Final = (
    f"SELECT {OBJECT_COLUMNS} FROM json_each(?) j "
    f"CROSS JOIN promises p ON p.seq = j.value {OBJECT_JOINS}"
)
_SEQS: Final = (
    "SELECT p.id, p.seq FROM json_each(?) j "
    "CROSS JOIN promises p ON p.tenant = ? AND p.id = j.value"
)
_BY_REQUEST: Final = (
    f"SELECT {OBJECT_COLUMNS} FROM tasks x CROSS JOIN promises p ON p.seq = x.seq {OBJECT_JOINS} "
    "WHERE x.tenant = ? AND x.last_request = ? ORDER BY p.id"
)
# For each seq whether it has callbacks, whether listeners: mostly there are none.
_HAS_EDGES: Final = (
    "SELECT value, EXISTS (SELECT 1 FROM callbacks WHERE awaited = value), "
    "EXISTS (SELECT 1 FROM listeners WHERE awaited = value) FROM json_each(?)"
)
_CALLBACKS: Final = "SELECT awaiter FROM callbacks WHERE awaited = ? ORDER BY awaiter LIMIT ?"
_LISTENERS: Final = "SELECT address FROM listeners WHERE awaited = ? ORDER BY address LIMIT ?"

_RELEASED: Final = (
    f"SELECT {OBJECT_COLUMNS} FROM releases x "
    f"CROSS JOIN promises p ON p.tenant = ? AND p.id = x.promise {OBJECT_JOINS} "
    "WHERE x.task = ? AND x.number > ? ORDER BY x.number LIMIT ?"
)
_RELEASE_NUMBER: Final = "SELECT number FROM releases WHERE task = ? AND promise = ?"
_OTHERS: Final = (
    f"SELECT {OBJECT_COLUMNS} FROM promises p {OBJECT_JOINS} "
    "WHERE p.tenant = ?1 AND p.parent = ?2 AND p.id > ?3 AND p.id <> ?2 "
    "AND NOT EXISTS (SELECT 1 FROM releases WHERE task = ?4 AND promise = p.id) "
    "UNION ALL "
    f"SELECT {OBJECT_COLUMNS} FROM promises p {OBJECT_JOINS} "
    "WHERE p.tenant = ?1 AND p.branch = ?2 AND p.id > ?3 "
    "AND p.branch <> p.id AND p.branch IS NOT p.parent "
    "AND NOT EXISTS (SELECT 1 FROM releases WHERE task = ?4 AND promise = p.id) "
    "ORDER BY 2 LIMIT ?5"
)

# Walks along the index by parent; what is settled costs a look, so the walk has an end.
_PENDING_CHILDREN: Final = (
    "SELECT id, state FROM promises WHERE tenant = ? AND parent = ? AND id > ? ORDER BY id LIMIT ?"
)

_SCHEDULES: Final = (
    f"SELECT {SCHEDULE_COLUMNS} FROM schedules WHERE tenant = ? "
    "AND id IN (SELECT value FROM json_each(?))"
)
_MESSAGE: Final = (
    f"SELECT {MESSAGE_COLUMNS} FROM outbox "
    "WHERE tenant = ? AND kind = ? AND id = ? AND key_address = ?"
)
_ENTRIES: Final = (
    f"SELECT {ENTRY_COLUMNS} FROM json_each(?) j "
    "CROSS JOIN entries x ON x.tenant = ? AND x.kind = ? AND x.name = j.value"
)
_LETTERS: Final = (
    f"SELECT {LETTER_COLUMNS} FROM dead_letters WHERE tenant = ? "
    "AND id IN (SELECT value FROM json_each(?))"
)


class Loader:
    """Reads of one tenant on one connection. `objects` gathers all that was read, with its seq."""

    def __init__(self, connection: sqlite3.Connection, tenant: str, objects: Objects) -> None:
        self._connection = connection
        self._tenant = tenant
        self._objects = objects

    def load(self, reads: Reads, now: int) -> Loaded:
        """The records under the keys of `reads`."""
        loaded = Loaded()
        if reads.heads or reads.lanes or reads.fronts or reads.slots or reads.depths:
            self._load_heads(reads, now, loaded)
        for request in sorted(reads.requests):
            rows = self._connection.execute(_BY_REQUEST, (self._tenant, request))
            loaded.requests[request] = self._take(rows, loaded)
        for id in sorted(reads.children):
            page = self.children(id, None, MAX_PRELOAD_RECORDS)
            loaded.children[id] = page
            self._put((child.id for child in (*page.released, *page.others)), loaded)
        for wanted in sorted(reads.pending_children):
            loaded.pending_children[wanted] = self._pending_children(wanted, loaded)
        if reads.objects:
            self._load_objects(reads.objects, loaded)
        if reads.edges:
            self._load_edges(sorted(reads.edges), loaded)
        self._load_rest(reads, loaded)
        return loaded

    def _load_objects(self, ids: Collection[str], loaded: Loaded) -> None:
        order = sorted(ids)
        rows = self._connection.execute(_BY_ID, (_text(order), self._tenant))
        if len(self._take(rows, loaded)) < len(order):
            for id in order:
                loaded.promises.setdefault(id, None)
                loaded.tasks.setdefault(id, None)

    def _take(self, rows: Iterable[tuple[object, ...]], loaded: Loaded) -> list[str]:
        ids = self._objects.add(rows)
        self._put(ids, loaded)
        return ids

    def _put(self, ids: Iterable[str], loaded: Loaded) -> None:
        promises, tasks = self._objects.promises, self._objects.tasks
        for id in ids:
            loaded.promises[id] = promises[id]
            loaded.tasks[id] = tasks.get(id)

    # -- edges -----------------------------------------------------------------------------------

    def seqs_of(self, ids: Iterable[str]) -> dict[str, int]:
        """The seq of each promise that exists."""
        known = self._objects.seqs
        unknown = [id for id in ids if id not in known]
        if unknown:
            known.update(self._connection.execute(_SEQS, (_text(unknown), self._tenant)))
        return known

    def _load_edges(self, ids: list[str], loaded: Loaded) -> None:
        seqs = self.seqs_of(ids)
        by_seq: dict[int, str] = {}
        for id in ids:
            loaded.callbacks[id] = []
            loaded.listeners[id] = []
            if id in seqs:
                by_seq[seqs[id]] = id
        for seq, callbacks, listeners in self._connection.execute(
            _HAS_EDGES, (_text(list(by_seq)),)
        ).fetchall():
            id = by_seq[seq]
            if callbacks:
                loaded.callbacks[id] = self._edges(_CALLBACKS, seq, id, loaded)
            if listeners:
                loaded.listeners[id] = self._edges(_LISTENERS, seq, id, loaded)

    def _edges(self, query: str, seq: int, id: str, loaded: Loaded) -> list[str]:
        rows = self._connection.execute(query, (seq, MAX_EDGES_PER_STEP + 1)).fetchall()
        if len(rows) > MAX_EDGES_PER_STEP:
            loaded.more_edges.add(id)
            del rows[MAX_EDGES_PER_STEP:]
        return [to for (to,) in rows]

    # -- heads -----------------------------------------------------------------------------------

    def _load_heads(self, reads: Reads, now: int, loaded: Loaded) -> None:
        look = Fronts(self._connection, self._tenant)
        heads: dict[Head, list[int]] = {}
        for head, count in reads.heads.items():
            heads[head], laned = look.head(head, count, now)
            if laned:
                loaded.laned.add(head)
        fronts = look.fronts(reads.fronts)
        # Distinct, and in the order in which they lie in the file.
        wanted = {seq for each in (heads, fronts) for order in each.values() for seq in order}
        seqs = sorted(wanted)
        ids = self._take(self._connection.execute(_BY_SEQ, (_text(seqs),)), loaded)
        by_seq = dict(zip(seqs, ids, strict=True))
        for head, order in heads.items():
            loaded.heads[head] = [by_seq[seq] for seq in order]
        for front, order in fronts.items():
            loaded.fronts[front] = [by_seq[seq] for seq in order]
        for head, span in reads.lanes.items():
            loaded.lanes[head] = look.lanes(head, span)
        if reads.slots:
            loaded.slots.update(look.acquired(reads.slots))
        loaded.depths.update((queue, look.depth(queue)) for queue in reads.depths)

    # -- children --------------------------------------------------------------------------------

    def children(self, task_id: str, cursor: str | None, limit: int) -> Children:
        """A page of a task's preload."""
        position = position_of(cursor)
        task = self.seqs_of([task_id]).get(task_id, -1)
        number, after = -1, ""
        released: Iterable[str] = ()
        if position.released:
            if position.after is not None:
                row = self._connection.execute(_RELEASE_NUMBER, (task, position.after)).fetchone()
                number = row[0] if row else -1
            key = (self._tenant, task, number, limit + 1)
            released = self._objects.add(self._connection.execute(_RELEASED, key))
        else:
            after = position.after or ""
        others = self._objects.add(
            self._connection.execute(_OTHERS, (self._tenant, task_id, after, task, limit + 1))
        )
        promises = self._objects.promises
        return page_of((promises[id] for id in released), (promises[id] for id in others), limit)

    def _pending_children(self, wanted: ChildPage, loaded: Loaded) -> PendingChildren:
        parent, after, limit = wanted
        found: list[str] = []
        walked = 0
        last = after
        rows = self._connection.execute(
            _PENDING_CHILDREN, (self._tenant, parent, after, MAX_CHILDREN_WALKED + 1)
        )
        more: str | None = None
        for id, state in rows:
            if len(found) == limit or walked == MAX_CHILDREN_WALKED:
                more = last
                break
            walked, last = walked + 1, id
            if state == "pending" and id != parent:
                found.append(id)
        rows.close()
        self._load_objects(found, loaded)
        return PendingChildren(found, more)

    # -- the rest --------------------------------------------------------------------------------

    def _load_rest(self, reads: Reads, loaded: Loaded) -> None:
        execute, tenant = self._connection.execute, self._tenant
        if reads.schedules:
            ids = sorted(reads.schedules)
            loaded.schedules.update(dict.fromkeys(ids))
            for row in execute(_SCHEDULES, (tenant, _text(ids))):
                loaded.schedules[row[0]] = schedule_of(row)
        for key in sorted(reads.messages):
            row = execute(_MESSAGE, (tenant, key.kind.value, key.id, key.address)).fetchone()
            loaded.messages[key] = message_of(row) if row else None
        names: dict[EntryKind, list[str]] = {}
        for entry_key in sorted(reads.entries):
            loaded.entries[entry_key] = None
            names.setdefault(entry_key.kind, []).append(entry_key.name)
        for kind, of_kind in names.items():
            for row in execute(_ENTRIES, (_text(of_kind), tenant, kind.value)):
                entry = entry_of(row)
                loaded.entries[entry.key] = entry
        for prefix in sorted(reads.entry_prefixes):
            loaded.entry_prefixes[prefix] = trees.entry_keys(self._connection, tenant, prefix)
        for page in sorted(reads.trees, key=str):
            loaded.trees[page] = trees.members(self._connection, tenant, page)
        if reads.dead_letters:
            ids = sorted(reads.dead_letters)
            loaded.dead_letters.update(dict.fromkeys(ids))
            for row in execute(_LETTERS, (tenant, _text(ids))):
                loaded.dead_letters[row[0]] = letter_of(row)


def _text(keys: list[str] | list[int]) -> str:
    return _encode(keys).decode()
