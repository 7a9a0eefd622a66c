"""The records of one tenant, and the ways to find them: by key, by what comes first, by parent."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import NamedTuple

from kept.protocol.addresses import channel_of
from kept.protocol.entries import TREE_KINDS, Entry, EntryKey
from kept.protocol.records import (
    DeadLetter,
    Delivery,
    MessageKey,
    OutboxEntry,
    Promise,
    ScheduleRecord,
    Task,
    TaskState,
)
from kept.protocol.storage import DEFAULT_TENANT, Slots
from kept.stores.memory.agenda import Agenda
from kept.stores.memory.lanes import Lanes, Moment


class MessageMoment(NamedTuple):
    """When a message is to be tried."""

    at: int
    key: MessageKey


class EntryMoment(NamedTuple):
    """When the background looks at an entry."""

    at: int
    key: EntryKey


# True where it is there; None and False are one.
Presence = bool | None
# Of what to what, in the order in which they came; nothing is kept of what has none.
Edges = dict[str, dict[str, None]]


class Tables:
    """Everything one tenant has. Records are replaced, never changed, so they may be shared."""

    def __init__(self, tenant: str = DEFAULT_TENANT) -> None:
        self.tenant = tenant
        self.promises: dict[str, Promise] = {}
        self.tasks: dict[str, Task] = {}
        self.schedules: dict[str, ScheduleRecord] = {}
        self.outbox: dict[MessageKey, OutboxEntry] = {}
        self.dead_letters: dict[str, DeadLetter] = {}
        self.entries: dict[EntryKey, Entry] = {}
        self.callbacks: Edges = {}
        self.listeners: Edges = {}
        self.resumes: Edges = {}
        self.releases: defaultdict[str, dict[str, int]] = defaultdict(dict)
        # The same callbacks and resumes by their other end.
        self.awaiting: Edges = {}
        self.resumed: Edges = {}
        self.children: Edges = {}
        # By origin, in the order of birth, but for what was removed and came back.
        self.trees: Edges = {}
        self._disordered: dict[str, None] = {}
        # How many messages name a promise.
        self.named: Counter[str] = Counter()
        self.requests: Edges = {}
        # The order of birth, which decides between what is due at the same time.
        self.numbers: dict[str, int] = {}
        self._births = 0
        self.undrained: dict[str, bool] = {}
        self.first_callbacks: dict[str, Agenda[tuple[str]]] = {}
        self.first_listeners: dict[str, Agenda[tuple[str]]] = {}
        self.deadlines = Agenda(self._is_deadline)
        self.leases = Agenda(self._is_lease)
        self.retries = Agenda(self._is_retry)
        self.delayed = Agenda(self._is_delayed)
        self.messages: dict[str, Agenda[MessageMoment]] = {}
        self.instants = Agenda(self._is_instant)
        self.due_entries = Agenda(self._is_due_entry)
        self.due_trees = Agenda(self._is_due_entry)
        # By queue, then function.
        self.ready: dict[str, dict[str | None, Lanes]] = {}
        self.waiting: dict[str, dict[str | None, Agenda[Moment]]] = {}
        self.acquired: Counter[Slots] = Counter()
        self.depths: Counter[str] = Counter()

    # -- writing: each answers what was there before, which is what undoes it --------------------

    def put_promise(self, id: str, promise: Promise | None) -> Promise | None:
        before = self.promises.get(id)
        if before is not None:
            for of in (before.parent, before.branch):
                if of is not None:
                    _put_edge(self.children, of, id, False)
            if promise is None or promise.origin != before.origin:
                _put_edge(self.trees, before.origin, id, False)
        if promise is None:
            self.promises.pop(id, None)
            self.numbers.pop(id, None)
            return before
        self.promises[id] = promise
        if id not in self.numbers:
            self._births += 1
            self.numbers[id] = self._births
        for of in (promise.parent, promise.branch):
            if of is not None and of != id:
                _put_edge(self.children, of, id, True)
        _put_edge(self.trees, promise.origin, id, True)
        if promise.armed_deadline is not None:
            self.deadlines.add(Moment(promise.armed_deadline, self.numbers[id], id))
        return before

    def number(self, id: str, number: int) -> None:
        """Gives a promise that comes back its place in the order of birth."""
        self.numbers[id] = number
        self._disordered[self.promises[id].origin] = None

    def in_order(self, origin: str) -> dict[str, None]:
        """The promises of an origin in the order of their birth."""
        tree = self.trees.get(origin, {})
        if origin in self._disordered:
            del self._disordered[origin]
            tree = dict.fromkeys(sorted(tree, key=self.numbers.__getitem__))
            self.trees[origin] = tree
        return tree

    def put_task(self, id: str, task: Task | None) -> Task | None:
        before = self.tasks.get(id)
        if before is not None and before.last_request is not None:
            _put_edge(self.requests, before.last_request, id, False)
        self._count(before, -1)
        self._count(task, 1)
        if task is None:
            self.tasks.pop(id, None)
            return before
        self.tasks[id] = task
        if task.last_request is not None:
            _put_edge(self.requests, task.last_request, id, True)
        number = self.numbers.get(id, 0)
        if task.expires_at is not None:
            self.leases.add(Moment(task.expires_at, number, id))
        if task.state is TaskState.PENDING and task.delivery is not Delivery.NEVER:
            self._line_up(task, number)
        return before

    def _line_up(self, task: Task, number: int) -> None:
        if task.delivery is Delivery.PUSH:
            if task.retry_at is not None:
                self.retries.add(Moment(task.retry_at, number, task.id))
        elif task.queue is not None:
            self._stand_in_line(task.queue, task, number)
        if task.delivery is Delivery.PULL and not task.ready and task.retry_at is not None:
            self.delayed.add(Moment(task.retry_at, number, task.id))

    def _stand_in_line(self, queue: str, task: Task, number: int) -> None:
        if task.ready:
            assert task.lane is not None, task
            line = self.ready.setdefault(queue, {})
            if task.function not in line:
                line[task.function] = Lanes(self._is_ready)
            line[task.function].add(task.lane, Moment(task.rank, number, task.id))
        elif task.retry_at is not None:
            delayed = self.waiting.setdefault(queue, {})
            if task.function not in delayed:
                delayed[task.function] = Agenda(self._is_delayed)
            delayed[task.function].add(Moment(task.retry_at, number, task.id))

    def _count(self, task: Task | None, change: int) -> None:
        if task is None or task.queue is None:
            return
        if task.state is TaskState.ACQUIRED:
            self.acquired[Slots(task.queue)] += change
            self.acquired[Slots(task.queue, task.lane)] += change
        elif task.state is TaskState.PENDING:
            self.depths[task.queue] += change

    def put_callback(self, of: str, to: str, present: Presence) -> bool:
        _put_edge(self.awaiting, to, of, present)
        return _put_ordered(self.callbacks, self.first_callbacks, of, to, present)

    def put_listener(self, of: str, to: str, present: Presence) -> bool:
        return _put_ordered(self.listeners, self.first_listeners, of, to, present)

    def put_resume(self, of: str, to: str, present: Presence) -> bool:
        _put_edge(self.resumed, to, of, present)
        return _put_edge(self.resumes, of, to, present)

    def put_release(self, of: str, to: str, number: int | None) -> int | None:
        before = self.releases[of].get(to)
        if number is None:
            self.releases[of].pop(to, None)
            if not self.releases[of]:
                del self.releases[of]
        else:
            self.releases[of][to] = number
        return before

    def put_undrained(self, id: str, undrained: Presence) -> bool:
        before = id in self.undrained
        if undrained:
            self.undrained[id] = True
        else:
            self.undrained.pop(id, None)
        return before

    def put_schedule(self, id: str, schedule: ScheduleRecord | None) -> ScheduleRecord | None:
        before = self.schedules.pop(id, None)
        if schedule is not None:
            self.schedules[id] = schedule
            if schedule.due_at is not None:
                self.instants.add(Moment(schedule.due_at, 0, id))
        return before

    def put_message(self, key: MessageKey, entry: OutboxEntry | None) -> OutboxEntry | None:
        before = self.outbox.pop(key, None)
        self.named[key.id] += (entry is not None) - (before is not None)
        if not self.named[key.id]:
            del self.named[key.id]
        if entry is not None:
            self.outbox[key] = entry
            channel = channel_of(entry.address, self.tenant)
            agenda = self.messages.get(channel)
            if agenda is None:
                agenda = self.messages[channel] = Agenda(self._is_message)
            agenda.add(MessageMoment(entry.due_at, key))
        return before

    def put_dead_letter(self, id: str, letter: DeadLetter | None) -> DeadLetter | None:
        before = self.dead_letters.pop(id, None)
        if letter is not None:
            self.dead_letters[id] = letter
        return before

    def put_entry(self, key: EntryKey, entry: Entry | None) -> Entry | None:
        before = self.entries.pop(key, None)
        if entry is not None:
            self.entries[key] = entry
            if entry.due_at is not None:
                agenda = self.due_trees if key.kind in TREE_KINDS else self.due_entries
                agenda.add(EntryMoment(entry.due_at, key))
        return before

    # -- what is still true ----------------------------------------------------------------------

    def _is_deadline(self, moment: Moment) -> bool:
        promise = self.promises.get(moment.id)
        return (
            promise is not None
            and promise.armed_deadline == moment.at
            and self.numbers[moment.id] == moment.number
        )

    def _task_at(self, moment: Moment, state: TaskState) -> Task | None:
        task = self.tasks.get(moment.id)
        if task is None or task.state is not state:
            return None
        return task if self.numbers.get(moment.id, 0) == moment.number else None

    def _is_lease(self, moment: Moment) -> bool:
        task = self._task_at(moment, TaskState.ACQUIRED)
        return task is not None and task.expires_at == moment.at

    def _is_retry(self, moment: Moment) -> bool:
        task = self._task_at(moment, TaskState.PENDING)
        return task is not None and task.delivery is Delivery.PUSH and task.retry_at == moment.at

    def _is_delayed(self, moment: Moment) -> bool:
        task = self._task_at(moment, TaskState.PENDING)
        return (
            task is not None
            and task.delivery is Delivery.PULL
            and not task.ready
            and task.retry_at == moment.at
        )

    def _is_ready(self, moment: Moment) -> bool:
        task = self._task_at(moment, TaskState.PENDING)
        return task is not None and task.ready and task.rank == moment.at

    def _is_message(self, moment: MessageMoment) -> bool:
        entry = self.outbox.get(moment.key)
        return entry is not None and entry.due_at == moment.at

    def _is_instant(self, moment: Moment) -> bool:
        schedule = self.schedules.get(moment.id)
        return schedule is not None and schedule.due_at == moment.at

    def _is_due_entry(self, moment: EntryMoment) -> bool:
        entry = self.entries.get(moment.key)
        return entry is not None and entry.due_at == moment.at


def _put_edge(edges: Edges, of: str, to: str, present: Presence) -> bool:
    known = edges.get(of, {})
    before = to in known
    if present:
        edges.setdefault(of, known)[to] = None
    elif before:
        del known[to]
        if not known:
            del edges[of]
    return before


def _put_ordered(
    edges: Edges, firsts: dict[str, Agenda[tuple[str]]], of: str, to: str, present: Presence
) -> bool:
    before = _put_edge(edges, of, to, present)
    if of not in edges:
        firsts.pop(of, None)
    elif present and not before:
        if of not in firsts:
            firsts[of] = Agenda(lambda entry: entry[0] in edges.get(of, ()))
        firsts[of].add((to,))
    return before
