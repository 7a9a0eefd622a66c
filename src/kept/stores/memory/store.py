"""The memory store: one writer at a time, whose changes appear at its commit all at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from copy import copy
from heapq import nsmallest
from typing import Any, Final

from kept.errors import StoreFailedError
from kept.protocol.entries import Entry, EntryKind
from kept.protocol.limits import MAX_SEARCH_SCAN_ROWS
from kept.protocol.records import (
    Delivery,
    OutboxEntry,
    Promise,
    ScheduleRecord,
    Task,
    TaskState,
)
from kept.protocol.requests import DeadList
from kept.protocol.storage import (
    Awaited,
    Changes,
    Children,
    Due,
    DueEntry,
    Dump,
    Holder,
    Key,
    Letters,
    Loaded,
    Notice,
    QueueCounts,
    Reads,
    Slots,
)
from kept.runtime import Runtime
from kept.stores.memory import overview, reading
from kept.stores.memory.changes import Journal, apply, undo
from kept.stores.memory.lanes import Moment
from kept.stores.memory.tables import EntryMoment, Tables

BATCHES_KEPT_MS: Final = 3_600_000
# How many commits pass before old batch ids are looked for.
COMMITS_PER_PRUNING: Final = 1_000


_COUNTED: Final = (
    *("promises", "tasks_acquired", "tasks_pending"),
    *("schedules", "outbox", "dead_letters"),
)


class MemoryStore:
    """Keeps everything in memory. Closing forgets nothing: it can be opened again."""

    def __init__(self, runtime: Runtime) -> None:
        self.on_notice: Callable[[Notice], None] | None = None
        self.tables: dict[str, Tables] = {}
        self.clock = 0
        self._runtime = runtime
        self.batches: dict[str, int] = {}
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """Ready at once."""

    async def close(self) -> None:
        """Nothing to end."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[MemoryTransaction]:
        async with self._turn:
            transaction = MemoryTransaction(self)
            try:
                yield transaction
            finally:
                transaction.end()

    async def committed(self, batch_id: str) -> bool:
        return batch_id in self.batches

    async def ping(self) -> None:
        """Always there."""

    def record_batch(self, batch_id: str, now: int) -> None:
        """Notes a commit, and forgets those of more than an hour ago."""
        self.clock = max(self.clock, now)
        wall = self._runtime.now_ms()
        if len(self.batches) % COMMITS_PER_PRUNING == COMMITS_PER_PRUNING - 1:
            old = wall - BATCHES_KEPT_MS
            self.batches = {id: at for id, at in self.batches.items() if at >= old}
        self.batches[batch_id] = wall

    # -- scans -----------------------------------------------------------------------------------

    def _of(self, tenant: str) -> Tables:
        return self.tables.get(tenant) or Tables()

    async def scan_promises(
        self, tenant: str, after: str | None, limit: int, equals: Mapping[str, str]
    ) -> list[Promise]:
        promises = self._of(tenant).promises
        if equals:
            promises = {id: p for id, p in promises.items() if reading.is_equal(p, equals)}
        return reading.beyond(promises, after, limit)

    async def scan_tasks(
        self, tenant: str, after: str | None, limit: int, prefix: str = ""
    ) -> list[tuple[Task, Promise]]:
        tables = self._of(tenant)
        tasks = reading.beyond(tables.tasks, after, limit, prefix)
        return [(task, tables.promises[task.id]) for task in tasks]

    async def scan_schedules(
        self, tenant: str, after: str | None, limit: int, prefix: str = ""
    ) -> list[ScheduleRecord]:
        return reading.beyond(self._of(tenant).schedules, after, limit, prefix)

    async def scan_dead_letters(
        self,
        tenant: str,
        filter: DeadList,
        after: str | None,
        limit: int,
        prefix: str = "",
        walk: int = MAX_SEARCH_SCAN_ROWS,
    ) -> Letters:
        walked = reading.beyond(self._of(tenant).dead_letters, after, walk, prefix)
        wanted = [letter for letter in walked if reading.is_wanted(letter, filter)]
        if len(wanted) >= limit:
            return Letters(wanted[:limit], wanted[limit - 1].id)
        return Letters(wanted, walked[-1].id if len(walked) == walk else None)

    async def scan_entries(
        self, tenant: str, kind: EntryKind, after: str | None, limit: int, prefix: str = ""
    ) -> list[Entry]:
        entries = self._of(tenant).entries
        of_kind = {key.name: entry for key, entry in entries.items() if key.kind is kind}
        return reading.beyond(of_kind, after, limit, prefix)

    async def scan_children(
        self, tenant: str, task_id: str, cursor: str | None, limit: int
    ) -> Children:
        return reading.children(self._of(tenant), task_id, cursor, limit)

    async def scan_outbox(
        self, now: int, limit: int, channels: Collection[str]
    ) -> list[tuple[str, OutboxEntry, Promise]]:
        found = [
            (moment, tenant)
            for tenant, tables in self.tables.items()
            for channel in channels
            if channel in tables.messages
            for moment in tables.messages[channel].first(limit, now)
        ]
        first = nsmallest(limit, found, key=lambda each: (each[0].at, each[1], each[0].key))
        return [
            (
                tenant,
                self.tables[tenant].outbox[moment.key],
                self.tables[tenant].promises[moment.key.id],
            )
            for moment, tenant in first
        ]

    async def due(self, now: int, limit: int) -> Due:
        each = self.tables.items()
        return Due(
            deadlines=_merged(((t, s.deadlines.first(limit, now)) for t, s in each), limit),
            leases=_merged(((t, s.leases.first(limit, now)) for t, s in each), limit),
            retries=_merged(((t, s.retries.first(limit, now)) for t, s in each), limit),
            ready=_merged(((t, s.delayed.first(limit, now)) for t, s in each), limit),
            schedules=_merged(((t, s.instants.first(limit, now)) for t, s in each), limit),
            drains=_merged(((t, _undrained(s)) for t, s in each), limit),
            entries=_entries(((t, s.due_entries.first(limit, now)) for t, s in each), limit),
            trees=_entries(((t, s.due_trees.first(limit, now)) for t, s in each), limit),
        )

    async def next_due(self) -> int | None:
        moments: list[int] = []
        for tables in self.tables.values():
            if tables.undrained:
                return 0
            moments.extend(moment.at for moment in tables.due_entries.first(1))
            moments.extend(moment.at for moment in tables.due_trees.first(1))
            for agenda in (
                tables.deadlines,
                tables.leases,
                tables.retries,
                tables.delayed,
                tables.instants,
            ):
                if (moment := agenda.peek()) is not None:
                    moments.append(moment.at)
        return min(moments, default=None)

    async def next_message(self, channels: Collection[str]) -> int | None:
        return min(
            (
                moment.at
                for tables in self.tables.values()
                for channel in channels
                if channel in tables.messages
                and (moment := tables.messages[channel].peek()) is not None
            ),
            default=None,
        )

    async def queue_counts(self, tenant: str, queue: str, now: int) -> QueueCounts:
        return reading.queue_counts(self._of(tenant), queue, now)

    async def queue_names(self, limit: int) -> list[tuple[str, str]]:
        names = {
            (tenant, queue)
            for tenant, tables in self.tables.items()
            for queue in overview.queue_names(tables)
        }
        return nsmallest(limit, names)

    async def worker_leases(self, limit: int) -> dict[str, int]:
        held = [task for t in self.tables.values() for task in overview.held(t)]
        first = nsmallest(limit, held, key=lambda task: task.expires_at or 0)
        return dict(Counter(task.pid or "" for task in first))

    async def holders(self, tenant: str, slots: Slots, limit: int) -> list[Holder]:
        return overview.holders(self._of(tenant), slots, limit)

    async def count_before(self, tenant: str, id: str, limit: int) -> int:
        return overview.count_before(self._of(tenant), id, limit)

    async def awaited_by(self, tenant: str, id: str, limit: int) -> Awaited:
        return overview.awaited_by(self._of(tenant), id, limit)

    async def dump(self, tenant: str) -> Dump:
        return reading.dump(self._of(tenant))

    async def counts(self) -> dict[str, int]:
        counts = Counter(dict.fromkeys(_COUNTED, 0))
        for tables in self.tables.values():
            counts["promises"] += len(tables.promises)
            # A timer's task waits for nobody.
            tasks = (t for t in tables.tasks.values() if t.delivery is not Delivery.NEVER)
            states = Counter(task.state for task in tasks)
            counts["tasks_acquired"] += states[TaskState.ACQUIRED]
            counts["tasks_pending"] += states[TaskState.PENDING]
            counts["schedules"] += len(tables.schedules)
            counts["outbox"] += len(tables.outbox)
            counts["dead_letters"] += len(tables.dead_letters)
        return dict(counts)


class MemoryTransaction:
    """Gathers changes until the commit. A load sees them already, nobody else does."""

    def __init__(self, store: MemoryStore) -> None:
        self.clock_floor = store.clock
        self._store = store
        self._changes: list[tuple[str, Changes]] = []
        self._ended = False

    async def load(self, tenant: str, reads: Reads, now: int) -> Loaded:
        self._check_open()
        journal: Journal = []
        tables = self._store.tables
        try:
            for of, changes in self._changes:
                apply(tables, of, changes, journal)
            return reading.load(tables.get(tenant) or Tables(), reads, now)
        finally:
            undo(journal)

    async def save(self, tenant: str, changes: Changes) -> None:
        self._check_open()
        self._changes.append((tenant, _snapshot(changes)))

    async def commit(self, batch_id: str, now: int, notice: Notice) -> None:
        self._check_open()
        journal: Journal = []
        try:
            for tenant, changes in self._changes:
                apply(self._store.tables, tenant, changes, journal)
        except StoreFailedError:
            undo(journal)
            self.end()
            raise
        self._store.record_batch(batch_id, now)
        self.end()

    def end(self) -> None:
        """From here on it cannot be used; what was not committed is forgotten."""
        self._ended = True
        self._changes = []

    def _check_open(self) -> None:
        if self._ended:
            raise StoreFailedError("the transaction has ended; nothing more can be done in it")


def _snapshot(changes: Changes) -> Changes:
    copies: dict[str, Any] = {
        name: copy(value) for name in changes.__struct_fields__ if (value := getattr(changes, name))
    }
    return Changes(**copies)


def _merged(found: Iterable[tuple[str, list[Moment]]], limit: int) -> list[Key]:
    # Each tenant's are few and in order already: sorting them costs less than a heap.
    moments = sorted((moment.at, tenant, moment) for tenant, first in found for moment in first)
    return [Key(tenant, moment.id) for _, tenant, moment in moments[:limit]]


def _entries(found: Iterable[tuple[str, list[EntryMoment]]], limit: int) -> list[DueEntry]:
    moments = ((moment.at, tenant, moment.key) for tenant, first in found for moment in first)
    return [DueEntry(tenant, key) for _, tenant, key in nsmallest(limit, moments)]


def _undrained(tables: Tables) -> list[Moment]:
    return [Moment(0, tables.numbers[id], id) for id in tables.undrained]
