"""The explorer finds what is broken on purpose, with the shortest trace that shows it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from msgspec.structs import replace

from kept.machine import background, effects, queues, tasks
from kept.machine.dispatch import _INTERNAL, HANDLERS, Machine
from kept.machine.preload import Preload
from kept.machine.step import Step
from kept.machine.working_set import WorkingSet
from kept.protocol import requests as r
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import OutboxEntry, Promise, PromiseState, Task, TaskState
from kept.protocol.responses import OK, AcquiredTask, PromiseResult, Response
from kept.sim.explorer import database, watch
from kept.sim.explorer.explore import Finding, explore
from kept.sim.explorer.programs import Fulfil
from kept.sim.explorer.worlds import BY_NAME, Create, World, pushed

# One promise and what one worker can get wrong with it: explored to the end in no time.
ONE = World(
    "one",
    "a promise and a worker",
    (Create(pushed("root")),),
    {"root": (Fulfil(),)},
    workers=1,
    hangs=0,
)


def found(world: World, *, depth: int | None = None) -> Finding:
    """What the explorer finds; it must find something."""
    finding = explore(world, time.monotonic, depth=depth).finding
    assert finding is not None, "nothing was found"
    return finding


def lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.strip().splitlines())


def test_fulfil_without_a_check_of_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that lost its lease and fulfils all the same is found."""

    def fulfil(step: Step, request: r.TaskFulfill) -> Response:
        held = effects.read_task(step, request.id)
        assert held is not None
        if not held[1].pending:
            return Response(409, "over")
        verdict = request.action.data
        promise = effects.settle(step, held[1], verdict.state, verdict.value, step.now)
        return Response(OK, PromiseResult(promise.record()))

    monkeypatch.setitem(HANDLERS, r.TaskFulfill, fulfil)
    finding = found(BY_NAME["job"], depth=6)
    assert finding.name == watch.FENCED
    assert finding.trace == lines(
        """
        the client creates job: 200
        w1 claims job: 200
        time passes: 1000 ms
        the lease on job expires
        w1, whose lease is lost, fulfils job
        """
    )


def test_waking_an_awaiter_that_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """An awaiter past its own deadline that is made pending by what it awaited is found."""

    def drain_callback(step: Step, id: str, awaiter: str) -> None:
        step.records.remove_callback(id, awaiter)
        task, promise = step.records.task(awaiter), step.records.promise(awaiter)
        assert task is not None
        assert promise is not None
        if task.state is TaskState.SUSPENDED:
            step.records.add_resume(awaiter, id)
            resumed = replace(task, resumes=task.resumes + 1)
            effects.put_pending(step, resumed, promise, step.now)

    monkeypatch.setattr(background, "drain_callback", drain_callback)
    finding = found(BY_NAME["timer"])
    assert finding.name == "preserved_no_dead_dispatch"
    assert finding.trace == lines(
        """
        the client creates root: 200
        the engine offers root to its target
        time passes: 1000 ms
        w1 receives the message for root
        w1 acquires root: 200
        w1 creates a child of root: 200
        w1 suspends root: 200
        time passes: 2000 ms
        the deadline of root.1 is stored
        """
    )


def test_a_suspend_that_registers_no_callback(monkeypatch: pytest.MonkeyPatch) -> None:
    """A suspended task that nothing will wake is found as soon as it is suspended."""
    monkeypatch.setattr(WorkingSet, "add_callback", lambda *_: None)
    finding = found(BY_NAME["timer"])
    assert finding.name == "consistent_suspension_registers_callback"
    assert len(finding.trace) == 6
    assert finding.trace[-1] == "w1 suspends root"


def test_an_expiry_that_does_not_keep_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a new lease raises a version: one that rises with the end of a lease is found."""
    put_pending = effects.put_pending

    def raising(step: Step, task: Task, promise: Promise, retry_at: int, **fields: int) -> Task:
        return put_pending(step, task, promise, retry_at, **fields, version=task.version + 1)

    monkeypatch.setattr(background, "put_pending", raising)
    finding = found(ONE)
    assert finding.name == "consistent_task_lease_released_atomically"
    assert finding.trace == lines(
        """
        the client creates root: 200
        the engine offers root to its target
        w1 receives the message for root
        w1 acquires root: 200
        time passes: 1000 ms
        the lease on root expires
        """
    )


def test_a_settlement_that_leaves_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """A settled promise whose task goes on is found."""
    monkeypatch.setattr(effects, "put_fulfilled", lambda *_: None)
    finding = found(ONE)
    assert finding.name == "consistent_settlement_fulfils_task"
    assert len(finding.trace) == 5
    assert finding.trace[-1] == "w1 fulfils root"


def test_leases_that_never_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    """No step is wrong, but after a crash nothing can ever settle the promise."""
    monkeypatch.setitem(_INTERNAL, background.ExpireLease, ("lease.expire", lambda *_: None))
    finding = found(ONE)
    assert finding.name == watch.CAN_SETTLE
    assert finding.trace == lines(
        """
        the client creates root: 200
        the engine offers root to its target
        w1 receives the message for root
        w1 acquires root: 200
        w1 crashes
        """
    )


def test_a_message_that_is_never_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that is offered once only is lost with the message."""

    def retry(step: Step, due: background.RetryTask) -> None:
        held = effects.read_task(step, due.id)
        if held is None or held[0].state is not TaskState.PENDING:
            return
        task, promise = held
        if task.retry_at is not None and task.retry_at <= step.now and promise.pending:
            assert promise.target is not None
            step.records.put_task(replace(task, retry_at=NEVER_MS))
            key = background.MessageKey.execute(task.id)
            step.records.put_message(OutboxEntry(key, promise.target, task.version, step.now))

    monkeypatch.setitem(_INTERNAL, background.RetryTask, ("task.retry", retry))
    finding = found(ONE)
    assert finding.name == watch.CAN_SETTLE
    assert finding.trace == lines(
        """
        the client creates root: 200
        the engine offers root to its target
        the message for root is lost on its way
        """
    )


def test_answers_that_are_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whose answer was lost and that asks again under the same id must get it."""
    monkeypatch.setattr(Machine, "_repeated", lambda *_: None)
    finding = found(BY_NAME["job"], depth=6)
    assert finding.name == watch.SAME_ANSWER
    assert len(finding.trace) == 5
    assert finding.trace[-1].endswith(", asking again")


def test_a_lease_that_a_stale_holder_extends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat of somebody who lost the lease must not keep it for its new holder."""

    def beat(step: Step, ref: r.TaskRef, _pid: str) -> str | None:
        held = effects.read_task(step, ref.id)
        if held is None or held[0].state is not TaskState.ACQUIRED:
            return "expired"
        assert held[0].ttl is not None
        step.records.put_task(replace(held[0], expires_at=step.now + held[0].ttl))
        return None

    monkeypatch.setattr(tasks, "_beat", beat)
    finding = found(BY_NAME["job"], depth=7)
    assert finding.name == watch.FENCED
    assert finding.trace[-1] == "w1, whose lease is lost, sends a heartbeat for job"


def test_attempts_that_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that fails for ever, though it has two attempts, is found at the second failure."""
    monkeypatch.setattr(queues, "is_exhausted", lambda *_: False)
    finding = found(BY_NAME["job"], depth=7)
    assert finding.name == watch.ATTEMPTS
    assert len(finding.trace) == 6


def test_a_lease_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers that are told they hold one task at one version are found, though no record
    is wrong."""
    acquire = tasks.task_acquire

    def generous(step: Step, request: r.TaskAcquire) -> Response:
        task, promise = step.records.task(request.id), step.records.promise(request.id)
        if task is None or promise is None or task.state is not TaskState.ACQUIRED:
            return acquire(step, request)
        return Response(OK, AcquiredTask(task.record(), promise.record(), []))

    monkeypatch.setitem(HANDLERS, r.TaskAcquire, generous)
    two_workers = ONE._replace(workers=2)
    assert found(two_workers).name == watch.GIVEN
    # Even if no record and no answer looked wrong: two workers believe it.
    monkeypatch.setattr(database, "check_answer", lambda *_: None)
    finding = found(two_workers)
    assert finding.name == watch.ONE_HOLDER
    assert finding.trace[-1] == "w2 acquires root: 200"


def test_an_answer_before_the_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    """A settlement that is acknowledged and not stored is found."""

    def fulfil(step: Step, request: r.TaskFulfill) -> Response:
        held = tasks.held(step, request.id, request.version)
        if isinstance(held, Response):
            return held
        settled = replace(held[1], state=PromiseState.RESOLVED, settled_at=step.now)
        return Response(OK, PromiseResult(settled.record()))

    monkeypatch.setitem(HANDLERS, r.TaskFulfill, fulfil)
    assert found(ONE).name == watch.TRUE_ANSWERS


def test_a_settlement_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A settled promise that is settled once more is found, whoever does it."""

    def settle(step: Step, request: r.PromiseSettle) -> Response:
        promise = step.records.promise(request.id)
        assert promise is not None
        changed = replace(promise, state=request.state, value=request.value, settled_at=step.now)
        records: Any = step.records
        records._set("promises", records._promises, request.id, changed)
        return Response(OK, PromiseResult(changed.record()))

    monkeypatch.setitem(HANDLERS, r.PromiseSettle, settle)
    finding = found(BY_NAME["approval"], depth=8)
    assert finding.trace[-1] == "the client resolves root.1"


def test_a_settlement_that_tells_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a promise that settled must be told in the same commit."""
    monkeypatch.setattr(Machine, "_drain", lambda *_: None)
    finding = found(BY_NAME["timer"], depth=6)
    assert finding.name == watch.DRAINED
    assert finding.trace == lines(
        """
        the client creates root: 200
        the client listens to root: 200
        time passes: 2000 ms
        the deadline of root is stored
        """
    )


def test_a_background_step_that_does_not_look_at_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer that fires too early must do no harm."""

    def expire(step: Step, due: background.ExpireLease) -> None:
        held = effects.read_task(step, due.id)
        if held is not None and held[0].state is TaskState.ACQUIRED:
            effects.put_pending(step, *held, step.now)

    monkeypatch.setitem(_INTERNAL, background.ExpireLease, ("lease.expire", expire))
    finding = found(ONE)
    assert finding.name == watch.NOT_EARLY
    assert finding.trace[-2:] == ("w1 acquires root: 200", "the engine takes a step too early")


def test_a_preload_that_leaves_out_what_is_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who takes work over must learn of all that is done, or it does it again."""
    preload_of = tasks.preload_of

    def forgetting(step: Step, id: str, limit: int | None) -> Preload:
        page = preload_of(step, id, limit)
        pending = [child for child in page.records if child.state is PromiseState.PENDING]
        return page._replace(records=pending)

    monkeypatch.setattr(tasks, "preload_of", forgetting)
    assert found(BY_NAME["timer"], depth=9).name == watch.GIVEN


def test_a_machine_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a handler raises is told with the trace that leads to it."""

    def nack(*_: object) -> Response:
        raise KeyError("root")

    monkeypatch.setitem(HANDLERS, r.TaskNack, nack)
    finding = found(BY_NAME["job"], depth=4)
    assert finding.name == watch.SOUND
    assert "KeyError" in finding.why
    assert finding.trace == lines(
        """
        the client creates job: 200
        w1 claims job: 200
        w1 fails job
        """
    )
