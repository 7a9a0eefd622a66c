"""One transaction: loads and saves on the writing connection, and a commit whose outcome is known."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Final

from kept.errors import CommitUnknownError, StoreError, StoreFailedError
from kept.protocol.storage import Changes, Loaded, Notice, Reads
from kept.runtime import Runtime
from kept.stores.sqlite.connection import as_reader
from kept.stores.sqlite.faults import store_error
from kept.stores.sqlite.load import Loader
from kept.stores.sqlite.rows import Objects
from kept.stores.sqlite.save import Saver
from kept.stores.sqlite.surroundings import Connect

BATCHES_KEPT_MS: Final = 3_600_000
# Every so many commits, at most as many old batch ids are removed: their number stays bounded.
COMMITS_PER_PRUNING: Final = 500
PRUNED_AT_ONCE: Final = 1_000
# How often a commit's outcome is looked up before it is given up as unknown.
OUTCOME_LOOKUPS: Final = 20
OUTCOME_PAUSE_S: Final = 0.25

_META: Final = "SELECT clock, next_seq FROM meta"
_PUT_META: Final = "UPDATE meta SET clock = ?, next_seq = ?"
_PUT_BATCH: Final = "INSERT INTO batches (id, committed_at) VALUES (?, ?)"
_FIND_BATCH: Final = "SELECT 1 FROM batches WHERE id = ?"
# Looks at the oldest ones only.
_PRUNE: Final = (
    "DELETE FROM batches WHERE number IN (SELECT number FROM ("
    f"SELECT number, committed_at FROM batches ORDER BY number LIMIT {PRUNED_AT_ONCE}) "
    "WHERE committed_at < ?)"
)


class SqliteTransaction:
    """A write transaction that has begun. After an error it can only be left."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: str,
        runtime: Runtime,
        *,
        connect: Connect,
        on_committed: Callable[[Notice], None],
    ) -> None:
        self._connection = connection
        self._path = path
        self._runtime = runtime
        self._connect = connect
        self._on_committed = on_committed
        self._tenants: dict[str, tuple[Loader, Saver]] = {}
        self._usable = True
        self.failed = False
        self.clock_floor, self._next_seq = connection.execute(_META).fetchone()

    async def load(self, tenant: str, reads: Reads, now: int) -> Loaded:
        """Runs on the loop's thread: handing each query to another one costs more than it takes."""
        self._check_usable()
        loader, _ = self._tenant(tenant)
        try:
            return loader.load(reads, now)
        except sqlite3.Error as error:
            raise self._fail(error, "reading") from error

    async def save(self, tenant: str, changes: Changes) -> None:
        self._check_usable()
        _, saver = self._tenant(tenant)
        try:
            self._next_seq = saver.save(changes, self._next_seq)
        except sqlite3.Error as error:
            raise self._fail(error, "writing") from error
        except StoreFailedError:
            self._usable = False
            raise

    async def commit(self, batch_id: str, now: int, notice: Notice) -> None:
        self._check_usable()
        self._usable = False
        connection = self._connection
        wall = self._runtime.now_ms()
        try:
            connection.execute(_PUT_META, (max(self.clock_floor, now), self._next_seq))
            number = connection.execute(_PUT_BATCH, (batch_id, wall)).lastrowid
            if number is not None and number % COMMITS_PER_PRUNING == 0:
                connection.execute(_PRUNE, (wall - BATCHES_KEPT_MS,))
        except sqlite3.Error as error:
            raise self._fail(error, "writing") from error
        try:
            await self._commit(batch_id)
        except asyncio.CancelledError:
            # The commit went through, or nobody will be misled by a look for nothing.
            self._on_committed(notice)
            raise
        self._on_committed(notice)

    def end(self) -> None:
        """Undoes what was not committed."""
        self._usable = False
        if not self._connection.in_transaction:
            return
        try:
            self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            # The connection is closed then, which undoes it as well.
            self.failed = True

    def _tenant(self, tenant: str) -> tuple[Loader, Saver]:
        known = self._tenants.get(tenant)
        if known is None:
            objects = Objects()
            loader = Loader(self._connection, tenant, objects)
            saver = Saver(self._connection, tenant, objects, loader)
            known = self._tenants[tenant] = (loader, saver)
        return known

    def _check_usable(self) -> None:
        if not self._usable:
            raise StoreFailedError("the transaction has ended or failed; begin another one")

    def _fail(self, error: sqlite3.Error, doing: str) -> StoreError:
        self._usable = False
        self.failed = True
        return store_error(error, doing, self._path)

    # -- the commit itself -----------------------------------------------------------------------

    async def _commit(self, batch_id: str) -> None:
        try:
            await self._in_thread(self._sync)
        except sqlite3.Error as error:
            failure = self._fail(error, "committing to")
            self.end()
            if not await self._is_committed(batch_id, failure):
                raise failure from error

    def _sync(self) -> None:
        self._connection.execute("COMMIT")

    async def _in_thread(self, work: Callable[[], None]) -> None:
        """Runs it in a thread and waits for its end whatever comes: nobody may use the connection
        meanwhile, so a cancellation has to wait too."""
        task = self._runtime.spawn(self._blocking(work), "kept-commit")
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError as error:
                cancelled = error
        task.result()
        if cancelled is not None:
            raise cancelled

    async def _blocking(self, work: Callable[[], None]) -> None:
        await self._runtime.run_blocking(work)

    async def _is_committed(self, batch_id: str, failure: StoreError) -> bool:
        """Whether a commit that reported an error happened all the same, by a look at the file."""
        for _ in range(OUTCOME_LOOKUPS):
            try:
                connection = as_reader(self._connect(self._path))
                try:
                    return connection.execute(_FIND_BATCH, (batch_id,)).fetchone() is not None
                finally:
                    connection.close()
            except sqlite3.Error:
                await self._runtime.sleep(OUTCOME_PAUSE_S)
        raise CommitUnknownError(
            f"{failure}; whether batch {batch_id} was committed is unknown"
        ) from failure
