"""What a store finds, held against the records that the steps wrote.

A dump shows that a store keeps what it was given. This shows that it finds it again: pages of a
search, what is due, the heads of queues, edges in order. Each call draws some questions and answers
them from the `State` by walking through all of it, in the simplest way that is right. Of what is due
at the same instant any order will do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from random import Random
from typing import Final

from kept.check.answers import check_first, same
from kept.check.fronts import check_heads
from kept.check.state import NO_ENDS, State
from kept.protocol.addresses import channel_of
from kept.protocol.entries import TREE_KINDS, EntryKind
from kept.protocol.limits import MAX_EDGES_PER_STEP
from kept.protocol.records import DeadLetter, Delivery, Promise, Task, TaskState
from kept.protocol.requests import DeadList
from kept.protocol.storage import (
    Head,
    Key,
    LaneHead,
    LaneSpan,
    QueueCounts,
    Reads,
    Slots,
)
from kept.stores.base import Store

# Questions of each kind at one call, and how much is asked for in one.
ROUNDS: Final = 3
LIMITS: Final = (1, 2, 3, 10, 100)
# How far from the clock (ms) the instants are at which something is due.
BEHIND_MS: Final = 60_000
AHEAD_MS: Final = 3_600_000
SHARE_OF_FIRST_PAGES: Final = 0.3
SHARE_OF_WAITING: Final = 0.7


class Scans:
    """Asks `store` about the records of all tenants in `states`, as of `clock` (ms)."""

    def __init__(
        self, store: Store, states: Mapping[str, State], clock: int, random: Random
    ) -> None:
        self._store = store
        self._states = states
        self._clock = clock
        self._random = random

    async def compare(self) -> None:
        """Raises `ScanDiffersError` for the first answer that is wrong."""
        for tenant, state in self._states.items():
            for _ in range(ROUNDS):
                await self._promises(tenant, state)
                await self._tasks(tenant, state)
                await self._children(tenant, state)
                await self._loads(tenant, state)
            await self._rest(tenant, state)
        await self._due()
        await self._outbox()
        await self._counts()

    # -- pages by id

    def _page(self, ids: Iterable[str]) -> tuple[list[str], str | None, int]:
        """The ids of a page, where it begins, and how long it may be."""
        order, limit = sorted(ids), self._random.choice(LIMITS)
        after: str | None = None
        if order and self._random.random() > SHARE_OF_FIRST_PAGES:
            after = self._random.choice(order)
        return [id for id in order if after is None or id > after][:limit], after, limit

    async def _promises(self, tenant: str, state: State) -> None:
        equals: dict[str, str] = {}
        if state.promises:
            some = state.promises[self._random.choice(list(state.promises))]
            name = self._random.choice(("", "prefix", "origin", "parent", "branch", "function"))
            value = self._prefix(some.id) if name == "prefix" else getattr(some, name or "id")
            if name and value is not None:
                equals[name] = value
        wanted = (p.id for p in state.promises.values() if _has(p, equals))
        page, after, limit = self._page(wanted)
        found = await self._store.scan_promises(tenant, after, limit, equals)
        expected = [state.promises[id] for id in page]
        same(f"scan_promises after {after}, {limit} with {equals}", expected, found)

    async def _tasks(self, tenant: str, state: State) -> None:
        prefix = ""
        if state.tasks:
            prefix = self._prefix(self._random.choice(list(state.tasks)))
        page, after, limit = self._page(id for id in state.tasks if id.startswith(prefix))
        found = await self._store.scan_tasks(tenant, after, limit, prefix)
        expected = [(state.tasks[id], state.promises[id]) for id in page]
        same(f"scan_tasks after {after}, {limit} of {prefix!r}", expected, found)

    def _prefix(self, id: str) -> str:
        return id[: self._random.randrange(len(id) + 1)]

    async def _rest(self, tenant: str, state: State) -> None:
        store = self._store
        page, after, limit = self._page(state.schedules)
        schedules = await store.scan_schedules(tenant, after, limit)
        same(f"scan_schedules after {after}", [state.schedules[id] for id in page], schedules)
        letters = state.dead_letters
        filter = DeadList()
        if letters:
            some = letters[self._random.choice(list(letters))]
            filter = self._random.choice(
                (
                    filter,
                    DeadList(queue=some.queue),
                    DeadList(reason=some.reason, since=some.died_at),
                    DeadList(function=some.function, until=some.died_at),
                )
            )
        wanted = (letter.id for letter in letters.values() if _is_wanted(letter, filter))
        page, after, limit = self._page(wanted)
        dead = await store.scan_dead_letters(tenant, filter, after, limit)
        same(
            f"scan_dead_letters after {after} {filter}", [letters[id] for id in page], dead.letters
        )
        for kind in EntryKind:
            named = {key.name: entry for key, entry in state.entries.items() if key.kind is kind}
            page, after, limit = self._page(named)
            entries = await store.scan_entries(tenant, kind, after, limit)
            same(f"scan_entries after {after} of {kind}", [named[id] for id in page], entries)

    async def _children(self, tenant: str, state: State) -> None:
        """All pages of a task's preload, from the first to the last."""
        if not state.tasks:
            return
        id, limit = self._random.choice(list(state.tasks)), self._random.choice(LIMITS)
        released, others = _children_of(state, id)
        found: tuple[list[Promise], list[Promise]] = ([], [])
        cursor: str | None = None
        for _ in range(len(released) + len(others) + 1):
            page = await self._store.scan_children(tenant, id, cursor, limit)
            found[0].extend(page.released)
            found[1].extend(page.others)
            cursor = page.more
            if cursor is None:
                break
        same(f"scan_children of {id}, {limit} at a time: released", released, found[0])
        same(f"scan_children of {id}, {limit} at a time: others", others, found[1])

    # -- inside of a transaction

    def _some_task(self, state: State) -> Task:
        """Any task; often one that waits: only these are at the front of a queue."""
        waiting = [task for task in state.tasks.values() if task.ready]
        if waiting and self._random.random() < SHARE_OF_WAITING:
            return self._random.choice(waiting)
        return self._random.choice(list(state.tasks.values()))

    async def _loads(self, tenant: str, state: State) -> None:
        if not state.tasks:
            return
        now, some = self._instant(), self._some_task(state)
        reads = Reads(edges={some.id, self._random.choice(list(state.promises))})
        if some.queue is not None:
            functions = self._random.choice((None, (some.function or "",)))
            head = Head(some.queue, functions)
            reads.heads[head] = self._random.choice(LIMITS)
            start = self._random.choice(("", some.lane or ""))
            reads.lanes[head] = LaneSpan(start, self._random.choice(LIMITS))
            reads.fronts[LaneHead(head, some.lane or "")] = self._random.choice(LIMITS)
            reads.slots |= {Slots(some.queue), Slots(some.queue, some.lane)}
            reads.depths.add(some.queue)
        if some.last_request is not None:
            reads.requests.add(some.last_request)
        async with self._store.transaction() as transaction:
            loaded = await transaction.load(tenant, reads, now)
        check_heads(state, reads, loaded, now)
        for queue in reads.depths:
            # What is ready is due, whatever an instant before the clock would say.
            await self._queue_counts(tenant, state, queue, max(now, self._clock))
        for request, ids in loaded.requests.items():
            of_it = (t.id for t in state.tasks.values() if t.last_request == request)
            same(f"tasks of request {request}", sorted(of_it), ids)
        for id in sorted(reads.edges):
            for name, edges, found in (
                ("callbacks", state.callbacks, loaded.callbacks[id]),
                ("listeners", state.listeners, loaded.listeners[id]),
            ):
                first = sorted(edges.at.get(id, NO_ENDS))[:MAX_EDGES_PER_STEP]
                same(f"{name} of {id}", first, found)
        for id, task in loaded.tasks.items():
            same(f"the task {id}", state.tasks.get(id), task)
            same(f"the promise {id}", state.promises.get(id), loaded.promises[id])

    async def _queue_counts(self, tenant: str, state: State, queue: str, now: int) -> None:
        tasks = [task for task in state.tasks.values() if task.queue == queue]
        states = Counter(task.state for task in tasks)
        waiting = [
            task.retry_at
            for task in tasks
            if task.state is TaskState.PENDING and task.retry_at is not None
        ]
        expected = QueueCounts(
            due=sum(at <= now for at in waiting),
            delayed=sum(at > now for at in waiting),
            acquired=states[TaskState.ACQUIRED],
            suspended=states[TaskState.SUSPENDED],
            halted=states[TaskState.HALTED],
            dead=sum(letter.queue == queue for letter in state.dead_letters.values()),
        )
        found = await self._store.queue_counts(tenant, queue, now)
        # Which of several is the oldest, the order of ranks decides; that is for its own tests.
        expected.oldest_due_at = found.oldest_due_at
        same(f"queue_counts of {queue} by {now}", expected, found)

    # -- what is due

    def _instant(self) -> int:
        return self._clock + self._random.randint(-BEHIND_MS, AHEAD_MS)

    async def _due(self) -> None:
        moments = _moments(self._states)
        for _ in range(ROUNDS):
            now, limit = self._instant(), self._random.choice(LIMITS)
            due = await self._store.due(now, limit)
            for name, expected in moments.items():
                check_first(f"due: {name}", expected, now, limit, getattr(due, name))
        first = min((at for each in moments.values() for at in each.values()), default=None)
        same("next_due", first, await self._store.next_due())

    async def _outbox(self) -> None:
        entries = {
            (tenant, entry.key): entry
            for tenant, state in self._states.items()
            for entry in state.outbox.values()
        }
        channel = {key: channel_of(entry.address, key[0]) for key, entry in entries.items()}
        known = list(dict.fromkeys(channel.values()))
        channels = [name for name in known if self._random.random() > SHARE_OF_FIRST_PAGES]
        open_ones = {k: e.due_at for k, e in entries.items() if channel[k] in channels}
        now, limit = self._instant(), self._random.choice(LIMITS)
        found = await self._store.scan_outbox(now, limit, channels)
        keys = [(tenant, entry.key) for tenant, entry, _ in found]
        check_first(f"scan_outbox of {channels}", open_ones, now, limit, keys)
        for tenant, entry, promise in found:
            same(f"the message {entry.key}", entries[tenant, entry.key], entry)
            expected = self._states[tenant].promises[entry.key.id]
            same(f"the promise of {entry.key}", expected, promise)
        first = min(open_ones.values(), default=None)
        same(f"next_message of {channels}", first, await self._store.next_message(channels))

    async def _counts(self) -> None:
        """Those that are no estimates."""
        states = self._states.values()
        found = await self._store.counts()
        acquired = sum(_is_acquired(task) for s in states for task in s.tasks.values())
        same("counts: tasks_acquired", acquired, found["tasks_acquired"])
        for name in ("schedules", "outbox", "dead_letters"):
            same(f"counts: {name}", sum(len(getattr(s, name)) for s in states), found[name])


def _has(promise: Promise, equals: Mapping[str, str]) -> bool:
    return all(
        promise.id.startswith(value) if name == "prefix" else getattr(promise, name) == value
        for name, value in equals.items()
    )


def _is_wanted(letter: DeadLetter, filter: DeadList) -> bool:
    died_at = letter.died_at
    return (
        all(
            getattr(filter, name) in (None, getattr(letter, name))
            for name in ("queue", "function", "reason")
        )
        and (filter.since is None or died_at >= filter.since)
        and (filter.until is None or died_at < filter.until)
    )


def _children_of(state: State, id: str) -> tuple[list[Promise], list[Promise]]:
    numbers = {edge.to: number for edge, number in state.releases.items() if edge.of == id}
    released = sorted((to for to in numbers if to in state.promises), key=numbers.__getitem__)
    others = sorted(
        promise.id
        for promise in state.promises.values()
        if id in (promise.parent, promise.branch) and promise.id != id and promise.id not in numbers
    )
    return [state.promises[to] for to in released], [state.promises[to] for to in others]


def _is_acquired(task: Task) -> bool:
    return task.state is TaskState.ACQUIRED


def _is_delayed(task: Task) -> bool:
    pending = task.state is TaskState.PENDING
    return pending and task.delivery is Delivery.PULL and not task.ready


def _is_pushed(task: Task) -> bool:
    return task.state is TaskState.PENDING and task.delivery is Delivery.PUSH


def _moments(states: Mapping[str, State]) -> dict[str, dict[object, int]]:
    """What is due at some time, by its list in `Due`."""
    found: dict[str, dict[object, int]] = {}

    def put(name: str, tenant: str, id: str, at: int | None) -> None:
        if at is not None:
            found[name][Key(tenant, id)] = at

    names = ("deadlines", "leases", "retries", "ready", "schedules", "drains", "entries", "trees")
    for name in names:
        found[name] = {}
    for tenant, state in states.items():
        for promise in state.promises.values():
            put("deadlines", tenant, promise.id, promise.armed_deadline)
            edges = state.callbacks.count(promise.id) + state.listeners.count(promise.id)
            if edges and not promise.pending:
                put("drains", tenant, promise.id, 0)
        for task in state.tasks.values():
            if _is_acquired(task):
                put("leases", tenant, task.id, task.expires_at)
            if _is_pushed(task):
                put("retries", tenant, task.id, task.retry_at)
            if _is_delayed(task):
                put("ready", tenant, task.id, task.retry_at)
        for schedule in state.schedules.values():
            put("schedules", tenant, schedule.id, schedule.due_at)
        for key, entry in state.entries.items():
            if entry.due_at is not None:
                found["trees" if key.kind in TREE_KINDS else "entries"][tenant, key] = entry.due_at
    return found
