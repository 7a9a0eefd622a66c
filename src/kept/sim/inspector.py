"""What each step must not do, judged without the machine's own rules, and how soon it must do it.

The named properties (`check/properties`) say what any implementation must keep. Here is what they
leave open and clients rely on: the order of a queue, counts of failures, waits between tries, in
`timetable.py` the instants of schedules, in `lines.py` locks and slots; and in prompt worlds, where
nothing goes wrong and messages are fast, that nothing waits for a scan that repairs what a lost wake-up
left behind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kept.check.monitor import Monitor
from kept.check.state import State
from kept.protocol import tags as tag
from kept.protocol.addresses import queue_of
from kept.protocol.entries import EntryKey, EntryKind, QueueSettings, ScheduleLine
from kept.protocol.limits import DEFAULT_RETENTION_MS, NEVER_MS
from kept.protocol.records import (
    Delivery,
    MessageKey,
    OutboxEntry,
    Promise,
    PromiseState,
    Task,
    TaskState,
)
from kept.protocol.storage import DEFAULT_TENANT, Changes
from kept.sim.ledger import Ledger
from kept.sim.lines import HELD, Lines
from kept.sim.mix import Mix
from kept.sim.programs.rollouts import NEW
from kept.sim.timetable import WATCHED, Timetable, line_of
from kept.transports.poll import KEEP_ALIVE_SECONDS

AGING_MS: Final = 60_000
# A queue on which no claim asks for some functions only, besides the workers' own, which all know
# but for what is new.
ORDERED_QUEUES: Final = frozenset({"default", "ordered"})
LATE_MS: Final = 1_000
# A receiver may be between two streams.
LATE_DELIVERY_MS: Final = 2_500
HEARTBEATING: Final = ("worker-", "receiver-")
CALLING: Final = "once-"
# Where the SDK's workers get their work.
_STRUCTURED: Final = ("queue://default",)
_COUNTING: Final = ("task.nack", "lease.expire")
_RESETTING: Final = ("task.suspend", "dead.replay")


class Inspector:
    """Looks at every step. `instant` gives virtual milliseconds."""

    def __init__(
        self, mix: Mix, ledger: Ledger, instant: Callable[[], float], reachable: frozenset[str]
    ) -> None:
        self._mix = mix
        self._ledger = ledger
        self._instant = instant
        self._reachable = reachable
        self.timetable = Timetable(mix, ledger)
        self._lines = Lines(ledger)
        self.inspected = 0
        # When each promise was settled. A step that is undone leaves its mark, and the next one
        # of its kind replaces it.
        self.settled_at: dict[str, float] = {}
        # What has left, as it was.
        self.departed: dict[str, Promise] = {}
        # When each version of a message was last taken out to be sent.
        self._taken_at: dict[tuple[MessageKey, int], int] = {}
        self._pending_since: dict[str, int] = {}
        # Ids that may be claimable, by queue; those that are not drop out when looked at.
        self._claimable: dict[str, dict[str, None]] = {}

    def saw(self, now: int, name: str, before: Before, state: State, changes: Changes) -> None:
        """A step was taken at `now` (ms): what its records were, and what they are."""
        self.inspected += 1
        for id, promise in changes.promises.items():
            if not promise.pending:
                self._settled(now, before.promises.get(id), promise)
                if name == "task.fulfill" and promise.target in _STRUCTURED:
                    self._returned(promise, state)
        for id in sorted(changes.removed):
            self.departed[id] = before.promises[id]
            self._left(now, before.promises[id], before, state)
        if name == "task.claim":
            self._claimed(now, before, state, changes)
        for id, task in changes.tasks.items():
            self._moved(now, name, before.tasks.get(id), task, state)
        for key, entry in changes.outbox.items():
            self._sent(now, name, key, before.outbox.get(key), entry)
        self.timetable.saw(now, name, before, state, changes)
        self._lines.saw(now, before.held, state)

    def unblocked(self, id: str) -> None:
        """A listener was told of a promise."""
        self._in_time("a listener is told in time", id, LATE_DELIVERY_MS)

    def waited(self, id: str, asked_at: float) -> None:
        """Somebody who waits for a promise, since `asked_at`, was told that it is settled."""
        self._in_time("a waiter is told in time", id, LATE_MS, asked_at)

    def _in_time(self, oracle: str, id: str, limit: float, since: float = 0.0) -> None:
        settled = self.settled_at.get(id)
        if settled is None or not self._mix.prompt:
            return
        late = self._instant() - max(settled, since)
        if late > limit:
            self._ledger.break_off(oracle, f"{id}: after {late:.0f} ms")

    # -- promises

    def _settled(self, now: int, before: Promise | None, promise: Promise) -> None:
        if before is None or not before.pending:
            return
        self.settled_at[promise.id] = self._instant()
        # What a schedule made up for after a pause may be born past its deadline.
        late = now - max(promise.timeout_at, self.timetable.resumed_at(promise))
        armed = promise.is_external and promise.timeout_at != NEVER_MS
        struck = armed and promise.settled_at == promise.timeout_at
        if self._mix.prompt and struck and late > LATE_MS:
            self._ledger.break_off("timers fire in time", f"{promise.id}: {late} ms late")

    def _returned(self, promise: Promise, state: State) -> None:
        """Durable code returned: what it called, and did not detach, has ended (B3)."""
        if promise.state is PromiseState.REJECTED_CANCELED:
            return
        for child in state.promises.values():
            is_its_own = child.parent == promise.id and child.tags.get(tag.DETACHED) != "true"
            if is_its_own and child.pending and child.target in _STRUCTURED:
                why = f"{promise.id} is {promise.state}, {child.id} is pending"
                self._ledger.break_off("nothing is left behind", why)

    def _left(self, now: int, promise: Promise, before: Before, state: State) -> None:
        """A promise was removed: it was settled, for as long as its root's queue says."""
        root = before.promises.get(promise.origin) or state.promises.get(promise.origin)
        queue = queue_of(root.target) if root is not None and root.target is not None else None
        settings = _settings(state, queue or "")
        retention = DEFAULT_RETENTION_MS
        if settings is not None and settings.retention is not None:
            retention = settings.retention
        if promise.settled_at is None or now - promise.settled_at < retention:
            why = f"{promise.id} left at {now}, it was settled at {promise.settled_at}"
            self._ledger.break_off("nothing leaves before its time", why)

    # -- tasks

    def _moved(self, now: int, name: str, before: Task | None, task: Task, state: State) -> None:
        promise = state.promises[task.id]
        if task.state is TaskState.PENDING:
            if task.queue is not None:
                self._claimable.setdefault(task.queue, {})[task.id] = None
            if before is None:
                self._born(now, task, promise)
            self._ranked(before, task, promise, state)
            if before is None or before.state is not TaskState.PENDING:
                self._pending_since[task.id] = max(now, task.retry_at or 0)
        if before is None:
            return
        if before.state is TaskState.PENDING and task.state is TaskState.ACQUIRED:
            self._acquired(now, name, before, task, promise)
        self._count_failures(now, name, before, task, promise)
        if name == "lease.expire" and task.state is not TaskState.ACQUIRED:
            self._expired(now, before, task, promise)
        offered = name == "task.retry" and task.state is TaskState.PENDING
        if offered and (before.retry_at or 0) > now:
            self._ledger.break_off("nothing is dispatched early", f"{task.id} at {now}")

    def _born(self, now: int, task: Task, promise: Promise) -> None:
        due = max(promise.created_at, int(promise.tags.get(tag.DELAY, "0")))
        # The first create of a debounce key may have promised an earlier instant.
        is_capped = tag.DEBOUNCE_MAX in promise.tags and promise.created_at <= (task.retry_at or 0)
        if task.retry_at != due and not (is_capped and (task.retry_at or 0) < due):
            why = f"{task.id} is due at {task.retry_at} instead of {due}, born at {now}"
            self._ledger.break_off("delays are kept", why)

    def _ranked(self, before: Task | None, task: Task, promise: Promise, state: State) -> None:
        """Its place in the queue is when it is due, earlier by the queue's aging for each step of its
        priority, whatever it waits for (B2)."""
        if task.queue is None or (before is not None and before.rank == task.rank):
            return
        settings = _settings(state, task.queue)
        aging = AGING_MS if settings is None or settings.aging is None else settings.aging
        if task.rank != _rank(task, promise, aging):
            why = f"{task.id} is due at {task.retry_at} and has rank {task.rank}: {promise.tags}"
            self._ledger.break_off("priorities count", why)

    def _acquired(self, now: int, name: str, before: Task, task: Task, promise: Promise) -> None:
        if name == "task.claim" and (before.retry_at or 0) > now:
            self._ledger.break_off("nothing is claimed early", f"{task.id} at {now}")
        if promise.pending and promise.timeout_at <= now:
            why = (
                f"{task.id} was given to {task.pid} at {now}, its deadline was {promise.timeout_at}"
            )
            self._ledger.break_off("what is over is not begun", why)
        if name == "task.claim" and task.pid in self._ledger.leaving:
            self._ledger.unreleased[task.id, task.version] = None
        if not self._mix.prompt or not (task.pid or "").startswith(HEARTBEATING):
            return
        pushed = task.delivery is Delivery.PUSH
        if pushed and promise.target not in self._reachable:
            return
        late = now - max(self._pending_since.get(task.id, now), 0)
        if late > (LATE_DELIVERY_MS if pushed else LATE_MS):
            why = f"{task.id}: due for {late} ms when {task.pid} got it"
            self._ledger.break_off("work begins in time", why)

    def _count_failures(
        self, now: int, name: str, before: Task, task: Task, promise: Promise
    ) -> None:
        change = task.failures - before.failures
        if change and not (
            (name in _COUNTING and change == 1) or (name in _RESETTING and not task.failures)
        ):
            why = f"{task.id} had {before.failures}, has {task.failures} after {name}"
            self._ledger.break_off("failures are counted", why)
        if name == "task.suspend" and task.state is TaskState.SUSPENDED and task.failures:
            self._ledger.break_off("progress forgives failures", f"{task.id}: {task.failures}")
        attempts = promise.tags.get(tag.ATTEMPTS)
        if name in _COUNTING and change == 1 and attempts is not None:
            over = task.failures >= int(attempts)
            if over and task.state is TaskState.PENDING:
                why = f"{task.id} goes on after {task.failures} failures of {attempts}"
                self._ledger.break_off("attempts are limited", why)
            if name == "lease.expire" and not over and task.state is not TaskState.PENDING:
                why = f"{task.id} ends after {task.failures} failures of {attempts}"
                self._ledger.break_off("attempts are granted", why)

    def _expired(self, now: int, before: Task, task: Task, promise: Promise) -> None:
        if not promise.pending and promise.settled_at == promise.timeout_at:
            # Its promise's deadline came first.
            return
        if before.state is not TaskState.ACQUIRED or (before.expires_at or 0) > now:
            self._ledger.break_off("leases last", f"{before} expired at {now}")
        if task.failures != before.failures + 1:
            self._ledger.break_off("failures are counted", f"{task} after its lease expired")
        is_known = (task.id, before.version) not in self._ledger.unreleased
        # Clients, too, renew what they hold, and give it back; their leases are short where all is fast.
        holders = (*HEARTBEATING, CALLING) if self._mix.prompt else HEARTBEATING
        if self._mix.gentle and is_known and (before.pid or "").startswith(holders):
            self._ledger.break_off("heartbeats keep leases", f"{before} expired at {now}")
        if task.state is not TaskState.PENDING:
            return
        low, high = 0, 0
        if task.delivery is Delivery.PULL:
            low, high = backoff_range(promise.tags.get(tag.BACKOFF), task.failures)
        wait = (task.retry_at or 0) - now
        if not low <= wait <= high:
            why = f"{task.id} waits {wait} ms, not {low} to {high}, after {task.failures} failures"
            self._ledger.break_off("waits are in their range", why)

    def _claimed(self, now: int, before: Before, state: State, changes: Changes) -> None:
        """Of the due tasks of a queue's lane those of the lowest rank were taken."""
        taken: dict[tuple[str, str | None], int] = {}
        for id, task in changes.tasks.items():
            former = before.tasks.get(id)
            if former is None or task.state is not TaskState.ACQUIRED or task.queue is None:
                continue
            rank = _rank(former, state.promises[id])
            lane = task.queue, task.lane
            taken[lane] = max(rank, taken.get(lane, rank))
        for queue in dict.fromkeys(queue for queue, _ in taken if queue in ORDERED_QUEUES):
            for id in list(self._claimable.get(queue, ())):
                left, promise = state.tasks.get(id), state.promises.get(id)
                if left is None or promise is None or left.state is not TaskState.PENDING:
                    del self._claimable[queue][id]
                    continue
                if promise.function == NEW:
                    continue
                last = taken.get((queue, left.lane))
                is_due = left.ready and promise.timeout_at > now
                if is_due and last is not None and _rank(left, promise) < last:
                    why = f"{id} waits at {_rank(left, promise)}, taken was {last}"
                    self._ledger.break_off("queues are in order", why)

    # -- messages

    def _sent(
        self,
        now: int,
        name: str,
        key: MessageKey,
        before: OutboxEntry | None,
        entry: OutboxEntry | None,
    ) -> None:
        """On a stream, a message counts as delivered one keep-alive after it was written (A6)."""
        if name == "outbox.taken" and entry is not None:
            self._taken_at[key, entry.version] = now
        if name != "outbox.delivered" or before is None or entry is not None:
            return
        taken_at = self._taken_at.get((key, before.version))
        if taken_at is None:
            self._ledger.break_off("messages leave when delivered", f"{before} was never sent")
            return
        soon = now - taken_at < KEEP_ALIVE_SECONDS * 1_000 - LATE_MS
        if self._mix.prompt and before.address.startswith("poll:") and soon:
            why = f"{before} left {now - taken_at} ms after it was sent"
            self._ledger.break_off("messages leave when delivered", why)


class Before:
    """What a step's records were before it."""

    def __init__(self, state: State, changes: Changes) -> None:
        touched = (*changes.promises, *sorted(changes.removed))
        self.promises = {id: p for id in touched if (p := state.promises.get(id))}
        self.tasks = {id: t for id in changes.tasks if (t := state.tasks.get(id))}
        self.outbox = {key: e for key in changes.outbox if (e := state.outbox.get(key))}
        self.schedules = {id: s for id in changes.schedules if (s := state.schedules.get(id))}
        # Of the entries those of schedules.
        watched = [key for key in changes.entries if key.kind in WATCHED]
        self.entries = {key: entry for key in watched if (entry := state.entries.get(key))}
        # And of locks and slots.
        self.held = {key: state.entries.get(key) for key in changes.entries if key.kind in HELD}

    def line(self, schedule_id: str) -> ScheduleLine:
        """What waited in a schedule's line, where the step has touched that."""
        return line_of(self.entries, schedule_id)


class InspectingMonitor(Monitor):
    """A monitor whose steps an inspector sees too."""

    inspector: Inspector | None = None

    def step(self, tenant: str, now: int, name: str, internal: bool, changes: Changes) -> None:  # noqa: FBT001
        before = Before(self.state(tenant), changes)
        super().step(tenant, now, name, internal, changes)
        if self.inspector is not None and tenant == DEFAULT_TENANT:
            self.inspector.saw(now, name, before, self.state(tenant), changes)


def _settings(state: State, queue: str) -> QueueSettings | None:
    entry = state.entries.get(EntryKey(EntryKind.QUEUE, queue))
    return entry.data if entry is not None and isinstance(entry.data, QueueSettings) else None


def _rank(task: Task, promise: Promise, aging: int = AGING_MS) -> int:
    """When it was due, earlier by a fixed time (ms) for each step of its priority (B2)."""
    return (task.retry_at or 0) - int(promise.tags.get(tag.PRIORITY, "0")) * aging


def backoff_range(policy: str | None, failures: int) -> tuple[int, int]:
    """The shortest and the longest wait (ms) that a policy allows after so many failures."""
    name, *numbers = (policy or "full_jitter:1000:900000").split(":")
    base, limit = int(numbers[0]), int(numbers[-1])
    if name == "fixed":
        return base, base
    if name == "linear":
        wait = min(base * failures, limit)
        return wait, wait
    full = limit if failures > 60 else min(base * 2 ** (failures - 1), limit)
    low = {"exponential": full, "equal_jitter": full // 2, "full_jitter": 0}[name]
    return low, full
