"""The small worlds that are explored: who is there, what they do, and how much may go wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias

from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.records import PromiseState, TaskState, Value
from kept.protocol.storage import Dump
from kept.sim.explorer.programs import (
    Await,
    Birth,
    Call,
    Fulfil,
    Program,
    Record,
    Work,
)

PUSHED: Final = "http://worker.test/hook"
LISTENER: Final = "http://listener.test/hook"
QUEUE: Final = "q"


class Create(NamedTuple):
    """The client creates a promise."""

    child: Birth

    @property
    def id(self) -> str:
        return self.child.id

    def is_enabled(self, _dump: Dump) -> bool:
        return True

    def request(self) -> r.Request:
        return self.child.request()


class Settle(NamedTuple):
    """The client settles a promise that exists."""

    id: str

    def is_enabled(self, dump: Dump) -> bool:
        return self.id in dump.promises

    def request(self) -> r.Request:
        return r.PromiseSettle(self.id, PromiseState.RESOLVED, Value(data="client"))


class Listen(NamedTuple):
    """The client asks to be told of a settlement."""

    id: str

    def is_enabled(self, dump: Dump) -> bool:
        return self.id in dump.promises

    def request(self) -> r.Request:
        return r.PromiseRegisterListener(self.id, LISTENER)


class Halt(NamedTuple):
    """An operator halts a task."""

    id: str

    def is_enabled(self, dump: Dump) -> bool:
        return self.id in dump.tasks

    def request(self) -> r.Request:
        return r.TaskHalt(self.id)


class Continue(NamedTuple):
    """An operator lets a halted task go on."""

    id: str

    def is_enabled(self, dump: Dump) -> bool:
        task = dump.tasks.get(self.id)
        return task is not None and task.state is TaskState.HALTED

    def request(self) -> r.Request:
        return r.TaskContinue(self.id)


class Limit(NamedTuple):
    """An operator limits a queue: how many run at one time, how many wait."""

    concurrency: int
    max_depth: int

    @property
    def id(self) -> str:
        return ""

    def is_enabled(self, _dump: Dump) -> bool:
        return True

    def request(self) -> r.Request:
        return r.QueuePut(QUEUE, concurrency=self.concurrency, max_depth=self.max_depth)


ClientRequest: TypeAlias = Create | Settle | Listen | Halt | Continue | Limit


class World(NamedTuple):
    """A world. The client does each of `client` once, in any order, as soon as the promise is there.

    Of each fault there are at most so many in one run: `crashes` of workers; `hangs`, requests that
    stay in the network while their sender waits, and arrive at any later time or, for all that the
    sender knows, never; `losses`, messages to workers that are lost or sent twice.
    `heartbeats`, `nacks` and `releases` say whether workers do that too, at any time.
    """

    name: str
    about: str
    client: tuple[ClientRequest, ...]
    programs: Mapping[str, Program]
    workers: int = 2
    queue: str | None = None
    started: Birth | None = None
    # Promises that can change places: the client creates them, and no program names one of them.
    interchangeable: tuple[str, ...] = ()
    crashes: int = 1
    hangs: int = 1
    losses: int = 1
    heartbeats: bool = False
    nacks: bool = False
    releases: bool = False

    @property
    def work(self) -> Work:
        return Work(self.programs, self.queue, self.started)

    @property
    def ids(self) -> list[str]:
        """Every promise that can come to exist."""
        found = {each.id for each in self.client if each.id}
        if self.started is not None:
            found.add(self.started.id)
        for id, program in self.programs.items():
            found.add(id)
            for operation in program:
                if isinstance(operation, Record | Call):
                    found.add(operation.child.id)
        return sorted(found)


def pushed(id: str, ticks: int | None = None, **tags: str) -> Birth:
    """A promise whose task is pushed to a worker."""
    return Birth(id, {tag.TARGET: PUSHED, **tags}, ticks)


def child_of(parent: str, id: str, ticks: int | None = None, **tags: str) -> Birth:
    """A child without a task: a step, a timer, something settled from outside."""
    return Birth(id, {tag.PARENT: parent, **tags}, ticks)


_STEP: Final = child_of("root", "root.1")
_CHILD: Final = Birth("root.2", {tag.PARENT: "root", tag.TARGET: PUSHED})
_LATE_CHILD: Final = Birth("root.2", {tag.PARENT: "root", tag.TARGET: PUSHED}, 2)
_TIMER: Final = child_of("root", "root.1", 1, **{tag.TIMER: "true"})
_APPROVAL: Final = child_of("root", "root.1", 2, **{tag.EXTERNAL: "true"})
_SHARED: Final = Birth("shared", {tag.EXTERNAL: "true"})
_CHILDREN: Final = tuple(
    Birth(id, {tag.PARENT: "root", tag.TARGET: PUSHED}) for id in ("root.1", "root.2")
)
_JOB: Final = Birth(
    "job", {tag.TARGET: f"queue://{QUEUE}", tag.ATTEMPTS: "2", tag.BACKOFF: "fixed:1000"}
)
_LIMITED: Final = tuple(
    Birth(id, {tag.TARGET: f"queue://{QUEUE}", tag.BACKOFF: "fixed:1000"}) for id in ("a", "b")
)

WORLDS: Final = (
    World(
        "call",
        "a workflow records a step, calls a child and waits for it",
        (Create(pushed("root")),),
        {
            "root": (Record(_STEP), Call(_CHILD), Await(("root.2",)), Fulfil()),
            "root.2": (Fulfil(),),
        },
    ),
    World(
        "promises",
        "three promises of equal standing",
        tuple(Create(pushed(id)) for id in ("a", "b", "c")),
        {id: (Fulfil(),) for id in ("a", "b", "c")},
        interchangeable=("a", "b", "c"),
        losses=0,
    ),
    World(
        "timer",
        "a workflow sleeps, and its own deadline comes soon after the timer's",
        (Create(pushed("root", 2)), Listen("root")),
        {"root": (Call(_TIMER), Await(("root.1",)), Fulfil())},
    ),
    World(
        "deadline",
        "a workflow waits for a child, and both have one deadline",
        (Create(pushed("root", 2)),),
        {"root": (Call(_LATE_CHILD), Await(("root.2",)), Fulfil()), "root.2": (Fulfil(),)},
        losses=0,
    ),
    World(
        "approval",
        "a workflow waits for a promise that a client settles, or its deadline",
        (Create(pushed("root")), Settle("root.1"), Halt("root"), Continue("root")),
        {"root": (Call(_APPROVAL), Await(("root.1",)), Fulfil())},
        losses=0,
    ),
    World(
        "shared",
        "two workflows wait for one promise",
        (Create(pushed("a")), Create(pushed("b")), Settle("shared")),
        {id: (Call(_SHARED), Await(("shared",)), Fulfil()) for id in ("a", "b")},
        interchangeable=("a", "b"),
        hangs=0,
        losses=0,
    ),
    World(
        "fan-out",
        "a workflow calls two children and waits for both",
        (Create(pushed("root")),),
        {
            "root": (
                *(Call(child) for child in _CHILDREN),
                Await(tuple(child.id for child in _CHILDREN)),
                Fulfil(),
            ),
            **{child.id: (Fulfil(),) for child in _CHILDREN},
        },
        hangs=0,
        losses=0,
    ),
    World(
        "job",
        "a job with two attempts",
        (Create(_JOB), Listen("job")),
        {"job": (Fulfil(),)},
        queue=QUEUE,
        crashes=2,
        hangs=2,
        losses=0,
        heartbeats=True,
        nacks=True,
        releases=True,
    ),
    World(
        "limit",
        "two jobs in a queue of which one may run at a time, from some moment on",
        (Create(_LIMITED[0]), Create(_LIMITED[1]), Limit(concurrency=1, max_depth=1)),
        {birth.id: (Fulfil(),) for birth in _LIMITED},
        queue=QUEUE,
        losses=0,
        nacks=True,
        releases=True,
    ),
    World(
        "start",
        "workers that create a task and hold it at once, against each other",
        (),
        {"root": (Record(_STEP), Fulfil())},
        started=pushed("root"),
        hangs=2,
        heartbeats=True,
        releases=True,
    ),
)

BY_NAME: Final = {world.name: world for world in WORLDS}

# The smallest worlds, explored to their ends in no time: one promise, and one or two workers.
ONE: Final = World(
    "one",
    "a promise and a worker",
    (Create(pushed("root")),),
    {"root": (Fulfil(),)},
    workers=1,
    hangs=0,
)
TWO: Final = ONE._replace(name="two", about="a promise and two workers", workers=2)
