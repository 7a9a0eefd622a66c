"""The background steps (protocol A5): each does its work when enabled, and nothing otherwise."""

from __future__ import annotations

import pytest

from kept.machine import background as b
from kept.machine.deliveries import deliveries_key
from kept.machine.step import MachineConfig
from kept.protocol import requests as r
from kept.protocol.entries import Attempt
from kept.protocol.inquiries import DeliveriesResult, PromiseDeliveries
from kept.protocol.limits import (
    DELIVERIES_KEPT_MS,
    MAX_DELIVERIES,
    MAX_EDGES_PER_STEP,
    MAX_INSTANTS_PER_STEP,
)
from kept.protocol.records import MessageKey, OutboxEntry, PromiseState, TaskState, Value
from kept.protocol.responses import ScheduleResult
from tests.unit.machine.world import LISTENER, PUSHED, START_MS, World, create, suspend

EXECUTE = MessageKey.execute("t")
STEPS: list[b.InternalStep] = [
    b.TimeoutPromise("t"),
    b.DrainEdges("t"),
    b.ExpireLease("t"),
    b.RetryTask("t"),
    b.ReadyTask("t"),
    b.FireSchedule("t"),
    b.TakeMessage(EXECUTE, START_MS + 60_000),
    b.DeliveredMessage(EXECUTE, 9),
    b.FailedMessage(EXECUTE, 9, START_MS + 60_000),
]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
@pytest.mark.parametrize("state", ["missing", "pending", "acquired", "suspended", "halted", "late"])
def test_a_step_that_is_not_enabled_changes_nothing(step: b.InternalStep, state: str) -> None:
    """Fired too early, twice, or for something that is not there, a step leaves all as it was; on a
    promise past its deadline it stores that deadline and nothing else (C5)."""
    world = World()
    world.create("open", external="true")
    deadline = START_MS + 100
    if state == "pending":
        world.create("t", target=PUSHED, timeout_at=deadline, delay=str(START_MS + 50))
    elif state != "missing":
        world.started("t", timeout_at=deadline, ttl=10 if state == "late" else 10_000)
    if state == "suspended":
        world.ask(suspend("t", 1, "open"))
    elif state == "halted":
        world.ask(r.TaskHalt("t"))
    world.pass_time(100 if state == "late" else 20)
    before = world.dump
    world.fire(step)
    if state == "late" and isinstance(step, b.TimeoutPromise | b.ExpireLease):
        assert world.stored("t").state is PromiseState.REJECTED_TIMEDOUT
        assert world.task("t").state is TaskState.FULFILLED
        assert not world.outbox
    else:
        assert world.dump == before


def test_retry_offers_a_pending_task_again_and_again() -> None:
    """An execute to the target at the task's version, due now; then re-armed by the retry timeout."""
    world = World(MachineConfig(retry_timeout_ms=7))
    world.create("t", target=PUSHED)
    for _ in range(3):
        world.fire(b.RetryTask("t"))
        assert world.outbox == [OutboxEntry(EXECUTE, PUSHED, 0, world.now)]
        assert world.task("t").retry_at == world.now + 7
        world.fire(b.TakeMessage(EXECUTE, world.now + 60_000))
        world.pass_time(7)
    with pytest.raises(AssertionError):
        MachineConfig(retry_timeout_ms=0)


def test_an_offer_that_nobody_took_is_not_put_off() -> None:
    """A server whose clock is behind by more than the retry timeout still finds it due some day."""
    world = World(MachineConfig(retry_timeout_ms=7))
    world.create("t", target=PUSHED)
    first = world.now
    world.fire(b.RetryTask("t"))
    world.pass_time(7)
    world.fire(b.RetryTask("t"))
    assert world.outbox == [OutboxEntry(EXECUTE, PUSHED, 0, first)]
    world.fire(b.TakeMessage(EXECUTE, world.now + 60_000))
    world.pass_time(7)
    world.fire(b.RetryTask("t"))
    assert world.outbox == [OutboxEntry(EXECUTE, PUSHED, 0, world.now)]


@pytest.mark.parametrize("tags", [{"queue": "q"}, {"target": PUSHED, "timer": "true"}])
def test_what_is_never_dispatched(tags: dict[str, str]) -> None:
    """Pulled tasks get no message, and neither do timers, whatever their target (A7.2)."""
    world = World()
    world.create("t", timeout_at=START_MS + 50, **tags)
    for _ in range(10):
        world.pass_time(10)
        world.settle_down()
        world.fire(b.RetryTask("t"))
    assert not world.outbox
    assert world.state_of("t") == "fulfilled"


def test_lease_expiry_keeps_the_version_and_the_resumes() -> None:
    """Pending and due now at the same version, with what woke it meanwhile still known."""
    world = World()
    world.create("awaited", external="true")
    world.started("t", ttl=10)
    world.ask(r.PromiseRegisterCallback("awaited", "t"))
    world.settle("awaited")
    world.pass_time(9)
    world.fire(b.ExpireLease("t"))
    assert world.state_of("t") == "acquired"
    world.pass_time(1)
    world.fire(b.ExpireLease("t"))
    task = world.task("t")
    assert (task.state, task.version, task.resumes) == (TaskState.PENDING, 1, 1)


def test_a_fan_in_drains_in_steps() -> None:
    """The settlement drains as many edges as one step may, marks that some are left, and the
    background drains those."""
    world = World(watched=False)
    world.create("p", external="true")
    count = 2 * MAX_EDGES_PER_STEP + 3
    world.batch([r.PromiseRegisterListener("p", f"http://l.test/{n}") for n in range(count)])
    world.settle("p")
    assert len(world.outbox) == MAX_EDGES_PER_STEP
    for left in (MAX_EDGES_PER_STEP + 3, 3, 0):
        assert len(world.dump.listeners) == left
        world.fire(b.DrainEdges("p"))
    assert len(world.outbox) == count
    world.settle_down()


def test_edges_of_the_same_batch_are_drained_too() -> None:
    """A settlement in the commit that registered the callbacks wakes them all."""
    world = World()
    for id in ("a", "b"):
        world.started(id)
    world.batch(
        [
            create("p", external="true"),
            suspend("a", 1, "p"),
            r.PromiseRegisterListener("p", LISTENER),
            suspend("b", 1, "p"),
            r.PromiseSettle("p", PromiseState.RESOLVED),
        ]
    )
    assert [world.state_of(id) for id in ("a", "b")] == ["pending", "pending"]
    assert not world.dump.callbacks
    assert [entry.address for entry in world.outbox] == [LISTENER]


def test_a_message_is_taken_by_one_and_leaves_when_delivered() -> None:
    """Taking reserves it until an instant; failing sets the next; delivering removes it, if it is
    still that version."""
    world = World()
    world.create("t", target=PUSHED)
    world.fire(b.RetryTask("t"))
    (taken,) = world.fire(b.TakeMessage(EXECUTE, world.now + 50))
    assert taken == OutboxEntry(EXECUTE, PUSHED, 0, world.now + 50, 1)
    assert world.fire(b.TakeMessage(EXECUTE, world.now + 50)) == [None]
    world.fire(b.FailedMessage(EXECUTE, 0, world.now + 9))
    assert world.outbox == [OutboxEntry(EXECUTE, PUSHED, 0, world.now + 9, 1)]
    world.fire(b.DeliveredMessage(EXECUTE, 1))
    assert len(world.outbox) == 1
    world.fire(b.DeliveredMessage(EXECUTE, 0))
    assert world.outbox == []


def test_a_delivery_from_before_a_halt_leaves_the_message_from_after_it() -> None:
    """A task keeps its version when it is halted and goes on: its second message is not the first."""
    world = World()
    world.create("t", target=PUSHED)
    world.fire(b.RetryTask("t"))
    world.fire(b.TakeMessage(EXECUTE, before := world.now + 50))
    world.ask(r.TaskHalt("t"))
    world.now += 10
    world.ask(r.TaskContinue("t"))
    world.fire(b.RetryTask("t"))
    world.fire(b.TakeMessage(EXECUTE, after := world.now + 50))
    world.fire(b.DeliveredMessage(EXECUTE, 0, None, before))
    assert [entry.due_at for entry in world.outbox] == [after]
    world.fire(b.DeliveredMessage(EXECUTE, 0, None, after))
    assert world.outbox == []


def test_an_execute_that_is_stale_is_dropped_when_taken() -> None:
    """The task was acquired, or is over: nobody needs it, and it is not sent."""
    world = World()
    for id in ("t", "over"):
        world.create(id, target=PUSHED)
        world.fire(b.RetryTask(id))
    world.ask(r.TaskAcquire("t", 0, "w", 10))
    world.settle("over")
    keys = (EXECUTE, MessageKey.execute("over"))
    assert world.fire(*(b.TakeMessage(key, world.now + 50) for key in keys)) == [None, None]
    assert world.outbox == []


# -- schedules -----------------------------------------------------------------------------------


def _schedule(world: World, cron: str = "* * * * * *", **fields: object) -> None:
    options = {"promise_id": "{{.id}}.{{.timestamp}}", "promise_timeout": 5_000, **fields}
    request = r.ScheduleCreate("s", cron, **options)  # type: ignore[arg-type]
    assert world.ok(request, ScheduleResult).schedule.next_run_at > world.now


def test_every_missed_instant_is_fired_in_order() -> None:
    """As of its instant, with the lineage tags of its own, at most so many in one step, none twice
    and none left out."""
    world = World()
    _schedule(world, promise_tags={"color": "red"}, promise_param=Value(data="1"))
    missed = MAX_INSTANTS_PER_STEP + 20
    world.pass_time(missed * 1_000)
    world.fire(b.FireSchedule("s"))
    assert len(world.dump.promises) == MAX_INSTANTS_PER_STEP
    world.settle_down()
    instants = [START_MS + 1_000 * n for n in range(1, missed + 1)]
    assert sorted(world.dump.promises) == sorted(f"s.{at}" for at in instants)
    for at in instants:
        id = f"s.{at}"
        promise = world.stored(id)
        assert (promise.created_at, promise.timeout_at) == (at, at + 5_000)
        assert promise.param == Value(data="1")
        assert promise.tags == {
            "color": "red",
            "resonate:schedule": "s",
            "resonate:origin": id,
            "resonate:branch": id,
            "resonate:parent": id,
        }
    schedule = world.dump.schedules["s"]
    assert (schedule.last_run_at, schedule.next_run_at) == (world.now, world.now + 1_000)


def test_an_occurrence_so_late_that_its_deadline_is_past() -> None:
    """It is created as of its instant, then timed out; its task is never offered."""
    world = World()
    _schedule(world, promise_tags={"resonate:target": PUSHED}, promise_timeout=500)
    world.pass_time(3_000)
    world.settle_down()
    states = {promise.state.value for promise in world.dump.promises.values()}
    # The last instant is now, so its work is offered.
    assert states == {"rejected_timedout", "pending"}
    assert [entry.key.id for entry in world.outbox] == [f"s.{world.now}"]


def test_one_id_for_all_instants_fires_once() -> None:
    """A template without the instant names one promise: the first creates it, the others find it."""
    world = World()
    _schedule(world, promise_id="once")
    world.pass_time(10_000)
    world.settle_down()
    assert world.stored("once").created_at == START_MS + 1_000


@pytest.mark.parametrize("delay", ["soon", "-1", "", str(2**52), str(START_MS)])
def test_a_schedule_with_any_delay_fires_or_is_refused(delay: str) -> None:
    """Whatever text a schedule has as its promises' delay, firing it never fails: what is no
    instant is a 400 at create, and what is beyond the deadline does not delay."""
    world = World()
    request = r.ScheduleCreate(
        "s",
        "* * * * * *",
        "{{.timestamp}}",
        5_000,
        promise_tags={"resonate:target": PUSHED, "resonate:delay": delay},
    )
    if world.status(request) == 200:
        world.pass_time(1_000)
        world.settle_down()
        assert len(world.dump.promises) == 1


@pytest.mark.parametrize("cron", ["", "often", "61 * * * *", "* * * *", "0 0 30 2 *"])
def test_a_cron_that_never_fires_is_refused(cron: str) -> None:
    """400 with the reason, and nothing is stored."""
    world = World()
    response = world.ask(r.ScheduleCreate("s", cron, "x", 5))
    assert response.status == 400
    assert "cron" in str(response.data)
    assert not world.dump.schedules


def test_schedules_are_created_once_and_deleted() -> None:
    """Idempotent by id; after a delete nothing fires, and get and delete are a 404."""
    world = World()
    _schedule(world)
    world.pass_time(10)
    again = world.ok(r.ScheduleCreate("s", "0 0 1 1 *", "y", 1), ScheduleResult).schedule
    assert (again.cron, again.created_at) == ("* * * * * *", START_MS)
    assert world.status(r.ScheduleDelete("s")) == 200
    world.pass_time(10_000)
    world.fire(b.FireSchedule("s"))
    assert not world.dump.promises
    for request in (r.ScheduleGet("s"), r.ScheduleDelete("s")):
        assert world.status(request) == 404


def test_the_latest_tries_to_deliver_a_webhook_are_remembered_and_forgotten() -> None:
    """A bounded number of them, oldest first, with the instant of each; a week later none."""
    world = World()
    key = MessageKey.unblock("p", LISTENER)
    world.create("p", external="true")
    last = MAX_DELIVERIES + 6
    for number in range(1, last):
        world.now += 1_000
        failed = Attempt(LISTENER, number, 7, "answered 500", world.now + 1_000)
        world.fire(b.FailedMessage(key, 0, world.now + 1_000, failed))
    world.now += 1_000
    world.fire(b.DeliveredMessage(key, 0, Attempt(LISTENER, last, 9)))
    found = world.ok(PromiseDeliveries("p"), DeliveriesResult).deliveries
    assert [each.number for each in found] == list(range(7, last + 1))
    assert (found[-1].at, found[-1].error, found[-1].took) == (world.now, None, 9)
    assert (found[-2].error, found[-2].next_at) == ("answered 500", world.now)
    world.now += DELIVERIES_KEPT_MS
    world.fire(b.LookAtEntry(deliveries_key("p")))
    assert world.ok(PromiseDeliveries("p"), DeliveriesResult).deliveries == []
    assert world.status(PromiseDeliveries("none")) == 404
