"""The machine over tables in memory: no loop, no store, every step watched by the monitor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from kept.check.monitor import Monitor
from kept.machine import background as b
from kept.machine.dispatch import Machine
from kept.machine.not_loaded import NotLoaded
from kept.machine.reads import plan
from kept.machine.step import MachineConfig
from kept.machine.working_set import WorkingSet
from kept.protocol import requests as r
from kept.protocol.entries import TREE_KINDS, Entry, EntryKey
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import (
    EMPTY,
    DeadLetter,
    OutboxEntry,
    Promise,
    PromiseState,
    Task,
    Value,
)
from kept.protocol.responses import (
    AcquiredTask,
    ClaimResult,
    PromiseResult,
    Response,
    TaskResult,
)
from kept.protocol.storage import DEFAULT_TENANT, Dump, Reads
from kept.protocol.validation import problem_with
from kept.stores.memory import reading
from kept.stores.memory.changes import apply
from kept.stores.memory.tables import Tables

START_MS = 1_000_000
PUSHED = "http://worker.test/hook"
LISTENER = "http://listener.test/hook"

ResultT = TypeVar("ResultT")


class World:
    """One tenant's records, a clock that moves when told, and the real machine between them."""

    def __init__(self, config: MachineConfig | None = None, *, watched: bool = True) -> None:
        self.config = config or MachineConfig()
        self.now = START_MS
        self.tables: dict[str, Tables] = {DEFAULT_TENANT: Tables()}
        self.monitor = Monitor(whole_every=200) if watched else None
        # How often something was loaded; how many promises, and how many names of lanes.
        self.loads = self.rows = self.lanes = 0
        # How far the clock moves before each request: ties in a queue go away with 1.
        self.request_ms = 0

    # -- asking ----------------------------------------------------------------------------------

    def ask(self, request: r.Request, *, request_id: str | None = None) -> Response:
        """The answer to one request, committed by itself."""
        return self.batch([request], request_ids=[request_id])[0]

    def ok(self, request: r.Request, kind: type[ResultT], **options: Any) -> ResultT:
        """The data of a request that must succeed."""
        response = self.ask(request, **options)
        assert response.status == 200, response
        assert isinstance(response.data, kind), response
        return response.data

    def status(self, request: r.Request, **options: Any) -> int:
        return self.ask(request, **options).status

    def batch(
        self, requests: Sequence[r.Request], *, request_ids: Sequence[str | None] | None = None
    ) -> list[Response]:
        """The answers to several requests of one commit."""
        ids = request_ids or [None] * len(requests)
        reads = Reads()
        for request, id in zip(requests, ids, strict=True):
            plan(request, reads)
            if id is not None and isinstance(request, r.TaskClaim):
                reads.requests.add(id)
        batch = _Batch(self, reads)
        answers = [batch.answer(request, id) for request, id in zip(requests, ids, strict=True)]
        batch.commit()
        return answers

    def fire(self, *steps: b.InternalStep) -> list[OutboxEntry | None]:
        """Takes background steps, in one commit, whether they are enabled or not."""
        reads = Reads()
        for step in steps:
            plan(step, reads)
        batch = _Batch(self, reads)
        taken = [batch.fire(step) for step in steps]
        batch.commit()
        return taken

    def fire_and_ask(self, step: b.InternalStep, request: r.Request) -> Response:
        """A background step and a request of one commit, in this order."""
        reads = Reads()
        plan(step, reads)
        plan(request, reads)
        batch = _Batch(self, reads)
        batch.fire(step)
        response = batch.answer(request, None)
        batch.commit()
        return response

    def pass_time(self, milliseconds: int) -> None:
        """Moves the clock; nothing fires by itself."""
        self.now += milliseconds

    def settle_down(self) -> None:
        """Fires all background steps that are due, until none is."""
        for _ in range(1_000):
            steps = list(self._due())
            if not steps:
                return
            self.fire(*steps)
        raise AssertionError("background steps never come to an end")

    def _due(self) -> Iterable[b.InternalStep]:
        tables, now = self._tables, self.now
        yield from (b.TimeoutPromise(m.id) for m in tables.deadlines.first(500, now))
        yield from (b.DrainEdges(id) for id in list(tables.undrained))
        yield from (b.ExpireLease(m.id) for m in tables.leases.first(500, now))
        yield from (b.FireSchedule(m.id) for m in tables.instants.first(500, now))
        yield from (b.RetryTask(m.id) for m in tables.retries.first(500, now))
        yield from (b.ReadyTask(m.id) for m in tables.delayed.first(500, now))
        yield from (b.LookAtEntry(m.key) for m in tables.due_entries.first(500, now))
        yield from self.looks_at_trees()

    def looks_at_trees(self) -> list[b.InternalStep]:
        """The looks at trees that are due, the oldest first."""
        return [b.LeaveTree(m.key) for m in self._tables.due_trees.first(500, self.now)]

    # -- looking at what is stored ---------------------------------------------------------------

    @property
    def _tables(self) -> Tables:
        return self.tables[DEFAULT_TENANT]

    @property
    def dump(self) -> Dump:
        return reading.dump(self._tables)

    def stored(self, id: str) -> Promise:
        return self._tables.promises[id]

    def task(self, id: str) -> Task:
        return self._tables.tasks[id]

    def entry(self, key: EntryKey) -> Entry | None:
        return self._tables.entries.get(key)

    @property
    def entries(self) -> dict[EntryKey, Entry]:
        """All but those that say when trees leave: each that has settled has one."""
        found = self._tables.entries.items()
        return {key: entry for key, entry in found if key.kind not in TREE_KINDS}

    def letter(self, id: str) -> DeadLetter:
        return self._tables.dead_letters[id]

    @property
    def outbox(self) -> list[OutboxEntry]:
        return [self._tables.outbox[key] for key in sorted(self._tables.outbox)]

    def promise(self, id: str) -> PromiseResult:
        return self.ok(r.PromiseGet(id), PromiseResult)

    # -- what tests do again and again -----------------------------------------------------------

    def create(self, id: str, *, timeout_at: int = NEVER_MS, **tags: str) -> Response:
        """Creates a promise; tags by short names: target, timer, external, delay, queue…"""
        return self.ask(create(id, timeout_at=timeout_at, **tags))

    def settle(self, id: str, state: PromiseState = PromiseState.RESOLVED) -> Response:
        return self.ask(r.PromiseSettle(id, state))

    def started(
        self, id: str, *, ttl: int = 10_000, pid: str = "w", **options: Any
    ) -> AcquiredTask:
        """A new task that `pid` holds at version 1."""
        action = r.CreateAction(create(id, **{"target": PUSHED, **options}))
        return self.ok(r.TaskCreate(pid, ttl, action), AcquiredTask)

    def suspended(self, id: str, awaited: str, **options: Any) -> None:
        """A new task that waits for a promise."""
        self.started(id, **options)
        assert self.status(suspend(id, 1, awaited)) == 200

    def claim(self, *queues: str, **options: Any) -> list[AcquiredTask]:
        fields = {"pid": "w", "ttl": 10_000, "limit": 100, **options}
        request_id = fields.pop("request_id", None)
        request = r.TaskClaim(queues=list(queues), **fields)
        return self.ok(request, ClaimResult, request_id=request_id).tasks

    def state_of(self, id: str) -> str:
        return self.ok(r.TaskGet(id), TaskResult).task.state.value


_TAG_NAMES = {
    name: f"resonate:{name}"
    for name in ("target", "timer", "external", "delay", "origin", "parent", "branch", "scope")
} | {
    name: f"kept:{name}"
    for name in (
        *("function", "priority", "lane", "attempts", "backoff", "exhausted"),
        *("detached", "compensation"),
        *("dedupe", "dedupe-window", "dedupe-mismatch", "fingerprint"),
        *("debounce", "debounce-mode", "debounce-max", "singleton", "singleton-key"),
    )
}


def create(
    id: str, *, timeout_at: int = NEVER_MS, param: Value = EMPTY, **tags: str
) -> r.PromiseCreate:
    """A promise.create; `queue="q"` is short for the target `queue://q`."""
    if "queue" in tags:
        tags["target"] = f"queue://{tags.pop('queue')}"
    named = {_TAG_NAMES[name.replace("_", "-")]: text for name, text in tags.items()}
    return r.PromiseCreate(id, timeout_at, param, named)


def suspend(id: str, version: int, *awaited: str, **options: Any) -> r.TaskSuspend:
    actions = [r.CallbackAction(r.PromiseRegisterCallback(each, id)) for each in awaited]
    return r.TaskSuspend(id, version, actions, **options)


def fulfill(
    id: str, version: int, state: PromiseState = PromiseState.RESOLVED, **options: Any
) -> r.TaskFulfill:
    return r.TaskFulfill(id, version, r.SettleAction(r.PromiseSettle(id, state)), **options)


def record(id: str, version: int, child: str, **options: Any) -> r.TaskRecordStep:
    tags = options.pop("tags", {"parent": id})
    step = create(child, timeout_at=options.pop("timeout_at", NEVER_MS), **tags)
    fields = {"state": PromiseState.RESOLVED, **options}
    return r.TaskRecordStep(id, version, step, **fields)


class _Batch:
    """One working set, loaded from the tables and written back to them."""

    def __init__(self, world: World, reads: Reads) -> None:
        self._world = world
        self._records = WorkingSet()
        self._machine = Machine(DEFAULT_TENANT, self._records, world.config, world.monitor)
        self._load(reads)

    def _load(self, reads: Reads) -> None:
        world = self._world
        while reads:
            world.loads += 1
            # A request of this batch may come later than now.
            until = world.now + 1_000 * world.request_ms
            loaded = reading.load(world.tables[DEFAULT_TENANT], reads, until)
            world.rows += len(loaded.promises)
            world.lanes += sum(map(len, loaded.lanes.values()))
            reads = self._records.add(reads, loaded, world.now)

    def answer(self, request: r.Request, request_id: str | None) -> Response:
        problem = problem_with(request, self._world.config.schemes)
        if problem is not None:
            return Response(400, problem)
        self._world.now += self._world.request_ms
        while True:
            try:
                return self._machine.apply(request, self._world.now, request_id)
            except NotLoaded as missing:
                self._load(missing.reads)

    def fire(self, step: b.InternalStep) -> OutboxEntry | None:
        while True:
            try:
                return self._machine.apply_internal(step, self._world.now)
            except NotLoaded as missing:
                self._load(missing.reads)

    def commit(self) -> None:
        world = self._world
        apply(world.tables, DEFAULT_TENANT, self._records.changes(), [])
        if world.monitor is not None:
            world.monitor.compare(world.dump)
