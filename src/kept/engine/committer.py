"""The batch: load, apply, save, one commit (design section 2).

Whatever arrives while a commit is in flight gathers into the next batch, so an idle engine adds no
delay and a busy one pays for one fsync per batch. Nobody's answer is given before its commit.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from kept.engine.alarm import Alarm
from kept.engine.config import MAX_COMMIT_ITEMS, MAX_QUEUED_ITEMS
from kept.engine.counting import Occurrence
from kept.engine.notices import notice_of
from kept.engine.statistics import Statistics
from kept.engine.waiters import Place, Waiters
from kept.errors import CommitUnknownError, StoreError
from kept.machine.background import InternalStep, RetryTask
from kept.machine.dispatch import Machine
from kept.machine.not_loaded import NotLoaded
from kept.machine.reads import plan
from kept.machine.step import MachineConfig
from kept.machine.working_set import WorkingSet
from kept.protocol import guard_requests as g
from kept.protocol import requests as r
from kept.protocol.entries import Lock, Slots
from kept.protocol.records import Delivery, OutboxEntry, TaskState
from kept.protocol.requests import Request, TaskClaim
from kept.protocol.responses import INTERNAL, SHED, UNAVAILABLE, ClaimResult, Response
from kept.protocol.storage import Changes, Notice, Reads, StepObserver
from kept.runtime import Runtime
from kept.stores.base import Store, Transaction

log = logging.getLogger("kept.engine")

_PUSH: Final = Delivery.PUSH

_TAKING: Final = (TaskClaim, g.LockAcquire, g.SlotAcquire)

Outcome: TypeAlias = Response | OutboxEntry | None


class Item:
    """Something to be applied: a request or a background step, and where its outcome goes."""

    __slots__ = ("changed", "done", "fixed_now", "last", "outcome", "request_id", "tenant", "work")

    def __init__(
        self,
        tenant: str,
        work: Request | InternalStep,
        fixed_now: int | None = None,
        request_id: str | None = None,
    ) -> None:
        self.tenant = tenant
        self.work = work
        # Debug only: the clock of this one request.
        self.fixed_now = fixed_now
        self.request_id = request_id
        self.outcome: Outcome = None
        # Shared by those that were submitted together; set with the last of them.
        self.done: asyncio.Future[None] | None = None
        self.last = False
        # Of a background step: whether it did anything.
        self.changed = False

    @property
    def given_up(self) -> bool:
        """Whether this would take something for a caller that no longer waits for the answer."""
        return isinstance(self.work, _TAKING) and self.done is not None and self.done.cancelled()

    @property
    def refused(self) -> bool:
        """Whether a background step could not be taken, or its commit failed."""
        return isinstance(self.outcome, Response)

    @property
    def progressed(self) -> bool:
        """Whether a background step was enabled, and is committed."""
        return self.changed and not self.refused


class Committer:
    """Applies items in batches, one after another."""

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        machine_config: MachineConfig,
        statistics: Statistics,
        on_commit: Callable[[Notice], None],
        observer: StepObserver | None = None,
        waiters: Waiters | None = None,
    ) -> None:
        self.waiters = Waiters() if waiters is None else waiters
        self._store = store
        self._runtime = runtime
        self._machine_config = machine_config
        self._statistics = statistics
        self._on_commit = on_commit
        self._observer = observer
        self._queue: deque[Item] = deque()
        self._alarm = Alarm()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        # Whether pushed tasks are dispatched in the commit that makes them due.
        self.dispatching = True
        # The `now` of the latest commit.
        self._latest = 0

    def start(self) -> None:
        self._task = self._runtime.spawn(self._run(), "kept-committer")

    async def stop(self) -> None:
        """Applies what is queued, then ends."""
        self._stopping = True
        self._alarm.ring()
        if self._task is not None:
            await self._task
            self._task = None

    def now_ms(self) -> int:
        """The clock by which commits decide: it stands still while the wall's is set back (A3)."""
        return max(self._runtime.now_ms(), self._latest)

    def seconds_until(self, instant: int) -> float:
        """How long until that clock shows an instant (ms). One that stands still moves on only when
        the wall's has caught up: who waited by it would look again and again in vain."""
        return max(instant - self._runtime.now_ms(), 0) / 1_000 if instant > self._latest else 0.0

    async def apply(self, items: Sequence[Item]) -> None:
        """Applies items in order and returns when all are committed; outcomes are in the items.

        Items of one call may be spread over several commits. What fails, fails by its outcome.
        """
        if not items:
            return
        if self._stopping or self._task is None or self._task.done():
            self._refuse(items, UNAVAILABLE, "the engine is stopping; ask again")
            return
        if len(self._queue) + len(items) > MAX_QUEUED_ITEMS:
            self._refuse(items, SHED, "too many requests are waiting; ask again later")
            return
        done = asyncio.get_running_loop().create_future()
        for item in items:
            item.done = done
            self._queue.append(item)
        items[-1].last = True
        self._alarm.ring()
        try:
            await done
        except asyncio.CancelledError:
            if not done.cancelled():
                # Given up after the commit, before the answer was read.
                for item in items:
                    self._hand_back(item)
                self._alarm.ring()
            raise

    def post(self, item: Item) -> None:
        """Applies an item for whose outcome nobody waits, as soon as it is its turn."""
        self._queue.append(item)
        self._alarm.ring()

    async def reset(self, tenant: str) -> None:
        """Forgets everything of a tenant (debug.reset)."""
        changes = Changes(reset=True)
        async with self._store.transaction() as transaction:
            now = transaction.clock_floor
            await transaction.save(tenant, changes)
            await transaction.commit(self.new_batch_id(), now, Notice())
        if self._observer is not None:
            self._observer.step(tenant, now, r.DebugReset.kind, False, changes)

    @staticmethod
    def _refuse(items: Sequence[Item], status: int, text: str) -> None:
        for item in items:
            item.outcome = Response(status, text)

    async def _run(self) -> None:
        while self._queue or not self._stopping:
            if not self._queue:
                await self._alarm.wait(None)
                continue
            size = min(len(self._queue), MAX_COMMIT_ITEMS)
            batch = [self._queue.popleft() for _ in range(size)]
            self._statistics.queued = len(self._queue)
            batch = [item for item in batch if not item.given_up]
            if not batch:
                continue
            notice = await self._commit(batch)
            self._answer(batch)
            if notice:
                self._on_commit(notice)

    def _answer(self, batch: list[Item]) -> None:
        for item in batch:
            if item.given_up:
                self._hand_back(item)
            elif item.last and item.done is not None and not item.done.done():
                item.done.set_result(None)

    def _hand_back(self, item: Item) -> None:
        """Releases what a claim got that was given up during its commit: nobody will work on it."""
        if not isinstance(item.outcome, Response) or not isinstance(item.outcome.data, ClaimResult):
            return
        leases = item.outcome.data.tasks
        releases = [
            Item(item.tenant, r.TaskRelease(lease.task.id, lease.task.version), item.fixed_now)
            for lease in leases
        ]
        # First of all: a repetition of the claim may be queued already, and must not be answered
        # with leases that are then taken away.
        self._queue.extendleft(reversed(releases))

    async def _commit(self, items: list[Item]) -> Notice:
        """One batch. A failed commit fails every item with a retryable error (B1)."""
        statistics = self._statistics
        started = self._runtime.monotonic()
        undo_point = self._observer.mark() if self._observer else 0
        statistics.batches += 1
        statistics.batch_requests += len(items)
        try:
            async with self._store.transaction() as transaction:
                now = self._latest = max(self.now_ms(), transaction.clock_floor)
                batch = _Batch(self, transaction, now)
                notice = await batch.run(items)
        except CommitUnknownError as error:
            # Not the answer that promises that nothing happened: a client must look, not repeat.
            log.error("the outcome of a commit is unknown, of %d requests: %s", len(items), error)
            self._failed(undo_point)
            self._refuse(
                items, INTERNAL, f"it may have been applied, look before you repeat: {error}"
            )
            return Notice(everything=True)
        except StoreError as error:
            log.error("a commit failed, %d requests with it: %s", len(items), error)
            self._failed(undo_point)
            self._refuse(items, UNAVAILABLE, f"nothing was applied; ask again: {error}")
            return Notice()
        except Exception:
            log.exception("a commit failed, %d requests with it", len(items))
            self._failed(undo_point)
            self._refuse(items, INTERNAL, "internal error: the request was not applied")
            return Notice()
        statistics.committed(self._runtime.monotonic() - started, len(items))
        statistics.work.count(batch.occurrences)
        for place, response in batch.handed_over:
            place.answer = response
            place.wake()
        return notice

    def _failed(self, undo_point: int) -> None:
        self._statistics.failed_batches += 1
        if self._observer is not None:
            self._observer.rollback(undo_point)

    def machine(self, tenant: str) -> Machine:
        return Machine(tenant, WorkingSet(), self._machine_config, self._observer)

    def new_batch_id(self) -> str:
        return self._runtime.entropy(16).hex()


class _Batch:
    """One batch inside its transaction."""

    def __init__(self, committer: Committer, transaction: Transaction, now: int) -> None:
        self._committer = committer
        self._transaction = transaction
        self._now = now
        # What is due by the latest clock of the batch is loaded; the claims decide.
        self._load_until = now
        self._machines: dict[str, Machine] = {}
        # What is counted once it is committed.
        self.occurrences: list[Occurrence] = []
        # The grants of those who waited for what this batch freed.
        self.handed_over: list[tuple[Place, Response]] = []

    async def run(self, items: list[Item]) -> Notice:
        """Loads, applies, saves and commits; answers what the commit means to others."""
        await self._load_planned(items)
        for item in items:
            item.outcome = await self._apply(item)
        if self._committer.dispatching:
            await self._dispatch_due()
        if self._committer.waiters.any_in_line:
            await self._hand_over()
        notice = Notice()
        changed = False
        for tenant, machine in self._machines.items():
            changes = machine.records.changes()
            if changes:
                changed = True
                await self._transaction.save(tenant, changes)
                notice_of(tenant, changes, self._now, notice)
        if changed:
            batch_id = self._committer.new_batch_id()
            await self._transaction.commit(batch_id, self._now, notice)
        return notice

    async def _load_planned(self, items: list[Item]) -> None:
        planned: dict[str, Reads] = {}
        for item in items:
            self._load_until = max(self._load_until, item.fixed_now or 0)
            reads = planned.get(item.tenant)
            if reads is None:
                reads = planned[item.tenant] = Reads()
                self._machines[item.tenant] = self._committer.machine(item.tenant)
            plan(item.work, reads)
            if item.request_id is not None and isinstance(item.work, TaskClaim):
                reads.requests.add(item.request_id)
        for tenant, reads in planned.items():
            await self._load(tenant, reads)

    async def _load(self, tenant: str, reads: Reads) -> None:
        """Loads keys, and what those make necessary, until nothing is missing."""
        records = self._machines[tenant].records
        while reads:
            loaded = await self._transaction.load(tenant, reads, self._load_until)
            reads = records.add(reads, loaded, self._load_until)

    async def _apply(self, item: Item) -> Outcome:
        now = self._now if item.fixed_now is None else item.fixed_now
        machine = self._machines[item.tenant]
        while True:
            try:
                if isinstance(item.work, Request):
                    response = machine.apply(item.work, now, item.request_id)
                    self._gather(item, machine, now)
                    return response
                taken = machine.apply_internal(item.work, now)
                item.changed = machine.changed
                self._gather(item, machine, now)
                return taken
            except NotLoaded as missing:
                await self._load(item.tenant, missing.reads)
            except Exception:
                # A fault of the machine fails its own request only; the machine has undone it.
                log.exception("%s failed", type(item.work).__name__)
                return Response(INTERNAL, "internal error: the request was not applied")

    def _gather(self, item: Item, machine: Machine, now: int) -> None:
        """Keeps what the machine noted of this item until the commit."""
        records = machine.records
        for event in records.events:
            self.occurrences.append(Occurrence(event, item.work, item.tenant, now, records))
        records.forget_events()

    async def _hand_over(self) -> None:
        """Those whose turn has come and who wait in this process get theirs in the same commit;
        those who wait elsewhere are told by its notice."""
        for tenant, machine in self._machines.items():
            for entry in machine.records.changed_entries():
                if not isinstance(entry.data, Lock | Slots):
                    continue
                for waiter in entry.data.waiters:
                    key = (tenant, entry.key.kind.value, entry.key.name, waiter.holder)
                    if waiter.turn is not None:
                        await self._take_turn(tenant, self._committer.waiters.places_of(key))

    async def _take_turn(self, tenant: str, places: list[Place]) -> None:
        if places:
            first = places[0]
            item = Item(tenant, first.work, first.fixed_now, first.request_id)
            outcome = await self._apply(item)
            if isinstance(outcome, Response) and outcome.ok:
                self.handed_over += [(place, outcome) for place in places]

    async def _dispatch_due(self) -> None:
        """Pushed tasks that this batch made due are dispatched in its own commit."""
        for tenant, machine in self._machines.items():
            due = [
                task.id
                for task in machine.records.changed_tasks()
                if task.delivery is _PUSH
                and task.state is TaskState.PENDING
                and task.retry_at is not None
                and task.retry_at <= self._now
            ]
            for id in due:
                await self._apply(Item(tenant, RetryTask(id)))
