"""The background steps' timer: fires what is due when it is due, and repairs by scanning (A5)."""

from __future__ import annotations

import asyncio
import logging

from kept.engine.alarm import Alarm
from kept.engine.bulk import with_parts
from kept.engine.committer import Committer, Item
from kept.engine.config import MAX_DUE_ITEMS, MAX_TREE_LOOKS, EngineConfig
from kept.engine.statistics import Statistics
from kept.errors import StoreError
from kept.machine import background as steps
from kept.protocol.storage import Due
from kept.runtime import Runtime
from kept.stores.base import Store

log = logging.getLogger("kept.engine")


class Background:
    """One timer for the next due instant of anything; a scan says what is due then."""

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        committer: Committer,
        config: EngineConfig,
        statistics: Statistics,
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._committer = committer
        self._repair_ms = config.repair_ms
        self._statistics = statistics
        self._alarm = Alarm()
        # The earliest instant (ms) known at which something is due; None: nothing is.
        self._due_at: int | None = 0
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self.paused = False

    def start(self) -> None:
        self._task = self._runtime.spawn(self._run(), "kept-background")

    async def stop(self) -> None:
        self._stopping = True
        self._alarm.ring()
        if self._task is not None:
            await self._task
            self._task = None

    def expect(self, due_at: int | None) -> None:
        """Something will be due at an instant (ms)."""
        if self._note(due_at):
            self._alarm.ring()

    def _note(self, due_at: int | None) -> bool:
        """Whether an instant is earlier than all that is expected; it is expected from now on."""
        if due_at is None or (self._due_at is not None and self._due_at <= due_at):
            return False
        self._due_at = due_at
        return True

    def resume(self) -> None:
        """Goes on after a pause."""
        self.paused = False
        self._due_at = 0
        self._alarm.ring()

    async def _run(self) -> None:
        while not self._stopping:
            await self._alarm.wait(self._seconds_to_wait())
            if self.paused:
                continue
            try:
                await self._fire_due()
            except StoreError as error:
                log.error("looking for due work failed, trying again: %s", error)
                self._due_at = None

    def _seconds_to_wait(self) -> float:
        repair = self._repair_ms / 1_000
        if self._due_at is None or self.paused:
            return repair
        return min(self._committer.seconds_until(self._due_at), repair)

    async def _fire_due(self) -> None:
        """Fires everything that is due, until the next is later."""
        before: Due | None = None
        while True:
            # Expectations that arrive from here on are for later than this look.
            self._due_at = None
            now = self._committer.now_ms()
            next_due = await self._store.next_due()
            if next_due is None or next_due > now:
                self._note(next_due)
                return
            due = await self._store.due(now, MAX_DUE_ITEMS)
            items = await with_parts(self._store, items_of(due))
            if not items or self._stopping or self.paused:
                # Another server was faster, if this one does not end.
                self._note(now + 1)
                return
            self._statistics.background_steps += len(items)
            await self._committer.apply(items)
            is_stuck = due == before or any(item.refused for item in items)
            if is_stuck and not any(item.progressed for item in items):
                # Nothing can be committed just now, or what is left fails each time.
                self._note(now + self._repair_ms)
                return
            before = due


def items_of(due: Due, fixed_now: int | None = None) -> list[Item]:
    """The steps for what is due, in the order 1, 4, 6, 5 of the protocol, ids ascending."""
    kinds: tuple[tuple[list[tuple[str, str]], type], ...] = (
        (list(due.deadlines), steps.TimeoutPromise),
        (list(due.drains), steps.DrainEdges),
        (list(due.leases), steps.ExpireLease),
        (list(due.schedules), steps.FireSchedule),
        (list(due.retries), steps.RetryTask),
        (list(due.ready), steps.ReadyTask),
    )
    items = [
        Item(tenant, step(id), fixed_now) for keys, step in kinds for tenant, id in sorted(keys)
    ]
    looks = [Item(tenant, steps.LookAtEntry(key), fixed_now) for tenant, key in sorted(due.entries)]
    # As many as one commit has room for, however many are due: requests come in between.
    trees = sorted(due.trees[:MAX_TREE_LOOKS])
    leaves = [Item(tenant, steps.LeaveTree(key), fixed_now) for tenant, key in trees]
    return items + looks + leaves
