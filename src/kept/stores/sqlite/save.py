"""What a transaction saves: one statement for each table, run over all rows of the batch."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Final

from kept.errors import StoreFailedError
from kept.protocol.records import Promise, Task, Value
from kept.protocol.storage import Changes, Edge
from kept.stores.sqlite.load import Loader
from kept.stores.sqlite.rows import (
    Objects,
    Row,
    entry_row,
    letter_row,
    message_row,
    progress_row,
    promise_row,
    schedule_row,
    task_row,
    text_of,
)

_PROMISE_COLUMNS: Final = (
    "tenant, id, state, timeout_at, deadline, created_at, settled_at, tags, origin, parent, "
    "branch, function, cancel_requested_at"
)
_TASK_COLUMNS: Final = (
    "tenant, state, version, resumes, ttl, pid, expires_at, retry_at, delivery, queue, lane, "
    "function, ready, rank, failures, releases, last_request, last_answer"
)
# What changes as a task is worked on; the columns not in here say what it is and where it waits.
_PROGRESS_COLUMNS: Final = (
    "state, version, resumes, ttl, pid, expires_at, retry_at, ready, rank, failures, releases, "
    "last_request, last_answer"
)
_SCHEDULE_COLUMNS: Final = (
    "tenant, id, cron, promise_id, promise_timeout, param_headers, param_data, promise_tags, "
    "created_at, next_run_at, last_run_at, every_ms, zone, jitter_ms, overlap, catchup, paused"
)
_LETTER_COLUMNS: Final = (
    "tenant, id, queue, function, reason, error_headers, error_data, failures, created_at, "
    "died_at, halted, param_headers, param_data, tags, replays"
)


def _insert(table: str, columns: str) -> str:
    marks = ", ".join("?" * (columns.count(",") + 1))
    return f"INSERT INTO {table} ({columns}) VALUES ({marks})"


def _update(table: str, columns: str) -> str:
    return f"UPDATE {table} SET {columns.replace(',', ' = ?,')} = ? WHERE seq = ?"


def _replace_by_id(table: str, columns: str) -> str:
    names = columns.split(", ")[2:]
    settings = ", ".join(f"{name} = excluded.{name}" for name in names)
    return f"{_insert(table, columns)} ON CONFLICT (tenant, id) DO UPDATE SET {settings}"


_BEAR_PROMISE: Final = _insert("promises", f"{_PROMISE_COLUMNS}, seq")
_REPLACE_PROMISE: Final = _update("promises", _PROMISE_COLUMNS)
# A settlement changes nothing else, so no other index is touched.
_SETTLE_PROMISE: Final = "UPDATE promises SET state = ?, deadline = ?, settled_at = ? WHERE seq = ?"
_MARK_UNDRAINED: Final = "UPDATE promises SET undrained = ? WHERE seq = ?"
_BEAR_TASK: Final = _insert("tasks", f"{_TASK_COLUMNS}, seq")
_REPLACE_TASK: Final = _update("tasks", _TASK_COLUMNS)
_ADVANCE_TASK: Final = _update("tasks", _PROGRESS_COLUMNS)
_PUT_PARAM: Final = "INSERT OR REPLACE INTO params (seq, headers, data) VALUES (?, ?, ?)"
_PUT_RESULT: Final = "INSERT OR REPLACE INTO results (seq, headers, data) VALUES (?, ?, ?)"
_DROP_PARAM: Final = "DELETE FROM params WHERE seq = ?"
_DROP_RESULT: Final = "DELETE FROM results WHERE seq = ?"

_ADD_CALLBACK: Final = "INSERT OR IGNORE INTO callbacks (awaited, awaiter) VALUES (?, ?)"
_DROP_CALLBACK: Final = "DELETE FROM callbacks WHERE awaited = ? AND awaiter = ?"
_ADD_LISTENER: Final = "INSERT OR IGNORE INTO listeners (awaited, address) VALUES (?, ?)"
_DROP_LISTENER: Final = "DELETE FROM listeners WHERE awaited = ? AND address = ?"
_ADD_RESUME: Final = "INSERT OR IGNORE INTO resumes (task, awaited) VALUES (?, ?)"
_DROP_RESUME: Final = "DELETE FROM resumes WHERE task = ? AND awaited = ?"
_CLEAR_RESUMES: Final = "DELETE FROM resumes WHERE task = ?"
_PUT_RELEASE: Final = (
    "INSERT INTO releases (task, promise, number) VALUES (?, ?, ?) "
    "ON CONFLICT (task, promise) DO NOTHING"
)

_PUT_SCHEDULE: Final = _replace_by_id("schedules", _SCHEDULE_COLUMNS)
_DROP_SCHEDULE: Final = "DELETE FROM schedules WHERE tenant = ? AND id = ?"
_PUT_MESSAGE: Final = (
    "INSERT OR REPLACE INTO outbox "
    "(tenant, kind, id, key_address, address, channel, version, due_at, tries) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_DROP_MESSAGE: Final = (
    "DELETE FROM outbox WHERE tenant = ? AND kind = ? AND id = ? AND key_address = ?"
)
_PUT_LETTER: Final = _replace_by_id("dead_letters", _LETTER_COLUMNS)
_PUT_ENTRY: Final = (
    "INSERT OR REPLACE INTO entries (tenant, kind, name, data, due_at) VALUES (?, ?, ?, ?, ?)"
)
_DROP_ENTRY: Final = "DELETE FROM entries WHERE tenant = ? AND kind = ? AND name = ?"
_DROP_LETTER: Final = "DELETE FROM dead_letters WHERE tenant = ? AND id = ?"

_OF_TENANT: Final = "IN (SELECT seq FROM promises WHERE tenant = ?)"
# What hangs on a promise's seq goes before the promise.
_HANGING: Final = (
    ("callbacks", "awaited"),
    ("listeners", "awaited"),
    ("resumes", "task"),
    ("releases", "task"),
    ("params", "seq"),
    ("results", "seq"),
    ("tasks", "seq"),
)
_REMOVE: Final = (
    *(f"DELETE FROM {table} WHERE {key} = ?" for table, key in _HANGING),
    "DELETE FROM promises WHERE seq = ?",
)
_COUNT_REMOVED: Final = "UPDATE meta SET removed = removed + ? WHERE one = 1"
_RESET: Final = (
    *(f"DELETE FROM {table} WHERE {key} {_OF_TENANT}" for table, key in _HANGING),
    *(
        f"DELETE FROM {table} WHERE tenant = ?"
        for table in ("promises", "schedules", "outbox", "dead_letters", "entries")
    ),
)


class Saver:
    """Writes of one tenant on one connection. What `objects` knows of stored records decides how
    little must be written."""

    def __init__(
        self, connection: sqlite3.Connection, tenant: str, objects: Objects, loader: Loader
    ) -> None:
        self._connection = connection
        self._tenant = tenant
        self._objects = objects
        self._loader = loader

    def save(self, changes: Changes, next_seq: int) -> int:
        """Writes the changes; numbers born promises from `next_seq` on and answers the next one."""
        if changes.reset:
            self._reset()
        if changes.removed:
            self._remove(sorted(changes.removed))
        if changes.promises:
            next_seq = self._save_promises(changes, next_seq)
        if changes.tasks:
            self._save_tasks(changes)
        self._save_edges(changes)
        self._save_rest(changes)
        return next_seq

    def _run(self, statement: str, rows: list[Row]) -> None:
        if rows:
            self._connection.executemany(statement, rows)

    def _reset(self) -> None:
        for statement in _RESET:
            gone = self._connection.execute(statement, (self._tenant,)).rowcount
            if statement.startswith("DELETE FROM promises "):
                self._connection.execute(_COUNT_REMOVED, (gone,))
        self._objects.forget()

    def _remove(self, ids: list[str]) -> None:
        known = self._loader.seqs_of(ids)
        rows: list[Row] = [(known[id],) for id in ids if id in known]
        for statement in _REMOVE:
            self._run(statement, rows)
        self._connection.execute(_COUNT_REMOVED, (len(rows),))
        for id in ids:
            self._objects.forget_one(id)

    # -- promises and tasks ----------------------------------------------------------------------

    def _save_promises(self, changes: Changes, next_seq: int) -> int:
        born: list[Row] = []
        params: list[Row] = []
        results: list[Row] = []
        others: list[Promise] = []
        known = self._objects
        for id, promise in changes.promises.items():
            if id in changes.born_promises:
                known.seqs[id] = next_seq
                known.promises[id] = promise
                born.append(promise_row(self._tenant, promise, next_seq))
                _add_payload(params, next_seq, promise.param)
                _add_payload(results, next_seq, promise.value)
                next_seq += 1
            else:
                others.append(promise)
        self._run(_BEAR_PROMISE, born)
        self._run(_PUT_PARAM, params)
        self._run(_PUT_RESULT, results)
        if others:
            self._replace_promises(others)
        return next_seq

    def _replace_promises(self, promises: list[Promise]) -> None:
        settled: list[Row] = []
        replaced: list[Row] = []
        results: list[Row] = []
        known = self._objects
        seqs = self._seqs_of(promise.id for promise in promises)
        for promise in promises:
            seq = seqs[promise.id]
            before = known.promises.get(promise.id)
            if before is None or not _is_settlement(before, promise):
                replaced.append(promise_row(self._tenant, promise, seq))
                self._replace_payloads(seq, promise)
            else:
                settled.append(
                    (promise.state._value_, promise.armed_deadline, promise.settled_at, seq)
                )
                _add_payload(results, seq, promise.value)
            known.promises[promise.id] = promise
        self._run(_SETTLE_PROMISE, settled)
        self._run(_REPLACE_PROMISE, replaced)
        self._run(_PUT_RESULT, results)

    def _replace_payloads(self, seq: int, promise: Promise) -> None:
        for value, put, drop in (
            (promise.param, _PUT_PARAM, _DROP_PARAM),
            (promise.value, _PUT_RESULT, _DROP_RESULT),
        ):
            rows: list[Row] = []
            _add_payload(rows, seq, value)
            self._run(put, rows)
            if not rows:
                self._connection.execute(drop, (seq,))

    def _save_tasks(self, changes: Changes) -> None:
        born: list[Row] = []
        replaced: list[Row] = []
        advanced: list[Row] = []
        known = self._objects.tasks
        seqs = self._seqs_of(changes.tasks)
        for id, task in changes.tasks.items():
            before = known.get(id)
            known[id] = task
            if id in changes.born_tasks:
                born.append(task_row(self._tenant, task, seqs[id]))
            elif before is None or not _is_progress(before, task):
                replaced.append(task_row(self._tenant, task, seqs[id]))
            else:
                advanced.append(progress_row(task, seqs[id]))
        self._run(_BEAR_TASK, born)
        self._run(_REPLACE_TASK, replaced)
        self._run(_ADVANCE_TASK, advanced)

    def _seqs_of(self, ids: Iterable[str]) -> Mapping[str, int]:
        wanted = list(ids)
        seqs = self._loader.seqs_of(wanted)
        for id in wanted:
            if id not in seqs:
                raise StoreFailedError(f"a change names the promise {id!r}, which is not stored")
        return seqs

    # -- edges -----------------------------------------------------------------------------------

    def _save_edges(self, changes: Changes) -> None:
        if changes.resumes_cleared:
            seqs = self._seqs_of(changes.resumes_cleared)
            self._run(_CLEAR_RESUMES, [(seqs[id],) for id in sorted(changes.resumes_cleared)])
        for edges, add, drop in (
            (changes.callbacks, _ADD_CALLBACK, _DROP_CALLBACK),
            (changes.listeners, _ADD_LISTENER, _DROP_LISTENER),
            (changes.resumes, _ADD_RESUME, _DROP_RESUME),
        ):
            if edges:
                self._put_edges(edges, add, drop)
        if changes.releases:
            seqs = self._seqs_of(edge.of for edge in changes.releases)
            rows: list[Row] = [
                (seqs[of], to, number) for (of, to), number in changes.releases.items()
            ]
            self._run(_PUT_RELEASE, rows)
        if changes.undrained:
            seqs = self._seqs_of(changes.undrained)
            self._run(
                _MARK_UNDRAINED,
                [(is_so or None, seqs[id]) for id, is_so in changes.undrained.items()],
            )

    def _put_edges(self, edges: Mapping[Edge, bool], add: str, drop: str) -> None:
        seqs = self._seqs_of(edge.of for edge in edges)
        added: list[Row] = []
        dropped: list[Row] = []
        for (of, to), present in edges.items():
            (added if present else dropped).append((seqs[of], to))
        self._run(drop, dropped)
        self._run(add, added)

    # -- the rest --------------------------------------------------------------------------------

    def _save_rest(self, changes: Changes) -> None:
        tenant = self._tenant
        if changes.schedules:
            gone = [(tenant, id) for id, kept in changes.schedules.items() if kept is None]
            self._run(_DROP_SCHEDULE, [*gone])
            there = [schedule_row(tenant, kept) for kept in changes.schedules.values() if kept]
            self._run(_PUT_SCHEDULE, there)
        if changes.outbox:
            keys = [key for key, entry in changes.outbox.items() if entry is None]
            self._run(_DROP_MESSAGE, [(tenant, k.kind.value, k.id, k.address) for k in keys])
            entries = [message_row(tenant, entry) for entry in changes.outbox.values() if entry]
            self._run(_PUT_MESSAGE, entries)
        if changes.dead_letters:
            gone = [(tenant, id) for id, letter in changes.dead_letters.items() if letter is None]
            self._run(_DROP_LETTER, [*gone])
            letters = [letter_row(tenant, kept) for kept in changes.dead_letters.values() if kept]
            self._run(_PUT_LETTER, letters)
        if changes.entries:
            dropped = [key for key, entry in changes.entries.items() if entry is None]
            self._run(_DROP_ENTRY, [(tenant, key.kind.value, key.name) for key in dropped])
            put = [entry_row(tenant, entry) for entry in changes.entries.values() if entry]
            self._run(_PUT_ENTRY, put)


def _add_payload(rows: list[Row], seq: int, value: Value) -> None:
    if value.data is not None or value.headers:
        rows.append((seq, text_of(value.headers), value.data))


def _is_progress(before: Task, after: Task) -> bool:
    """Whether nothing differs but what changes as a task is worked on."""
    return (
        before.delivery is after.delivery
        and before.queue == after.queue
        and before.lane == after.lane
        and before.function == after.function
    )


def _is_settlement(before: Promise, after: Promise) -> bool:
    """Whether nothing differs but what a settlement changes, and no result is taken back."""
    return (
        before.timeout_at == after.timeout_at
        and before.created_at == after.created_at
        and before.cancel_requested_at == after.cancel_requested_at
        and (before.tags is after.tags or before.tags == after.tags)
        and (before.param is after.param or before.param == after.param)
        and (before.value.data is None and not before.value.headers)
    )
