"""The disk: one store for all servers of a world, behind a layer of faults.

Commits are atomic; what was not committed dies with its process. A commit is written, then synced,
and only then seen by others and reported: a power cut, which ends all processes on the disk at once,
takes what was not synced. Which store it is that the disk holds, its `medium` knows. Only one process
writes at a time, as with a file.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import Final, NamedTuple

from kept.check.monitor import Monitor
from kept.errors import CommitUnknownError, StoreError
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
from kept.runtime import Runtime
from kept.sim.breakage import BrokenStep, broken_step
from kept.sim.loop import SimulatedLoop, SimulationStuckError
from kept.sim.medium import Medium, MemoryMedium, Restore
from kept.sim.mix import Mix
from kept.sim.news import News
from kept.sim.process import Process, current_owner
from kept.sim.recording import Recording
from kept.sim.runtime import SimulatedRuntime
from kept.sim.sqlite_medium import SqliteMedium
from kept.sim.storage_faults import BEGIN, LOAD, OTHER, SAVE, SCAN, StorageFaults
from kept.sim.strikes import Strikes
from kept.sim.trace import BROKEN, FAULT, Trace
from kept.sim.turns import Turns
from kept.stores.base import Store, Transaction

# When the power may be cut: whatever happens, or while a commit is being written, or when it is
# synced and nobody knows.
NOW: Final = "now"
WRITTEN: Final = "written"
SYNCED: Final = "synced"
TRUTH: Final = "a commit's outcome is told as it is"
# Until when a commit is lost that its store reported without having synced it.
UNSYNCED_SECONDS: Final = 30.0
# A look for what is due is followed by steps, or by a wait.
MAX_LOOKS_IN_A_TURN: Final = 1_000

DISK: Final = "disk"


class _Unsynced(NamedTuple):
    """A commit that was reported before it was synced: when it will be, and what there was before."""

    synced_at: float
    restore: Restore


class Disk:
    """What survives. `monitor` follows the steps of all processes, `kill` ends one of them, and
    `break_off` is told what is wrong."""

    # Seconds from a commit's report to its sync. Those that tell lies about it have more than none.
    sync_lag = 0.0

    def __init__(
        self,
        loop: SimulatedLoop,
        random: Random,
        mix: Mix,
        trace: Trace,
        runtime: SimulatedRuntime,
        monitor: Monitor,
        kill: Callable[[Process, str], None],
        strikes: Strikes,
        recording: Recording,
        break_off: Callable[[str, str], None],
    ) -> None:
        self.loop = loop
        self.monitor = monitor
        self.trace = trace
        self.faulty = True
        # Who commits next dies, before or after.
        self.crash_before = False
        self.crash_after = False
        self.commits = 0
        # The first step that is wrong.
        self.broken: BrokenStep | None = None
        self._random = random
        self._mix = mix
        self._kill = kill
        self._counted = strikes
        self._recording = recording
        self.break_off = break_off
        self.faults = StorageFaults(random, loop.time, self._strikes)
        on_sqlite = mix.store == "sqlite"
        loses = lambda: self._strikes("notice_lost")  # noqa: E731
        self.news = News(loop, random, loses, repairs=not on_sqlite)
        self.medium: Medium = (SqliteMedium if on_sqlite else MemoryMedium)(
            runtime, self.faults, self.news
        )
        self._stores: list[SimulatedStore] = []
        self.turns = Turns(loop)
        self._unsynced: deque[_Unsynced] = deque()
        # Where the next commit stands still, because the power is about to be cut.
        self._cut_at = ""
        self._cut: asyncio.Future[None] | None = None

    def store(self, process: Process, runtime: Runtime) -> SimulatedStore:
        """The store as a process has it open."""
        store = SimulatedStore(self, process, runtime)
        self._stores.append(store)
        process.on_death.append(lambda: self._died(store))
        return store

    @property
    def quiet(self) -> bool:
        """Whether nobody is in the middle of a transaction."""
        return self.turns.holder is None

    def close(self) -> None:
        """The world has ended."""
        self.medium.close()

    # -- faults

    async def commit(self, transaction: SimulatedTransaction, now: int, notice: Notice) -> None:
        """Time, faults, and the commit itself, which also tells the others."""
        process = transaction.process
        await self._pass_time()
        if self.crash_before:
            self.crash_before = False
            self._kill(process, "crash_before_commit")
            await self._death(process)
        await self._stand_still_at(WRITTEN)
        if self.sync_lag or not self.medium.synced(process):
            transaction.before = self.medium.savepoint()
        batch_id = transaction.batch_id
        try:
            await self.medium.commit(process, transaction.inner, batch_id, now, notice)
        except CommitUnknownError:
            # Which may be said of either.
            raise
        except StoreError:
            if self.medium.committed(batch_id):
                self.break_off(TRUTH, f"batch {batch_id} failed, they say, and was committed")
            raise
        if not self.medium.committed(batch_id):
            self.break_off(TRUTH, f"batch {batch_id} was committed, they say, and was not")
        await self._stand_still_at(SYNCED)
        if self.crash_after:
            self.crash_after = False
            self._kill(process, "crash_after_commit")
            await self._death(process)
        await self._pass_time()

    async def _pass_time(self) -> None:
        await self.loop.pause(self._random.uniform(*self._mix.commit_seconds))

    async def _death(self, process: Process) -> None:
        """A process ends between two callbacks: this one it does not get past."""
        await self.loop.create_future()
        raise AssertionError(f"{process} is dead and runs")

    def _strikes(self, fault: str) -> bool:
        rate = self._mix.faults.get(fault)
        if rate is None or not self.faulty:
            return False
        if self._random.random() >= rate and not self._counted.is_overdue(fault, rate):
            return False
        if not self._counted.allow(fault):
            return False
        owner = current_owner()
        self.trace.note(f"{FAULT}{fault}", owner.name if owner is not None else DISK)
        return True

    def next_commit(self, at: str) -> asyncio.Future[None]:
        """Done when a commit has come to this point, where it stands still for a power cut."""
        self._cut_at = at
        self._cut = self.loop.create_future()
        return self._cut

    async def _stand_still_at(self, point: str) -> None:
        if self._cut is not None and not self._cut.done() and point == self._cut_at:
            self._cut.set_result(None)
            await self.loop.create_future()

    def cut_power(self, kill: Callable[[Process], None]) -> None:
        """All processes on the disk end now, and what was not synced is gone."""
        self._cut = None
        for store in list(self._stores):
            kill(store.process)
        now = self.loop.time()
        lost = [commit for commit in self._unsynced if commit.synced_at > now]
        self._unsynced.clear()
        if lost:
            lost[0].restore()

    def happened(self, transaction: SimulatedTransaction) -> None:
        """A transaction is over, and was committed."""
        self.commits += 1
        self.trace.note("commit", transaction.process.name, transaction.batch_id)
        self._recording.committed(transaction.process)
        if transaction.before is None:
            return
        now = self.loop.time()
        while self._unsynced and self._unsynced[0].synced_at <= now:
            self._unsynced.popleft()
        lag = self.sync_lag or UNSYNCED_SECONDS
        self._unsynced.append(_Unsynced(now + lag, transaction.before))

    def _died(self, store: SimulatedStore) -> None:
        self._stores.remove(store)
        self.news.leave(store.process)
        self.medium.release(store.process)
        store.end_transaction()
        self.turns.died(store.process)


class SimulatedTransaction:
    """A transaction of one process. Its steps are undone with it."""

    def __init__(self, disk: Disk, process: Process, inner: Transaction) -> None:
        self.process = process
        self.inner = inner
        self.batch_id = ""
        self.clock_floor = inner.clock_floor
        self.undo_point = disk.monitor.mark()
        # What the disk held before the commit, where that is not synced when it is reported.
        self.before: Restore | None = None
        self.ended = False
        self._disk = disk

    async def load(self, tenant: str, reads: Reads, now: int) -> Loaded:
        self._disk.medium.before(LOAD)
        return await self.inner.load(tenant, reads, now)

    async def save(self, tenant: str, changes: Changes) -> None:
        self._disk.medium.before(SAVE)
        await self.inner.save(tenant, changes)

    async def commit(self, batch_id: str, now: int, notice: Notice) -> None:
        self.batch_id = batch_id
        await self._disk.commit(self, now, notice)

    def end(self) -> None:
        """Over; the steps of one that was not committed did not happen. Idempotent. What happened
        is asked of the disk, because its process may have ended before it was told."""
        if self.ended:
            return
        self.ended = True
        if self.batch_id and self._disk.medium.committed(self.batch_id):
            self._disk.happened(self)
        else:
            self._disk.monitor.rollback(self.undo_point)


class SimulatedStore:
    """A `Store` of one process on the disk, and the `StepObserver` that goes with it."""

    def __init__(self, disk: Disk, process: Process, runtime: Runtime) -> None:
        self.on_notice: Callable[[Notice], None] | None = None
        self.process = process
        self._disk = disk
        self._looks = self._looked_in = 0
        self._inner: Store = disk.medium.store(process, runtime, self._hear)
        self._transaction: SimulatedTransaction | None = None

    async def open(self) -> None:
        self._disk.medium.before(OTHER)
        turn = await self._disk.turns.take(self.process)
        try:
            await self._inner.open()
        finally:
            self._disk.turns.give_back(turn)

    async def close(self) -> None:
        """Hears no more of others."""
        self.on_notice = None
        await self._inner.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SimulatedTransaction]:
        self._transaction = None
        turn = await self._disk.turns.take(self.process)
        try:
            self._disk.medium.before(BEGIN)
            async with self._inner.transaction() as inner:
                self._transaction = SimulatedTransaction(self._disk, self.process, inner)
                yield self._transaction
        finally:
            self.end_transaction()
            self._disk.turns.give_back(turn)

    def end_transaction(self) -> None:
        """Ends the transaction that is under way, if there is one; idempotent."""
        if self._transaction is not None:
            self._transaction.end()

    def _hear(self, notice: Notice) -> None:
        """Another process committed."""
        if self.on_notice is not None:
            self.on_notice(notice)

    async def committed(self, batch_id: str) -> bool:
        return await self._inner.committed(batch_id)

    async def ping(self) -> None:
        self._disk.medium.before(OTHER)
        await self._inner.ping()

    # -- observer

    def step(self, tenant: str, now: int, name: str, internal: bool, changes: Changes) -> None:  # noqa: FBT001
        self._disk.trace.note("step", self.process.name, f"{name} {now} {_named(changes)}")
        try:
            self._disk.monitor.step(tenant, now, name, internal, changes)
        except AssertionError as error:
            if self._disk.broken is None:
                before = self._disk.monitor.state(tenant)
                self._disk.broken = broken_step(error, self.process.name, before, name, changes)
                self._disk.trace.note(BROKEN, self.process.name, str(error))
            raise

    def mark(self) -> int:
        return self._disk.monitor.mark() if self._transaction is not None else -1

    def rollback(self, mark: int) -> None:
        """A step that raises goes back to a mark of its own transaction; a commit that fails was
        taken back already, when its transaction ended."""
        monitor, transaction = self._disk.monitor, self._transaction
        if transaction is not None and not transaction.ended:
            monitor.rollback(max(mark, transaction.undo_point))

    # -- scans

    async def scan_promises(
        self, tenant: str, after: str | None, limit: int, equals: Mapping[str, str]
    ) -> list[Promise]:
        self._disk.medium.before(SCAN)
        return await self._inner.scan_promises(tenant, after, limit, equals)

    async def scan_tasks(
        self, tenant: str, after: str | None, limit: int, prefix: str = ""
    ) -> list[tuple[Task, Promise]]:
        self._disk.medium.before(SCAN)
        return await self._inner.scan_tasks(tenant, after, limit, prefix)

    async def scan_schedules(
        self, tenant: str, after: str | None, limit: int, prefix: str = ""
    ) -> list[ScheduleRecord]:
        self._disk.medium.before(SCAN)
        return await self._inner.scan_schedules(tenant, after, limit, prefix)

    async def scan_dead_letters(
        self,
        tenant: str,
        filter: DeadList,
        after: str | None,
        limit: int,
        prefix: str = "",
        walk: int = MAX_SEARCH_SCAN_ROWS,
    ) -> Letters:
        self._disk.medium.before(SCAN)
        return await self._inner.scan_dead_letters(tenant, filter, after, limit, prefix, walk)

    async def scan_entries(
        self, tenant: str, kind: EntryKind, after: str | None, limit: int, prefix: str = ""
    ) -> list[Entry]:
        self._disk.medium.before(SCAN)
        return await self._inner.scan_entries(tenant, kind, after, limit, prefix)

    async def scan_children(
        self, tenant: str, task_id: str, cursor: str | None, limit: int
    ) -> Children:
        self._disk.medium.before(SCAN)
        return await self._inner.scan_children(tenant, task_id, cursor, limit)

    async def scan_outbox(
        self, now: int, limit: int, channels: Collection[str]
    ) -> list[tuple[str, OutboxEntry, Promise]]:
        self._look()
        return await self._inner.scan_outbox(now, limit, channels)

    async def next_message(self, channels: Collection[str]) -> int | None:
        self._look()
        return await self._inner.next_message(channels)

    async def due(self, now: int, limit: int) -> Due:
        self._look()
        return await self._inner.due(now, limit)

    def _look(self) -> None:
        """A look for what is due. It takes no time here, so who looks for ever would never give
        others a turn."""
        turn = self._disk.loop.callbacks
        self._looks = self._looks + 1 if turn == self._looked_in else 0
        self._looked_in = turn
        if self._looks > MAX_LOOKS_IN_A_TURN:
            why = f"{self.process.name} looks for what is due again and again"
            self._disk.break_off("nobody runs for ever", why)
            raise SimulationStuckError(why)
        self._disk.medium.before(SCAN)

    async def next_due(self) -> int | None:
        self._look()
        return await self._inner.next_due()

    async def queue_counts(self, tenant: str, queue: str, now: int) -> QueueCounts:
        self._disk.medium.before(SCAN)
        return await self._inner.queue_counts(tenant, queue, now)

    async def queue_names(self, limit: int) -> list[tuple[str, str]]:
        self._disk.medium.before(SCAN)
        return await self._inner.queue_names(limit)

    async def worker_leases(self, limit: int) -> dict[str, int]:
        self._disk.medium.before(SCAN)
        return await self._inner.worker_leases(limit)

    async def holders(self, tenant: str, slots: Slots, limit: int) -> list[Holder]:
        self._disk.medium.before(SCAN)
        return await self._inner.holders(tenant, slots, limit)

    async def count_before(self, tenant: str, id: str, limit: int) -> int:
        self._disk.medium.before(SCAN)
        return await self._inner.count_before(tenant, id, limit)

    async def awaited_by(self, tenant: str, id: str, limit: int) -> Awaited:
        self._disk.medium.before(SCAN)
        return await self._inner.awaited_by(tenant, id, limit)

    async def dump(self, tenant: str) -> Dump:
        return await self._inner.dump(tenant)

    async def counts(self) -> dict[str, int]:
        return await self._inner.counts()


def _named(changes: Changes) -> str:
    """What a step touched, in the order of ids, never of hashes."""
    promises = " ".join(f"{id}={changes.promises[id].state}" for id in sorted(changes.promises))
    tasks = " ".join(
        f"{id}={changes.tasks[id].state}/{changes.tasks[id].version}"
        for id in sorted(changes.tasks)
    )
    return f"[{promises}] [{tasks}]"
