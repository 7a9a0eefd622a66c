"""The explorer finds what is broken on purpose, with the shortest trace that shows it."""

from __future__ import annotations

import time

import pytest

from kept.machine import background, effects
from kept.machine.dispatch import HANDLERS
from kept.machine.step import Step
from kept.protocol import requests as r
from kept.protocol.records import Promise, Task
from kept.protocol.responses import Response
from kept.sim.explorer import database, watch
from kept.sim.explorer.explore import Finding, explore
from kept.sim.explorer.worlds import BY_NAME, ONE, World
from kept.sim.zoo.play import walk
from kept.sim.zoo.registry import BY_NAME as ZOO
from kept.sim.zoo.registry import ZOO as ALL_BUGS


def found(world: World, *, depth: int | None = None) -> Finding:
    """What the explorer finds; it must find something."""
    finding = explore(world, time.monotonic, depth=depth).finding
    assert finding is not None, "nothing was found"
    return finding


def caught(name: str) -> Finding:
    """What the explorer finds of a bug of the zoo."""
    finding = next(walk(ZOO[name], time.monotonic)).finding
    assert finding is not None, "nothing was found"
    return finding


def lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.strip().splitlines())


@pytest.mark.parametrize("name", [bug.name for bug in ALL_BUGS if bug.walks])
def test_every_bug_that_can_be_walked_into_is_found(name: str) -> None:
    """Each bug of the zoo that names a world is found in it, and told with a trace."""
    assert caught(name).trace


def test_fulfil_without_a_check_of_the_version() -> None:
    """A worker that lost its lease and fulfils all the same is found."""
    finding = caught("fulfil-unfenced")
    assert finding.name == watch.FENCED
    assert finding.trace[:4] == lines(
        """
        the client creates job: 200
        w1 claims job: 200
        time passes: 1000 ms
        the lease on job expires
        """
    )
    assert finding.trace[-1] == "w1, whose lease is lost, fulfils job"


def test_waking_an_awaiter_that_is_over() -> None:
    """An awaiter past its own deadline that is made pending by what it awaited is found."""
    finding = caught("dead-awaiter-woken")
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


def test_a_suspend_that_registers_no_callback() -> None:
    """A suspended task that nothing will wake is found as soon as it is suspended."""
    finding = caught("suspend-without-callbacks")
    assert finding.name == "consistent_suspension_registers_callback"
    assert len(finding.trace) == 6
    assert finding.trace[-1] == "w1 suspends root"


def test_a_suspend_that_registers_one_callback_of_two() -> None:
    """Nothing would wake it when the other one settles first."""
    finding = caught("suspend-on-the-first")
    assert finding.name == watch.AWAITED
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


def test_a_settlement_that_leaves_the_task() -> None:
    """A settled promise whose task goes on is found."""
    finding = caught("settlement-leaves-task")
    assert finding.name == "consistent_settlement_fulfils_task"
    assert len(finding.trace) == 5
    assert finding.trace[-1] == "w1 fulfils root"


def test_leases_that_never_expire() -> None:
    """No step is wrong, but after a crash nothing can ever settle the promise."""
    finding = caught("lease-never-ends")
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


def test_a_message_that_is_never_sent_again() -> None:
    """A task that is offered once only is lost with the message."""
    finding = caught("execute-sent-once")
    assert finding.name == watch.CAN_SETTLE
    assert finding.trace == lines(
        """
        the client creates root: 200
        the engine offers root to its target
        the message for root is lost on its way
        """
    )


def test_answers_that_are_not_repeated() -> None:
    """A worker whose answer was lost and that asks again under the same id must get it."""
    finding = caught("requests-not-remembered")
    assert finding.name == watch.SAME_ANSWER
    assert finding.trace[-1].endswith(", asking again")


def test_a_claim_that_is_not_remembered() -> None:
    """A claim that is asked again must get what it took, and nothing else."""
    finding = caught("claim-not-remembered")
    assert finding.name == watch.SAME_ANSWER
    assert "claim" in finding.trace[-1]


def test_a_lease_that_a_stale_holder_extends() -> None:
    """A heartbeat of somebody who lost the lease must not keep it for its new holder."""
    finding = caught("stale-holder-extends")
    assert finding.name == watch.FENCED
    assert finding.trace[-1] == "w1, whose lease is lost, sends a heartbeat for job"


def test_attempts_that_are_not_counted() -> None:
    """A job that fails for ever, though it has two attempts, is found at the second failure."""
    finding = caught("exhausted-never")
    assert finding.name == watch.ATTEMPTS
    assert len(finding.trace) == 6


@pytest.mark.parametrize("name", ["expiry-no-failure", "exhausted-one-too-early"])
def test_the_end_of_a_lease_that_is_miscounted(name: str) -> None:
    """An expired lease is one failure, and ends the work when it was the last and not before."""
    finding = caught(name)
    assert finding.name == watch.COUNTED
    assert finding.trace[-1] == "the lease on job expires"


def test_a_lease_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers that are told they hold one task at one version are found, though no record
    is wrong."""
    assert caught("lease-given-twice").name == watch.GIVEN
    # Even if no record and no answer looked wrong: two workers believe it.
    monkeypatch.setattr(database, "check_answer", lambda *_: None)
    monkeypatch.setattr(database, "check_request", lambda *_: None)
    finding = caught("lease-given-twice")
    assert finding.name == watch.ONE_HOLDER
    assert finding.trace[-1] == "w2 acquires root: 200"


def test_an_answer_before_the_fact() -> None:
    """A settlement that is acknowledged and not stored is found."""
    assert caught("answer-without-the-fact").name == watch.TRUE_ANSWERS


def test_a_settlement_that_changes() -> None:
    """A settled promise that is settled once more is found, whoever does it."""
    assert caught("settlement-overwritten").trace[-1] == "the client resolves root.1"


def test_a_settlement_that_tells_nobody() -> None:
    """Whoever waits for a promise that settled must be told in the same commit."""
    finding = caught("edges-not-drained")
    assert finding.name == watch.DRAINED
    assert finding.trace == lines(
        """
        the client creates root: 200
        the client listens to root: 200
        time passes: 2000 ms
        the deadline of root is stored
        """
    )


def test_a_background_step_that_does_not_look_at_the_time() -> None:
    """A timer that fires too early must do no harm."""
    finding = caught("lease-ends-early")
    assert finding.name == watch.NOT_EARLY
    assert finding.trace[-2:] == ("w1 acquires root: 200", "the engine takes a step too early")


def test_a_preload_that_leaves_out_what_is_settled() -> None:
    """Who takes work over must learn of all that is done, or it does it again."""
    assert caught("preload-without-the-settled").name == watch.GIVEN


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
