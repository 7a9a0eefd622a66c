"""Databases in normal form, numbered, and the real machine between them.

What the machine does depends on nothing but the records, the request and the instant, so each
request is applied to each database once, watched once, and remembered by whoever asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeVar

from kept.check.state import State
from kept.machine import background as b
from kept.machine.announcements import worker_key
from kept.machine.cancellation import cancel_key
from kept.machine.dispatch import Machine
from kept.machine.limits import depth_key, settings_key
from kept.machine.step import MachineConfig
from kept.machine.turns import turn_key
from kept.machine.working_set import WorkingSet
from kept.protocol import requests as r
from kept.protocol.limits import MAX_CANCELED_PER_COMMIT
from kept.protocol.records import Delivery, MessageKey, MessageKind, TaskState
from kept.protocol.responses import Response
from kept.protocol.storage import (
    DEFAULT_TENANT,
    ChildPage,
    Children,
    Dump,
    Head,
    Loaded,
    PendingChildren,
    Reads,
    Slots,
)
from kept.sim.explorer import normal
from kept.sim.explorer.programs import GRACE_MS, NOW_MS, TICK_MS
from kept.sim.explorer.watch import (
    NOT_EARLY,
    SOUND,
    Broken,
    Watch,
    check_answer,
    check_commit,
    check_request,
    check_state,
)

T = TypeVar("T")

HEAD_TASKS = 64
# Workers of a world.
MAX_WORKERS = 9


class Taken(NamedTuple):
    """What a request or step led to: the answer, the next database, and the version that each task
    got whose versions are told anew in it."""

    response: Response | None
    database: int
    versions: tuple[tuple[str, int], ...]


class Databases:
    """All databases that were reached, by number; number 0 is empty.

    `ids` are all promises that can ever exist, `request_ids` what requests are repeated under.
    """

    def __init__(self, ids: Iterable[str], request_ids: Iterable[str], queue: str | None) -> None:
        self._ids = sorted(ids)
        self._request_ids = [normal.ONCE, *request_ids]
        self._head = None if queue is None else Head(queue)
        self._entry_keys = (
            [key(queue) for key in (settings_key, depth_key, turn_key)] if queue is not None else []
        )
        self._entry_keys += [cancel_key(id) for id in self._ids]
        # Nobody announces anything here.
        self._entry_keys += [worker_key(f"w{number}") for number in range(1, MAX_WORKERS + 1)]
        # More than what is there fits into the first one.
        self._pages = [
            ChildPage(id, "", limit) for id in self._ids for limit in (1, MAX_CANCELED_PER_COMMIT)
        ]
        # Nothing leaves here: every record that was ever written stays in view.
        self._config = MachineConfig(
            retry_timeout_ms=TICK_MS, cancel_grace_ms=GRACE_MS, retention_ms=None
        )
        self._dumps: list[Dump] = []
        self._numbers: dict[bytes, int] = {}
        self._due: dict[int, tuple[b.InternalStep, ...]] = {}
        self._passed: dict[int, tuple[int, int] | None] = {}
        self._forgotten: dict[tuple[int, str], int] = {}
        # The database that was asked last, as the checks and the machine see it.
        self._present = -1
        self._state = State()
        self._reads = Reads()
        self._loaded = Loaded()
        self.applied = 0
        # Named properties whose guards held: the others have checked nothing.
        self.reached: set[str] = set()
        self._number(normal.normal(Dump()))

    def __len__(self) -> int:
        return len(self._dumps)

    def dump(self, database: int) -> Dump:
        """The records, to be read only."""
        return self._dumps[database]

    # -- the machine -----------------------------------------------------------------------------

    def ask(self, database: int, request: r.Request, request_id: str = normal.ONCE) -> Taken:
        """A request, committed by itself. Raises `Broken`."""
        return self._take(
            database,
            lambda machine: machine.apply(request, NOW_MS, request_id),
            request,
            request_id,
        )

    def fire(self, database: int, step: b.InternalStep) -> Taken:
        """A background step, committed by itself. Raises `Broken`."""

        def take(machine: Machine) -> None:
            machine.apply_internal(step, NOW_MS)

        return self._take(database, take, None, "")

    def _take(
        self,
        database: int,
        act: Callable[[Machine], Response | None],
        request: r.Request | None,
        request_id: str,
    ) -> Taken:
        self._look_at(database)
        self.applied += 1
        state, watch = self._state, Watch(self._state, self.reached)
        records = WorkingSet()
        records.add(self._reads, self._loaded, NOW_MS)
        machine = Machine(DEFAULT_TENANT, records, self._config, watch)
        try:
            response = _sound(lambda: act(machine))
            if response is not None and request is not None:
                check_answer(state, request, response)
            check_commit(state)
            after = state.dump() if watch.changed else None
        finally:
            watch.rollback(0)
        if request is not None and response is not None:
            check_request(state, request, request_id, response, watch)
        if after is None:
            return Taken(response, database, ())
        return Taken(response, self._number(normal.normal(after)), _new_versions(state, after))

    def _look_at(self, database: int) -> None:
        if self._present == database:
            return
        dump = self._dumps[database]
        self._present = database
        self._state = State.from_dump(dump)
        self._reads, self._loaded = self._load(dump)

    def _load(self, dump: Dump) -> tuple[Reads, Loaded]:
        """Everything there is, and for everything there could be, that it is not there."""
        ids = self._ids
        keys = {MessageKey.execute(id) for id in ids} | set(dump.outbox)
        reads = Reads(objects=set(ids), head_children=True)
        loaded = Loaded(
            promises={id: dump.promises.get(id) for id in ids},
            tasks={id: dump.tasks.get(id) for id in ids},
            callbacks={id: sorted(e.to for e in dump.callbacks if e.of == id) for id in ids},
            listeners={id: sorted(e.to for e in dump.listeners if e.of == id) for id in ids},
            children={id: _children(dump, id) for id in ids},
            pending_children={
                page: PendingChildren(_pending_children(dump, page)) for page in self._pages
            },
            messages={key: dump.outbox.get(key) for key in keys},
            dead_letters={id: dump.dead_letters.get(id) for id in ids},
            entries={key: dump.entries.get(key) for key in self._entry_keys},
            requests={
                each: [id for id, task in dump.tasks.items() if task.last_request == each]
                for each in self._request_ids
            },
        )
        if self._head is not None:
            reads.heads[self._head] = HEAD_TASKS
            loaded.heads[self._head] = _claimable(dump)
            queue = self._head.queue
            held = [t for t in dump.tasks.values() if t.state is TaskState.ACQUIRED]
            loaded.slots[Slots(queue)] = sum(task.queue == queue for task in held)
            waiting = [t for t in dump.tasks.values() if t.state is TaskState.PENDING]
            loaded.depths[queue] = sum(task.queue == queue for task in waiting)
        return reads, loaded

    def _number(self, dump: Dump) -> int:
        fingerprint = normal.fingerprint(dump)
        number = self._numbers.get(fingerprint)
        if number is None:
            number = self._numbers[fingerprint] = len(self._dumps)
            self._dumps.append(dump)
        return number

    # -- what else leads from one to another -----------------------------------------------------

    def due(self, database: int) -> tuple[b.InternalStep, ...]:
        """The background steps that are due. Raises `Broken` where one that is not does something."""
        steps = self._due.get(database)
        if steps is None:
            dump = self._dumps[database]
            steps = self._due[database] = tuple(_steps(dump, is_due=True))
            for step in _steps(dump, is_due=False):
                if self.fire(database, step).database != database:
                    raise Broken(NOT_EARLY, f"{step}")
        return steps

    def later(self, database: int) -> tuple[int, int] | None:
        """How long (ms) it is to the next instant that matters, and the database seen from there;
        None where time changes nothing. Raises `Broken`."""
        if database not in self._passed:
            dump = self._dumps[database]
            instant = normal.next_instant(dump)
            self._passed[database] = None
            if instant is not None:
                passed_ms = instant - NOW_MS
                after = normal.normal(dump, passed_ms)
                check_state(State.from_dump(after), self.reached)
                self._passed[database] = (passed_ms, self._number(after))
        return self._passed[database]

    def forget(self, database: int, request_id: str) -> int:
        """The database when nobody will ask again under a request id."""
        key = (database, request_id)
        number = self._forgotten.get(key)
        if number is None:
            after = normal.normal(self._dumps[database], 0, request_id)
            number = self._forgotten[key] = self._number(after)
        return number

    def renamed(self, database: int, names: Mapping[str, str]) -> int:
        """The database with other names of promises and workers."""
        return self._number(normal.renamed(self._dumps[database], names))


def _sound(act: Callable[[], T]) -> T:
    try:
        return act()
    except Broken:
        raise
    except Exception as error:
        # Whatever the machine raises is a finding, and the explorer tells it like any other.
        raise Broken(SOUND, f"{type(error).__name__}: {error}") from error


def _new_versions(before: State, after: Dump) -> tuple[tuple[str, int], ...]:
    former = before.tasks
    return tuple(
        (id, task.version)
        for id, task in after.tasks.items()
        if id in former and task.version != former[id].version
    )


def _children(dump: Dump, id: str) -> Children:
    numbers = {edge.to: number for edge, number in dump.releases.items() if edge.of == id}
    children = {child.id: child for child in dump.promises.values() if child.parent == id}
    released = sorted((c for c in numbers if c in dump.promises), key=numbers.__getitem__)
    return Children(
        released=[dump.promises[child] for child in released],
        others=[children[child] for child in sorted(children) if child not in numbers],
    )


def _pending_children(dump: Dump, page: ChildPage) -> list[str]:
    ids = (id for id, child in dump.promises.items() if child.pending and id != page.parent)
    return sorted(id for id in ids if dump.promises[id].parent == page.parent)[: page.limit]


def _claimable(dump: Dump) -> list[str]:
    """Ready tasks by rank, then those that are due and not marked yet, as stores find them."""
    waiting = [
        task
        for task in dump.tasks.values()
        if task.state is TaskState.PENDING and task.delivery is Delivery.PULL
    ]
    ready = sorted((t.rank, t.id) for t in waiting if t.ready)
    delayed = sorted(
        (t.rank, t.id)
        for t in waiting
        if not t.ready and t.retry_at is not None and t.retry_at <= NOW_MS
    )
    return [id for _, id in (*ready, *delayed)]


def _steps(dump: Dump, *, is_due: bool) -> Iterable[b.InternalStep]:
    """The background steps of deadlines, leases and retries that are due, or those that lie ahead."""
    for id, promise in dump.promises.items():
        deadline = promise.armed_deadline
        if deadline is not None and (deadline <= NOW_MS) is is_due:
            yield b.TimeoutPromise(id)
    for id, task in dump.tasks.items():
        if task.state is TaskState.ACQUIRED:
            if (task.expires_at == NOW_MS) is is_due:
                yield b.ExpireLease(id)
        elif task.state is TaskState.PENDING and (task.retry_at == NOW_MS) is is_due:
            if task.delivery is Delivery.PUSH:
                yield b.RetryTask(id)
            elif task.delivery is Delivery.PULL and not task.ready:
                yield b.ReadyTask(id)
    for key, entry in dump.entries.items():
        if entry.due_at is not None and (entry.due_at <= NOW_MS) is is_due:
            yield b.LookAtEntry(key)


def executes(dump: Dump) -> list[tuple[str, int]]:
    """The tasks, with versions, of which a message is due to be sent."""
    return [
        (key.id, message.version)
        for key, message in dump.outbox.items()
        if key.kind is MessageKind.EXECUTE and message.due_at <= NOW_MS
    ]


def unblocks(dump: Dump) -> list[MessageKey]:
    """The messages to listeners that are due to be sent."""
    return [
        key
        for key, message in dump.outbox.items()
        if key.kind is MessageKind.UNBLOCK and message.due_at <= NOW_MS
    ]
