"""The SQLite store: one file, several processes, one writer at a time (design section 2)."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from kept.errors import StoreFailedError
from kept.protocol.entries import Entry, EntryKind
from kept.protocol.limits import MAX_SEARCH_SCAN_ROWS
from kept.protocol.records import OutboxEntry, Promise, ScheduleRecord, Task
from kept.protocol.requests import DeadList
from kept.protocol.storage import (
    Awaited,
    Children,
    Due,
    Dump,
    Holder,
    Letters,
    Notice,
    QueueCounts,
    Slots,
)
from kept.runtime import Runtime
from kept.stores.sqlite import connection as connections
from kept.stores.sqlite import overview, scan
from kept.stores.sqlite.faults import translated
from kept.stores.sqlite.identity import Identity
from kept.stores.sqlite.schema import check_version, migrate, migrations
from kept.stores.sqlite.surroundings import REAL, NeighboursLike, Surroundings, TurnsLike
from kept.stores.sqlite.transaction import SqliteTransaction

# How often a store looks whether others committed what it was not told of.
CHECK_PERIOD_S: Final = 1.0

T = TypeVar("T")


class SqliteStore:
    """Keeps records in the file at `path`, which is created where it is missing.

    Loads and saves run on the loop's thread, the commit's fsync in another.
    """

    def __init__(self, path: str, runtime: Runtime, surroundings: Surroundings = REAL) -> None:
        self.on_notice: Callable[[Notice], None] | None = None
        self.path = os.path.realpath(path)
        self._runtime = runtime
        self._surroundings = surroundings
        self._neighbours: NeighboursLike | None = None
        self._turns: TurnsLike | None = None
        self._writer: sqlite3.Connection | None = None
        # For short reads on the loop, and for scans in a thread.
        self._reader: sqlite3.Connection | None = None
        self._scanner: sqlite3.Connection | None = None
        self._scanning = asyncio.Lock()
        self._checking: asyncio.Task[None] | None = None
        self._data_version = -1
        self._identity: Identity | None = None
        self._others_committed = False

    # -- opening and closing ---------------------------------------------------------------------

    async def open(self) -> None:
        if self._turns is not None:
            return
        try:
            directory = self._surroundings.make_place(self.path)
            turns = self._surroundings.turns(directory, self._runtime)
        except OSError as error:
            raise StoreFailedError(
                f"opening {self.path}: {self.path}-run: {error.strerror}; the directory and its disk must "
                "be writable, and have room"
            ) from error
        await turns.take()
        try:
            with translated("opening", self.path):
                await self._prepare()
        except BaseException:
            self._close_connections()
            raise
        finally:
            turns.give_back()
        self._turns = turns
        if self._surroundings.neighbours is not None:
            tell = self._tell_engine
            self._neighbours = self._surroundings.neighbours(directory, self._runtime, tell)
            self._neighbours.open()
        self._checking = self._runtime.spawn(self._check_now_and_then(), "kept-store-check")

    async def _prepare(self) -> None:
        """Opens the connections and brings the file to the newest schema, before others see it."""
        scripts = migrations()
        writer = self._writer = connections.as_writer(self._connect())
        connections.check_ours(writer, self.path)
        version = check_version(writer, self.path, len(scripts))
        await connections.patiently(writer, "PRAGMA journal_mode = WAL", self.path, self._runtime)
        await connections.begin(writer, self.path, self._runtime)
        if version < len(scripts):
            migrate(writer, self.path, scripts)
            writer.execute("COMMIT")
        else:
            # A file that cannot be written to is refused here, and not with the first request.
            writer.execute("UPDATE meta SET clock = clock")
            writer.execute("ROLLBACK")
        self._data_version = _data_version(writer)
        self._identity = Identity(self.path, self._surroundings.identity)
        self._reader = connections.as_reader(self._connect())

    async def close(self) -> None:
        turns, self._turns = self._turns, None
        if turns is None:
            return
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.wait({self._checking})
        if self._neighbours is not None:
            self._neighbours.close()
        async with turns.here, self._scanning:
            self._close_connections()

    def _close_connections(self) -> None:
        for connection in (self._scanner, self._reader, self._writer):
            if connection is not None:
                connection.close()
        self._writer = self._reader = self._scanner = None

    # -- writing ---------------------------------------------------------------------------------

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqliteTransaction]:
        turns = self._opened()
        await turns.take()
        try:
            self._opened()
            with translated("locking", self.path):
                transaction = await self._begin()
            try:
                yield transaction
            finally:
                transaction.end()
                if transaction.failed:
                    self._drop_writer()
        finally:
            turns.give_back()

    async def _begin(self) -> SqliteTransaction:
        self._identified().check()
        is_new = self._writer is None
        if self._writer is None:
            self._writer = connections.as_writer(self._connect())
            self._data_version = -1
        await connections.begin(self._writer, self.path, self._runtime)
        try:
            if is_new:
                self._identified().log_opened()
            self._notice_others(self._writer)
            return SqliteTransaction(
                self._writer,
                self.path,
                self._runtime,
                connect=self._surroundings.connect,
                on_committed=self._tell_others,
            )
        except sqlite3.Error:
            # It has begun, and nobody else would end it.
            self._drop_writer()
            raise

    def _drop_writer(self) -> None:
        """Nobody knows what state an error left it in: the next transaction begins afresh."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self._identified().log_closed()

    def _connect(self) -> sqlite3.Connection:
        return self._surroundings.connect(self.path)

    def _identified(self) -> Identity:
        assert self._identity is not None
        return self._identity

    def _opened(self) -> TurnsLike:
        if self._turns is None:
            raise StoreFailedError(f"{self.path} is not open")
        return self._turns

    # -- what other processes do -----------------------------------------------------------------

    def _tell_others(self, notice: Notice) -> None:
        if self._neighbours is not None:
            self._neighbours.tell(notice)

    def _tell_engine(self, notice: Notice) -> None:
        if self.on_notice is not None:
            self.on_notice(notice)

    def _notice_others(self, writer: sqlite3.Connection) -> None:
        """Remembers that others committed: the number changes with their commits, not with ours."""
        version = _data_version(writer)
        if version != self._data_version:
            self._data_version = version
            self._others_committed = True

    async def _check_now_and_then(self) -> None:
        while True:
            await self._runtime.sleep(CHECK_PERIOD_S)
            if self._neighbours is not None:
                self._neighbours.refresh()
            if self._writer is not None and not self._opened().here.locked():
                try:
                    self._notice_others(self._writer)
                except sqlite3.Error:
                    # Whoever uses the store next meets the same error and can answer for it.
                    continue
            if self._others_committed:
                self._others_committed = False
                self._tell_engine(Notice(everything=True))

    # -- reading ---------------------------------------------------------------------------------

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """A short read, on the loop."""
        self._opened()
        assert self._reader is not None
        with translated("reading", self.path):
            return work(self._reader)

    async def _scan(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """A read that may be long, in a thread; one at a time."""
        self._opened()
        async with self._scanning:
            self._opened()
            with translated("reading", self.path):
                if self._scanner is None:
                    self._scanner = connections.as_reader(self._connect())
                scanner = self._scanner
                return await self._runtime.run_blocking(lambda: work(scanner))

    async def committed(self, batch_id: str) -> bool:
        query = "SELECT 1 FROM batches WHERE id = ?"
        return await self._read(
            lambda reader: reader.execute(query, (batch_id,)).fetchone() is not None
        )

    async def ping(self) -> None:
        await self._read(lambda reader: reader.execute("SELECT clock FROM meta").fetchone())

    async def scan_promises(
        self, tenant: str, after: str | None, limit: int, equals: Mapping[str, str]
    ) -> list[Promise]:
        return await self._scan(lambda c: scan.promises(c, tenant, after, limit, equals))

    async def scan_tasks(
        self, tenant: str, after: str | None, limit: int, prefix: str = ""
    ) -> list[tuple[Task, Promise]]:
        return await self._scan(lambda c: scan.tasks(c, tenant, after, limit, prefix))

    async def scan_schedules(
        self, tenant: str, after: str | None, limit: int, prefix: str = ""
    ) -> list[ScheduleRecord]:
        return await self._scan(lambda c: scan.schedules(c, tenant, after, limit, prefix))

    async def scan_dead_letters(
        self,
        tenant: str,
        filter: DeadList,
        after: str | None,
        limit: int,
        prefix: str = "",
        walk: int = MAX_SEARCH_SCAN_ROWS,
    ) -> Letters:
        return await self._scan(
            lambda c: scan.dead_letters(c, tenant, filter, after, limit, prefix, walk)
        )

    async def scan_entries(
        self, tenant: str, kind: EntryKind, after: str | None, limit: int, prefix: str = ""
    ) -> list[Entry]:
        return await self._scan(lambda c: scan.entries(c, tenant, kind, after, limit, prefix))

    async def scan_children(
        self, tenant: str, task_id: str, cursor: str | None, limit: int
    ) -> Children:
        return await self._scan(lambda c: scan.children(c, tenant, task_id, cursor, limit))

    async def scan_outbox(
        self, now: int, limit: int, channels: Collection[str]
    ) -> list[tuple[str, OutboxEntry, Promise]]:
        return await self._read(lambda c: scan.outbox(c, now, limit, channels))

    async def next_message(self, channels: Collection[str]) -> int | None:
        return await self._read(lambda c: scan.next_message(c, channels))

    async def due(self, now: int, limit: int) -> Due:
        return await self._read(lambda c: scan.due(c, now, limit))

    async def next_due(self) -> int | None:
        return await self._read(scan.next_due)

    async def queue_counts(self, tenant: str, queue: str, now: int) -> QueueCounts:
        return await self._scan(lambda c: scan.queue_counts(c, tenant, queue, now))

    async def queue_names(self, limit: int) -> list[tuple[str, str]]:
        return await self._scan(lambda c: overview.queue_names(c, limit))

    async def worker_leases(self, limit: int) -> dict[str, int]:
        return await self._scan(lambda c: overview.worker_leases(c, limit))

    async def holders(self, tenant: str, slots: Slots, limit: int) -> list[Holder]:
        return await self._scan(lambda c: overview.holders(c, tenant, slots, limit))

    async def count_before(self, tenant: str, id: str, limit: int) -> int:
        return await self._scan(lambda c: overview.count_before(c, tenant, id, limit))

    async def awaited_by(self, tenant: str, id: str, limit: int) -> Awaited:
        return await self._scan(lambda c: overview.awaited_by(c, tenant, id, limit))

    async def dump(self, tenant: str) -> Dump:
        return await self._scan(lambda c: scan.dump(c, tenant))

    async def counts(self) -> dict[str, int]:
        return await self._scan(scan.counts)


def _data_version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA data_version").fetchone()
    assert isinstance(version, int)
    return version
