"""The disk: one store for all servers of a world, behind a layer of faults.

Commits are atomic and survive the death of any process; what was not committed dies with it. A
commit may fail before it happens; one that has happened and whose answer is lost is what the death
of the server right after it means. Only one process writes at a time, as with a file.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Mapping
from random import Random
from types import TracebackType
from typing import Final, TypeVar

from kept.check.monitor import Monitor
from kept.errors import StoreFailedError
from kept.protocol.entries import Entry, EntryKind
from kept.protocol.records import DeadLetter, OutboxEntry, Promise, ScheduleRecord, Task
from kept.protocol.requests import DeadList
from kept.protocol.storage import Changes, Children, Due, Dump, Loaded, Notice, QueueCounts, Reads
from kept.sim.loop import SimulatedLoop
from kept.sim.mix import Mix
from kept.sim.process import Process
from kept.sim.trace import Trace
from kept.stores.memory.store import MemoryStore, MemoryTransaction

T = TypeVar("T")

# What other processes are told of a commit arrives by then; what was lost is noticed by then, too.
NOTICE_SECONDS: Final = 0.02
REPAIR_SECONDS: Final = 1.0


class Disk:
    """What survives. `monitor` follows the steps of all processes; `kill` ends one of them."""

    def __init__(
        self,
        loop: SimulatedLoop,
        random: Random,
        mix: Mix,
        trace: Trace,
        inner: MemoryStore,
        monitor: Monitor,
        kill: Callable[[Process, str], None],
    ) -> None:
        self.loop = loop
        self.inner = inner
        self.monitor = monitor
        self.trace = trace
        self.faulty = True
        # Every operation fails while this is set.
        self.outage = False
        # Who commits next dies, before or after.
        self.crash_before = False
        self.crash_after = False
        self.commits = 0
        self._random = random
        self._mix = mix
        self._kill = kill
        self._stores: list[SimulatedStore] = []
        self._writer: SimulatedTransaction | None = None
        self._waiting: deque[tuple[Process, asyncio.Future[SimulatedTransaction]]] = deque()

    def store(self, process: Process) -> SimulatedStore:
        """The store as a process has it open."""
        store = SimulatedStore(self, process)
        self._stores.append(store)
        process.on_death.append(lambda: self._died(store))
        return store

    @property
    def quiet(self) -> bool:
        """Whether nobody is in the middle of a transaction."""
        return self._writer is None

    # -- faults

    def check(self, what: str) -> None:
        """Raises where an operation is to fail."""
        if self.outage:
            raise StoreFailedError(f"{what}: the simulated disk is out of order")
        if what == "scan" and self._strikes("scan_fails"):
            raise StoreFailedError("scan: an injected failure")

    async def commit(self, transaction: SimulatedTransaction, notice: Notice) -> None:
        """Time, faults, the commit itself, and the news for the others."""
        process = transaction.process
        await self.loop.pause(self._random.uniform(*self._mix.commit_seconds))
        self.check("commit")
        if self._strikes("commit_fails"):
            raise StoreFailedError("commit: an injected failure")
        if self.crash_before:
            self.crash_before = False
            self._kill(process, "crash_before_commit")
            await self._death(process)
        await transaction.commit_inner(notice)
        self.commits += 1
        self.trace.note("commit", process.name, transaction.batch_id)
        for store in self._stores:
            if store.process is not process:
                self._tell(store, notice)
        if self.crash_after:
            self.crash_after = False
            self._kill(process, "crash_after_commit")
            await self._death(process)
        await self.loop.pause(self._random.uniform(*self._mix.commit_seconds))

    async def _death(self, process: Process) -> None:
        """A process ends between two callbacks: this one it does not get past."""
        await self.loop.create_future()
        raise AssertionError(f"{process} is dead and runs")

    def _strikes(self, fault: str) -> bool:
        if not self.faulty or self._random.random() >= self._mix.faults.get(fault, 0.0):
            return False
        self.trace.counts[f"fault {fault}"] += 1
        return True

    def _tell(self, store: SimulatedStore, notice: Notice) -> None:
        delay = self._random.uniform(0, NOTICE_SECONDS)
        if self._strikes("notice_lost"):
            delay, notice = self._random.uniform(delay, REPAIR_SECONDS), Notice(everything=True)
        self.loop.call_later(delay, store.hear, notice, context=store.process.context.copy())

    # -- whose turn it is to write

    async def begin(self, process: Process) -> SimulatedTransaction:
        """Waits for the turn."""
        self.check("begin")
        if self._writer is None:
            self._writer = SimulatedTransaction(self, process)
            return self._writer
        turn: asyncio.Future[SimulatedTransaction] = self.loop.create_future()
        waiting = process, turn
        self._waiting.append(waiting)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # It came, and nobody wanted it any more.
                self.end(turn.result())
            raise
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)

    def end(self, transaction: SimulatedTransaction) -> None:
        """Gives the turn to the next one; idempotent."""
        if self._writer is not transaction:
            return
        self._writer = None
        while self._waiting and self._writer is None:
            process, turn = self._waiting.popleft()
            if process.alive and not turn.done():
                # Taken before the next one runs, so that nobody comes in between.
                self._writer = SimulatedTransaction(self, process)
                turn.set_result(self._writer)

    def _died(self, store: SimulatedStore) -> None:
        self._stores.remove(store)
        for waiting in [each for each in self._waiting if each[0] is store.process]:
            self._waiting.remove(waiting)
        writer = self._writer
        if writer is not None and writer.process is store.process:
            writer.end()


class SimulatedTransaction:
    """A transaction of one process. Its steps are undone with it."""

    def __init__(self, disk: Disk, process: Process) -> None:
        self.process = process
        self.batch_id = ""
        self.committed = False
        self._disk = disk
        self._now = 0
        self.undo_point = disk.monitor.mark()
        self._inner = MemoryTransaction(disk.inner)
        self.ended = False
        self.clock_floor = self._inner.clock_floor

    async def load(self, tenant: str, reads: Reads, now: int) -> Loaded:
        self._disk.check("load")
        return await self._inner.load(tenant, reads, now)

    async def save(self, tenant: str, changes: Changes) -> None:
        self._disk.check("save")
        await self._inner.save(tenant, changes)

    async def commit(self, batch_id: str, now: int, notice: Notice) -> None:
        self.batch_id = batch_id
        self._now = now
        await self._disk.commit(self, notice)

    async def commit_inner(self, notice: Notice) -> None:
        """The commit itself, which nothing interrupts."""
        await self._inner.commit(self.batch_id, self._now, notice)
        self.committed = True

    def end(self) -> None:
        """Over; the steps of one that was not committed did not happen. Idempotent."""
        if self.ended:
            return
        self.ended = True
        self._inner.end()
        if not self.committed:
            self._disk.monitor.rollback(self.undo_point)
        self._disk.end(self)


class _Begun:
    """`async with store.transaction()`."""

    def __init__(self, store: SimulatedStore) -> None:
        self._store = store
        self._transaction: SimulatedTransaction | None = None

    async def __aenter__(self) -> SimulatedTransaction:
        self._transaction = await self._store.begin()
        return self._transaction

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._transaction is not None:
            self._transaction.end()


class SimulatedStore:
    """A `Store` of one process on the disk, and the `StepObserver` that goes with it."""

    def __init__(self, disk: Disk, process: Process) -> None:
        self.on_notice: Callable[[Notice], None] | None = None
        self.process = process
        self._disk = disk
        self._transaction: SimulatedTransaction | None = None

    async def open(self) -> None:
        self._disk.check("open")

    async def close(self) -> None:
        """Hears no more of others."""
        self.on_notice = None

    def transaction(self) -> _Begun:
        return _Begun(self)

    async def begin(self) -> SimulatedTransaction:
        """Waits for the turn to write."""
        self._transaction = None
        self._transaction = await self._disk.begin(self.process)
        return self._transaction

    def hear(self, notice: Notice) -> None:
        """Another process committed."""
        if self.on_notice is not None:
            self.on_notice(notice)

    async def committed(self, batch_id: str) -> bool:
        return await self._disk.inner.committed(batch_id)

    async def ping(self) -> None:
        self._disk.check("ping")

    # -- observer

    def step(self, tenant: str, now: int, name: str, internal: bool, changes: Changes) -> None:  # noqa: FBT001
        self._disk.trace.note("step", self.process.name, f"{name} {now} {_named(changes)}")
        self._disk.monitor.step(tenant, now, name, internal, changes)

    def mark(self) -> int:
        return self._disk.monitor.mark() if self._transaction is not None else -1

    def rollback(self, mark: int) -> None:
        """A step that raises goes back to a mark of its own transaction; a commit that fails to one
        that was set before its turn came, when others may still have been writing."""
        monitor, transaction = self._disk.monitor, self._transaction
        if transaction is not None and not transaction.ended and not transaction.committed:
            monitor.rollback(max(mark, transaction.undo_point))

    # -- scans

    async def scan_promises(
        self, tenant: str, after: str | None, limit: int, equals: Mapping[str, str]
    ) -> list[Promise]:
        self._disk.check("scan")
        return await self._disk.inner.scan_promises(tenant, after, limit, equals)

    async def scan_tasks(
        self, tenant: str, after: str | None, limit: int, prefix: str = ""
    ) -> list[tuple[Task, Promise]]:
        self._disk.check("scan")
        return await self._disk.inner.scan_tasks(tenant, after, limit, prefix)

    async def scan_schedules(
        self, tenant: str, after: str | None, limit: int, prefix: str = ""
    ) -> list[ScheduleRecord]:
        self._disk.check("scan")
        return await self._disk.inner.scan_schedules(tenant, after, limit, prefix)

    async def scan_dead_letters(
        self, tenant: str, filter: DeadList, after: str | None, limit: int
    ) -> list[DeadLetter]:
        self._disk.check("scan")
        return await self._disk.inner.scan_dead_letters(tenant, filter, after, limit)

    async def scan_entries(
        self, tenant: str, kind: EntryKind, after: str | None, limit: int, prefix: str = ""
    ) -> list[Entry]:
        self._disk.check("scan")
        return await self._disk.inner.scan_entries(tenant, kind, after, limit, prefix)

    async def scan_children(
        self, tenant: str, task_id: str, cursor: str | None, limit: int
    ) -> Children:
        self._disk.check("scan")
        return await self._disk.inner.scan_children(tenant, task_id, cursor, limit)

    async def scan_outbox(
        self, now: int, limit: int, channels: Collection[str]
    ) -> list[tuple[str, OutboxEntry, Promise]]:
        self._disk.check("scan")
        return await self._disk.inner.scan_outbox(now, limit, channels)

    async def next_message(self, channels: Collection[str]) -> int | None:
        self._disk.check("scan")
        return await self._disk.inner.next_message(channels)

    async def due(self, now: int, limit: int) -> Due:
        self._disk.check("scan")
        return await self._disk.inner.due(now, limit)

    async def next_due(self) -> int | None:
        self._disk.check("scan")
        return await self._disk.inner.next_due()

    async def queue_counts(self, tenant: str, queue: str, now: int) -> QueueCounts:
        self._disk.check("scan")
        return await self._disk.inner.queue_counts(tenant, queue, now)

    async def dump(self, tenant: str) -> Dump:
        return await self._disk.inner.dump(tenant)

    async def counts(self) -> dict[str, int]:
        return await self._disk.inner.counts()


def _named(changes: Changes) -> str:
    """What a step touched, in the order of ids, never of hashes."""
    promises = " ".join(f"{id}={changes.promises[id].state}" for id in sorted(changes.promises))
    tasks = " ".join(
        f"{id}={changes.tasks[id].state}/{changes.tasks[id].version}"
        for id in sorted(changes.tasks)
    )
    return f"[{promises}] [{tasks}]"
