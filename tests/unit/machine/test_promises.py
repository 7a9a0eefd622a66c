"""The promise requests (protocol A3, A4), each answer and what it stores."""

from __future__ import annotations

import pytest

from kept.protocol import requests as r
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import MessageKind, PromiseState, Value
from kept.protocol.responses import PromiseResult
from kept.protocol.storage import Edge
from tests.unit.machine.world import LISTENER, PUSHED, START_MS, World, create, suspend

SETTLEMENTS = [PromiseState.RESOLVED, PromiseState.REJECTED, PromiseState.REJECTED_CANCELED]


def test_create_is_idempotent_by_id() -> None:
    """The second create gets 200 and the first one's record, whatever it asks for."""
    world = World()
    first = world.ok(create("p", param=Value(data="1")), PromiseResult)
    world.pass_time(5)
    second = world.ok(
        create("p", param=Value(data="2"), timeout_at=START_MS + 9, target=PUSHED), PromiseResult
    )
    assert second == first
    assert first.promise.created_at == START_MS
    assert "p" not in world.dump.tasks


@pytest.mark.parametrize(
    "tags", [{}, {"external": "true"}, {"timer": "true"}, {"target": PUSHED}, {"queue": "q"}]
)
def test_born_past_its_deadline(tags: dict[str, str]) -> None:
    """A promise whose deadline has passed is born settled, all its times that deadline, and its
    task is fulfilled at version 0."""
    world = World()
    record = world.ok(create("p", timeout_at=START_MS, **tags), PromiseResult).promise
    assert record.created_at == record.settled_at == record.timeout_at == START_MS
    expected = "resolved" if "timer" in tags else "rejected_timedout"
    assert record.state.value == expected
    if "target" in tags or "queue" in tags:
        task = world.task("p")
        assert (task.state.value, task.version, task.retry_at) == ("fulfilled", 0, None)
        assert world.settle_down() is None
        assert world.outbox == []


@pytest.mark.parametrize("state", SETTLEMENTS)
def test_the_first_settlement_wins(state: PromiseState) -> None:
    """A settlement stores its state, value and instant; a later one gets that record with 200."""
    world = World()
    world.create("p", external="true")
    world.pass_time(3)
    value = Value({"a": "b"}, "1")
    first = world.ok(r.PromiseSettle("p", state, value), PromiseResult).promise
    assert (first.state, first.value, first.settled_at) == (state, value, START_MS + 3)
    world.pass_time(3)
    for other in SETTLEMENTS:
        assert world.ok(r.PromiseSettle("p", other), PromiseResult).promise == first


@pytest.mark.parametrize("state", [PromiseState.PENDING, PromiseState.REJECTED_TIMEDOUT])
def test_only_a_verdict_of_the_clients_can_be_settled_into(state: PromiseState) -> None:
    """pending and the deadline's own verdict are a 400, and change nothing."""
    world = World()
    world.create("p")
    assert world.status(r.PromiseSettle("p", state)) == 400
    assert world.stored("p").pending


@pytest.mark.parametrize(("timer", "state"), [("true", "resolved"), ("false", "rejected_timedout")])
def test_a_settlement_past_the_deadline_is_too_late(timer: str, state: str) -> None:
    """At its deadline, to the ms, a promise is settled by it: the answer is 200 with that record."""
    world = World()
    world.create("p", timeout_at=START_MS + 10, timer=timer)
    world.create("q", timeout_at=START_MS + 10, timer=timer)
    world.pass_time(9)
    on_time = world.ok(r.PromiseSettle("q", PromiseState.REJECTED), PromiseResult).promise
    assert on_time.state is PromiseState.REJECTED
    world.pass_time(1)
    late = world.ok(
        r.PromiseSettle("p", PromiseState.REJECTED, Value(data="x")), PromiseResult
    ).promise
    assert (late.state.value, late.settled_at, late.value) == (state, START_MS + 10, Value())


def test_what_does_not_exist_is_not_found() -> None:
    """get, settle and both registers answer 404, and create nothing."""
    world = World()
    world.create("awaiter", target=PUSHED)
    for request in (
        r.PromiseGet("none"),
        r.PromiseSettle("none", PromiseState.RESOLVED),
        r.PromiseRegisterCallback("none", "awaiter"),
        r.PromiseRegisterListener("none", LISTENER),
    ):
        assert world.status(request) == 404
    assert set(world.dump.promises) == {"awaiter"}


@pytest.mark.parametrize("tags", [{}, {"external": "false"}, {"timer": "false"}])
def test_an_internal_promise_cannot_be_awaited(tags: dict[str, str]) -> None:
    """Neither a callback nor a listener attaches to it (C2, C3): 422."""
    world = World()
    world.create("internal", **tags)
    world.create("awaiter", target=PUSHED)
    assert world.status(r.PromiseRegisterCallback("internal", "awaiter")) == 422
    assert world.status(r.PromiseRegisterListener("internal", LISTENER)) == 422
    assert not world.dump.callbacks | world.dump.listeners


@pytest.mark.parametrize(
    ("tags", "armed"),
    [
        ({}, False),
        ({"timer": "false"}, False),
        ({"external": "true"}, True),
        ({"timer": "true"}, True),
        ({"target": PUSHED}, True),
        ({"target": PUSHED, "timer": "true"}, True),
    ],
)
def test_exactly_the_external_promises_are_armed(tags: dict[str, str], armed: bool) -> None:  # noqa: FBT001
    """The background settles an external promise at its deadline and leaves an internal one, which
    is only projected (C1)."""
    world = World()
    world.create("p", timeout_at=START_MS + 10, **tags)
    world.pass_time(10)
    world.settle_down()
    assert world.stored("p").pending is not armed
    assert world.promise("p").promise.state is not PromiseState.PENDING


def test_none_is_never_due() -> None:
    """The largest deadline means none: nothing is armed, at any time (B6)."""
    world = World()
    world.create("p", timeout_at=NEVER_MS, external="true")
    world.now = NEVER_MS - 1
    world.settle_down()
    assert world.stored("p").pending
    assert world.stored("p").armed_deadline is None


def test_callbacks_need_an_awaiter_that_can_be_woken() -> None:
    """No awaiter or one without a target is a 422, itself is a 400; twice is one callback."""
    world = World()
    world.create("awaited", external="true")
    world.create("plain", external="true")
    world.create("awaiter", target=PUSHED)
    assert world.status(r.PromiseRegisterCallback("awaited", "none")) == 422
    assert world.status(r.PromiseRegisterCallback("awaited", "plain")) == 422
    assert world.status(r.PromiseRegisterCallback("awaiter", "awaiter")) == 400
    for _ in range(2):
        assert world.status(r.PromiseRegisterCallback("awaited", "awaiter")) == 200
    assert world.dump.callbacks == {Edge("awaited", "awaiter")}


def test_a_settled_promise_takes_no_callback_and_no_listener() -> None:
    """Both answer 200 with the record and store nothing, so nothing is sent later (C11)."""
    world = World()
    world.create("awaited", external="true")
    world.create("late", external="true", timeout_at=START_MS + 1)
    world.create("awaiter", target=PUSHED)
    world.settle("awaited")
    world.pass_time(1)
    for id in ("awaited", "late"):
        for request in (
            r.PromiseRegisterCallback(id, "awaiter"),
            r.PromiseRegisterListener(id, LISTENER),
        ):
            assert world.ok(request, PromiseResult).promise.state is not PromiseState.PENDING
    assert not world.dump.callbacks | world.dump.listeners
    assert world.task("awaiter").resumes == 0


def test_an_awaiter_that_is_settled_gets_no_callback() -> None:
    """200 and nothing stored: there is nobody left to wake (A3)."""
    world = World()
    world.create("awaited", external="true")
    world.create("settled", target=PUSHED)
    world.create("late", target=PUSHED, timeout_at=START_MS + 1)
    world.settle("settled")
    world.pass_time(1)
    for awaiter in ("settled", "late"):
        assert world.status(r.PromiseRegisterCallback("awaited", awaiter)) == 200
    assert not world.dump.callbacks


def test_each_listener_is_told_once() -> None:
    """A settlement leaves one unblock for each address, due now, and drops the listeners."""
    world = World()
    world.create("p", external="true")
    for address in (LISTENER, "poll://any@g", LISTENER):
        assert world.status(r.PromiseRegisterListener("p", address)) == 200
    world.pass_time(7)
    world.settle("p")
    assert not world.dump.listeners
    assert [(m.key.kind, m.address, m.due_at) for m in world.outbox] == [
        (MessageKind.UNBLOCK, LISTENER, world.now),
        (MessageKind.UNBLOCK, "poll://any@g", world.now),
    ]


def test_a_read_stores_the_deadline_that_it_shows() -> None:
    """Whoever looks past the deadline settles it, wakes who waits and tells the listeners, so that
    nobody later sees it pending (A3)."""
    world = World()
    world.create("p", external="true", timeout_at=START_MS + 10)
    world.suspended("t", "p")
    world.ask(r.PromiseRegisterListener("p", LISTENER))
    world.pass_time(10)
    assert world.promise("p").promise.state is PromiseState.REJECTED_TIMEDOUT
    assert not world.stored("p").pending
    assert world.state_of("t") == "pending"
    assert len(world.outbox) == 1


def test_an_awaiter_past_its_own_deadline_is_not_woken() -> None:
    """It is timed out by the step that drops its callback, and what waited for it is woken (C6)."""
    world = World()
    world.create("p", external="true")
    world.suspended("middle", "p", timeout_at=START_MS + 10)
    world.suspended("outer", "middle")
    world.pass_time(10)
    world.settle("p")
    assert world.stored("middle").state is PromiseState.REJECTED_TIMEDOUT
    assert world.state_of("middle") == "fulfilled"
    assert world.task("middle").resumes == 0
    assert world.state_of("outer") == "pending"
    assert world.dump.resumes == {Edge("outer", "middle")}


def test_payloads_with_and_without_empty_parts_are_the_same() -> None:
    """Absent and empty headers are one value (A7.7)."""
    world = World()
    param = world.ok(create("p", param=Value(headers={})), PromiseResult).promise.param
    assert param == Value()
    world.started("t")
    world.ask(suspend("t", 1, "none"))
