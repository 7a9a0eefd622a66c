"""What a disk holds: records in memory, or a file of SQLite's (`sqlite_medium.py`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from kept.errors import CommitUnknownError, StoreBusyError, StoreError, StoreFailedError
from kept.protocol.storage import Changes, Notice
from kept.runtime import Runtime
from kept.sim.news import News
from kept.sim.process import Process
from kept.sim.storage_faults import BUSY, COMMIT, OUTAGE, StorageFaults
from kept.stores.base import Store, Transaction
from kept.stores.memory import reading
from kept.stores.memory.changes import apply
from kept.stores.memory.store import MemoryStore
from kept.stores.memory.tables import Tables

# What brings back what the disk held at an earlier moment; for when nobody has it open.
Restore = Callable[[], None]


class Medium(Protocol):
    """What the simulated disk needs of a store, whichever it is."""

    def store(self, process: Process, runtime: Runtime, hear: Callable[[Notice], None]) -> Store:
        """The store as a process has it, not yet open; it hears of what others commit."""

    def before(self, operation: str) -> None:
        """Raises where an operation is to fail, and the store cannot fail in it by itself."""

    async def commit(
        self, process: Process, inner: Transaction, batch_id: str, now: int, notice: Notice
    ) -> None:
        """The commit itself; see `Transaction.commit`."""

    def committed(self, batch_id: str) -> bool:
        """Whether a commit happened, whatever anybody was told."""

    def synced(self, process: Process) -> bool:
        """Whether a commit of a process survives a power cut as soon as it is reported."""

    def release(self, process: Process) -> None:
        """Takes from a dead process what it had open, as a kernel does."""

    def savepoint(self) -> Restore:
        """What brings back what is held now."""

    @property
    def clock(self) -> int:
        """The greatest `now` of any commit."""

    async def keeper(self) -> Store:
        """The store as those see it who look on: no fault, no delay, no await that waits."""

    def close(self) -> None:
        """Nothing is needed any more."""


class MemoryMedium:
    """One `MemoryStore` for all processes."""

    def __init__(self, runtime: Runtime, faults: StorageFaults, news: News) -> None:
        self._inner = MemoryStore(runtime)
        self._faults = faults
        self._news = news

    def store(self, process: Process, runtime: Runtime, hear: Callable[[Notice], None]) -> Store:
        self._news.join(process, hear)
        return self._inner

    def before(self, operation: str) -> None:
        name = self._faults.failing(operation)
        if name is not None:
            raise _error(operation, name)

    async def commit(
        self, process: Process, inner: Transaction, batch_id: str, now: int, notice: Notice
    ) -> None:
        self.before(COMMIT)
        happens = self._faults.unclear()
        if happens is not False:
            await inner.commit(batch_id, now, notice)
            self._news.tell(process, notice)
        if happens is not None and self._faults.lasts(OUTAGE):
            raise CommitUnknownError("commit: reported an error, and cannot be looked up")
        if happens is False:
            raise _error(COMMIT, "an error was reported")

    def committed(self, batch_id: str) -> bool:
        return batch_id in self._inner.batches

    def synced(self, process: Process) -> bool:
        return True

    def release(self, process: Process) -> None:
        """A process has nothing of it to itself."""

    def savepoint(self) -> Restore:
        inner = self._inner
        dumps = {tenant: _changes_of(tables) for tenant, tables in inner.tables.items()}
        clock, batches = inner.clock, dict(inner.batches)

        def restore() -> None:
            inner.tables.clear()
            for tenant, changes in dumps.items():
                apply(inner.tables, tenant, changes, [])
            inner.clock = clock
            inner.batches = batches

        return restore

    @property
    def clock(self) -> int:
        return self._inner.clock

    async def keeper(self) -> Store:
        return self._inner

    def close(self) -> None:
        """Nothing to end."""


def _error(operation: str, name: str) -> StoreError:
    kind = StoreBusyError if name.endswith(BUSY.upper()) else StoreFailedError
    return kind(f"{operation}: a fault of the simulated disk ({name})")


def _changes_of(tables: Tables) -> Changes:
    """What makes empty tables into these. Promises come in the order of their birth."""
    dump = reading.dump(tables)
    return Changes(
        promises=dump.promises,
        tasks=dump.tasks,
        born_promises=set(dump.promises),
        born_tasks=set(dump.tasks),
        callbacks=dict.fromkeys(sorted(dump.callbacks), True),
        listeners=dict.fromkeys(sorted(dump.listeners), True),
        resumes=dict.fromkeys(sorted(dump.resumes), True),
        releases=dump.releases,
        undrained=dict(tables.undrained),
        schedules={**dump.schedules},
        outbox={**dump.outbox},
        dead_letters={**dump.dead_letters},
        entries={**dump.entries},
    )
