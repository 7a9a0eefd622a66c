"""The interface of a store. `contract/store_suite.py` says in tests what it must do.

A store keeps records by (tenant, id) and finds them again: it never decides anything. All writing
is inside a `Transaction`, which excludes every other writer of the same records until it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from kept.protocol.entries import Entry, EntryKind
from kept.protocol.limits import MAX_SEARCH_SCAN_ROWS
from kept.protocol.records import OutboxEntry, Promise, ScheduleRecord, Task
from kept.protocol.requests import DeadList
from kept.protocol.storage import (
    Awaited,
    Changes,
    Children,
    Due,
    Dump,
    Holder,
    Letters,
    Loaded,
    Notice,
    QueueCounts,
    Reads,
    Slots,
)


class Transaction(Protocol):
    """One batch: loads, saves, and a single commit. Leaving the context without `commit` undoes
    all of it. Everything loaded is current and stays so until the end."""

    # The greatest `now` of any earlier commit, by any process: the clock never goes below it (A3).
    clock_floor: int

    async def load(self, tenant: str, reads: Reads, now: int) -> Loaded:
        """The records under the keys of `reads`; `now` (ms) decides what of a head is due.

        Edges come in the order of their other end, tasks of a request in that of their ids. What
        this transaction saved is seen already.
        """

    async def save(self, tenant: str, changes: Changes) -> None:
        """Writes the changes; visible to others after the commit only.

        Raises `StoreFailedError`, after which the transaction can only be left, for a birth of what
        exists, and for a task, a mark, or the `of` of an edge that names a promise not stored.
        """

    async def commit(self, batch_id: str, now: int, notice: Notice) -> None:
        """Makes the batch durable and records its id, then tells other processes.

        Raises `StoreFailedError` when nothing was applied. Where the outcome is unknown the store
        finds out by the batch id before it answers.
        """


class Store(Protocol):
    """Where records live."""

    # Called, on the loop, with what another process on this store committed.
    on_notice: Callable[[Notice], None] | None

    async def open(self) -> None:
        """Connects, creates or migrates the schema. Raises `StoreVersionError` for a newer one."""

    async def close(self) -> None:
        """Ends all use; idempotent."""

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """A transaction, begun: waits for its turn, fairly. Raises `StoreBusyError`, `StoreFailedError`."""

    async def committed(self, batch_id: str) -> bool:
        """Whether the batch of that id was committed (kept for at least an hour)."""

    async def ping(self) -> None:
        """Returns when the store answers; raises `StoreError` otherwise."""

    # Scans are read-committed and never wait for a writer.

    async def scan_promises(
        self, tenant: str, after: str | None, limit: int, equals: Mapping[str, str]
    ) -> list[Promise]:
        """Promises ordered by id (as bytes of UTF-8), beyond `after`. `equals` narrows by the
        columns origin, parent, branch, function, and by `prefix` of the id."""

    async def scan_tasks(
        self, tenant: str, after: str | None, limit: int, prefix: str = ""
    ) -> list[tuple[Task, Promise]]:
        """Tasks with their promises, ordered by id, beyond `after`."""

    async def scan_schedules(
        self, tenant: str, after: str | None, limit: int, prefix: str = ""
    ) -> list[ScheduleRecord]:
        """Schedules ordered by id, beyond `after`."""

    async def scan_dead_letters(
        self,
        tenant: str,
        filter: DeadList,
        after: str | None,
        limit: int,
        prefix: str = "",
        walk: int = MAX_SEARCH_SCAN_ROWS,
    ) -> Letters:
        """Dead letters that match, ordered by id, beyond `after`: at most `limit`, and those that are
        found by walking past at most `walk` of them, whether they match or not. Ids begin with
        `prefix`; that of the filter is a part of it already."""

    async def scan_entries(
        self, tenant: str, kind: EntryKind, after: str | None, limit: int, prefix: str = ""
    ) -> list[Entry]:
        """Entries of a kind, ordered by name, beyond `after`."""

    async def scan_children(
        self, tenant: str, task_id: str, cursor: str | None, limit: int
    ) -> Children:
        """A further page of a task's preload; `cursor` is an earlier page's `more`."""

    async def scan_outbox(
        self, now: int, limit: int, channels: Collection[str]
    ) -> list[tuple[str, OutboxEntry, Promise]]:
        """Messages due by `now` on these channels (addresses.channel_of), oldest first, each with
        its tenant and the promise it names."""

    async def next_message(self, channels: Collection[str]) -> int | None:
        """The earliest instant (ms) at which a message on these channels is due; may be past."""

    async def due(self, now: int, limit: int) -> Due:
        """What is due by `now`, at most `limit` of each kind."""

    async def next_due(self) -> int | None:
        """The earliest instant (ms) at which `due` finds something; may be past."""

    async def queue_counts(self, tenant: str, queue: str, now: int) -> QueueCounts:
        """How many tasks of a queue are in which state; `now` (ms) tells due from delayed ones."""

    async def dump(self, tenant: str) -> Dump:
        """Everything a tenant has."""

    async def counts(self) -> dict[str, int]:
        """How many records of each kind and state there are, for metrics: names like
        `promises`, `tasks_pending`, `outbox`, `dead_letters`; may be estimates."""

    # What an operator asks about. Each looks at a bounded number of rows.

    async def queue_names(self, limit: int) -> list[tuple[str, str]]:
        """Queues ("tenant", "name") that hold tasks which are not over, or dead letters, in order."""

    async def worker_leases(self, limit: int) -> dict[str, int]:
        """How many tasks each worker (pid) holds, all tenants together; `limit` tasks are counted,
        those whose leases end first."""

    async def holders(self, tenant: str, slots: Slots, limit: int) -> list[Holder]:
        """Who holds tasks of a queue, or of one of its lanes."""

    async def count_before(self, tenant: str, id: str, limit: int) -> int:
        """How many ready tasks of the same queue and lane come before a ready task; `limit` at
        the most."""

    async def awaited_by(self, tenant: str, id: str, limit: int) -> Awaited:
        """Promises for which a task has a callback, in the order of their ids."""
