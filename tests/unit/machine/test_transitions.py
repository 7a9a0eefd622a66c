"""The table of transitions against the handlers: each is taken, and no other (machine/transitions)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kept.machine.background import ExpireLease
from kept.machine.transitions import (
    PROMISE_TRANSITIONS,
    TASK_TRANSITIONS,
    PromiseTransition,
    TaskTransition,
    state_diagram,
)
from kept.protocol import requests as r
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import PromiseState, TaskState
from tests.unit.machine.world import PUSHED, START_MS, World, create, fulfill, record, suspend

DEADLINE = START_MS + 100


def _world(state: TaskState, **tags: str) -> World:
    """A world with a task `t` in a state, and a promise `p`."""
    world = World()
    world.create("awaited", external="true")
    world.create("p", external="true", timeout_at=DEADLINE)
    world.create("timer", timer="true", timeout_at=DEADLINE)
    world.create("t", queue="q", **tags)
    if state is not TaskState.PENDING:
        world.ask(r.TaskAcquire("t", 0, "w", 10))
    if state is TaskState.SUSPENDED:
        world.ask(suspend("t", 1, "awaited"))
    elif state is TaskState.HALTED:
        world.ask(r.TaskNack("t", 1, final="halt"))
    assert world.task("t").state is state
    return world


def _settle_by(cause: str) -> Callable[[World, PromiseState], None]:
    def by_fulfil(world: World, state: PromiseState) -> None:
        world.started("mine", timeout_at=DEADLINE)
        world.ask(fulfill("mine", 1, state))

    def by_nack(world: World, state: PromiseState) -> None:
        world.started("mine", timeout_at=DEADLINE, attempts="1")
        world.ask(r.TaskNack("mine", 1))

    def by_last_expiry(world: World, state: PromiseState) -> None:
        world.started("mine", timeout_at=DEADLINE, ttl=10, attempts="1")
        world.pass_time(10)
        world.fire(ExpireLease("mine"))

    def by_fence(world: World, state: PromiseState) -> None:
        world.started("holder")
        world.ask(r.TaskFence("holder", 1, r.SettleAction(r.PromiseSettle("p", state))))

    def by_record(world: World, state: PromiseState) -> None:
        world.started("holder")
        world.ask(record("holder", 1, "p", state=state))

    def by_deadline(world: World, state: PromiseState) -> None:
        world.pass_time(100)
        world.settle_down()

    return {
        "promise.settle": lambda world, state: world.settle("p", state) and None,
        "task.fulfill": by_fulfil,
        "task.fence": by_fence,
        "task.record": by_record,
        "task.nack exhausted": by_nack,
        "lease expired for the last time": by_last_expiry,
        "signal.send": lambda world, _: world.ask(r.SignalSend("t", "box")) and None,
        "promise.cancel": lambda world, _: world.ask(r.PromiseCancel("p")) and None,
        "deadline": by_deadline,
        "deadline of a timer": by_deadline,
    }[cause]  # type: ignore[return-value]


OWN = {
    "signal.send": "t!box.1",
    "task.fulfill": "mine",
    "task.nack exhausted": "mine",
    "lease expired for the last time": "mine",
    "deadline of a timer": "timer",
}


@pytest.mark.parametrize(
    ("transition", "cause"),
    [(each, cause) for each in PROMISE_TRANSITIONS for cause in each.causes],
    ids=lambda value: value if isinstance(value, str) else value.after.value,
)
def test_each_cause_settles_a_promise(transition: PromiseTransition, cause: str) -> None:
    """Every cause in the table leads from pending to the state that it is listed under."""
    world = _world(TaskState.PENDING)
    _settle_by(cause)(world, transition.after)
    assert world.stored(OWN.get(cause, "p")).state is transition.after


def _expire(world: World) -> None:
    world.pass_time(10)
    world.fire(ExpireLease("t"))


def _suspend_asked_to_stop(world: World) -> None:
    if world.task("t").state is TaskState.ACQUIRED:
        world.ask(r.PromiseCancel("t"))
        world.ask(suspend("t", 1, "awaited"))


TASK_CAUSES: dict[str, Callable[[World], object]] = {
    "task.acquire": lambda w: w.ask(r.TaskAcquire("t", 0, "w", 10)),
    "task.create": lambda w: w.ask(
        r.TaskCreate("w", 10, r.CreateAction(create("t", target=PUSHED)))
    ),
    "task.claim": lambda w: w.claim("q"),
    "task.halt": lambda w: w.ask(r.TaskHalt("t")),
    "promise settled": lambda w: w.settle("t"),
    "task.release": lambda w: w.ask(r.TaskRelease("t", 1)),
    "task.nack": lambda w: w.ask(r.TaskNack("t", 1)),
    "lease expired": _expire,
    "task.suspend": lambda w: w.ask(suspend("t", 1, "awaited")),
    "task.suspend of one asked to stop": _suspend_asked_to_stop,
    "exhausted": lambda w: w.ask(r.TaskNack("t", 1, final="halt")),
    "task.fulfill": lambda w: w.ask(fulfill("t", 1)),
    "awaited promise settled": lambda w: w.settle("awaited"),
    "promise.cancel": lambda w: w.ask(r.PromiseCancel("t")),
    "task.continue": lambda w: w.ask(r.TaskContinue("t")),
    "dead.replay": lambda w: w.ask(r.DeadReplay(["t"])),
}


@pytest.mark.parametrize(
    ("transition", "cause"),
    [(each, cause) for each in TASK_TRANSITIONS for cause in each.causes],
    ids=lambda value: value if isinstance(value, str) else f"{value.before}-{value.after}",
)
def test_each_cause_moves_a_task(transition: TaskTransition, cause: str) -> None:
    """Every cause in the table leads from the one state to the other."""
    world = _world(transition.before)
    TASK_CAUSES[cause](world)
    assert world.task("t").state is transition.after


@pytest.mark.parametrize("state", TaskState)
@pytest.mark.parametrize("cause", TASK_CAUSES)
def test_no_cause_moves_a_task_otherwise(state: TaskState, cause: str) -> None:
    """Whatever is asked in whatever state, the task stays, or takes a transition of the table that
    lists this cause."""
    world = _world(TaskState.ACQUIRED if state is TaskState.FULFILLED else state)
    if state is TaskState.FULFILLED:
        world.settle("t")
    TASK_CAUSES[cause](world)
    after = world.task("t").state
    causes = {cause} if world.stored("t").pending else {cause, "promise settled"}
    listed = {(t.before, t.after) for t in TASK_TRANSITIONS if causes & {*t.causes}}
    assert after is state or (state, after) in listed


def test_an_exhausted_expiry_halts() -> None:
    """The second cause of a halt: the lease that was the last attempt."""
    world = World()
    world.started("t", queue="q", ttl=10, attempts="1", exhausted="halt")
    _expire(world)
    assert world.task("t").state is TaskState.HALTED


def test_the_working_set_refuses_what_is_not_in_the_table() -> None:
    """A handler that tried another transition would fail its request, and only that."""
    world = World()
    world.started("t")
    world.ask(fulfill("t", 1))
    from kept.machine.effects import put_pending
    from kept.machine.step import Step
    from kept.machine.working_set import WorkingSet
    from kept.protocol.storage import Reads
    from kept.stores.memory import reading

    records = WorkingSet()
    reads = Reads(objects={"t"})
    records.add(reads, reading.load(world.tables["default"], reads, world.now), world.now)
    with pytest.raises(AssertionError):
        put_pending(
            Step(records, world.now, world.config), world.task("t"), world.stored("t"), world.now
        )
    assert not records.changes()


def test_the_diagram_shows_every_transition() -> None:
    """What ARCHITECTURE.md draws is the table: one line for each, from the start to the ends."""
    for table in (PROMISE_TRANSITIONS, TASK_TRANSITIONS):
        lines = state_diagram(table).splitlines()
        assert lines[:2] == ["stateDiagram-v2", "    [*] --> pending"]
        for each in table:
            assert f"    {each.before} --> {each.after}: {', '.join(each.causes)}" in lines
        assert any(line.endswith("--> [*]") for line in lines)
    assert create("x").timeout_at == NEVER_MS
