"""Revision guards: the highest revision stays, until it is forgotten."""

from __future__ import annotations

from itertools import permutations

import pytest

from kept.machine.guards import guard_key
from kept.protocol.guard_requests import GuardAdvance, GuardDelete, GuardGet
from kept.protocol.limits import DEFAULT_GUARD_RETENTION_MS
from kept.protocol.responses import (
    CONFLICT,
    NOT_FOUND,
    OK,
    GuardAdvanceResult,
    GuardRecord,
    GuardResult,
    Nothing,
)
from tests.unit.machine.world import World


@pytest.fixture
def world() -> World:
    return World()


def advance(revision: int, retention: int | None = None) -> GuardAdvance:
    return GuardAdvance("customer-7", revision, retention)


def current(world: World) -> int:
    return world.ok(GuardGet("customer-7"), GuardResult).guard.current


@pytest.mark.parametrize("order", list(permutations((1, 2, 3))))
def test_any_order_ends_at_the_highest(world: World, order: tuple[int, ...]) -> None:
    """Each revision is accepted where nothing higher came before it."""
    accepted = [n for n in order if world.status(advance(n)) == OK]
    assert accepted == [n for i, n in enumerate(order) if n == max(order[: i + 1])]
    assert current(world) == 3


def test_a_late_one_is_told_where_the_entity_is(world: World) -> None:
    """The refusal names the current revision, for programs too, and changes nothing."""
    world.ask(advance(9))
    late = world.ask(advance(8))
    assert (late.status, late.detail) == (CONFLICT, {"current": 9})
    assert current(world) == 9


def test_a_repeated_event_is_no_error(world: World) -> None:
    """It says that it is repeated; the first said that it is not."""
    assert world.ok(advance(1), GuardAdvanceResult) == GuardAdvanceResult(1)
    assert world.ok(advance(1), GuardAdvanceResult) == GuardAdvanceResult(1, repeated=True)


def test_a_repeated_request_is_no_repeated_event(world: World) -> None:
    """Asked again because the answer was lost, the first advance is the first still."""
    first = world.ok(advance(1), GuardAdvanceResult, request_id="r1")
    assert world.ok(advance(1), GuardAdvanceResult, request_id="r1") == first
    assert world.ok(advance(1), GuardAdvanceResult, request_id="r2").repeated
    assert world.ok(advance(1), GuardAdvanceResult).repeated


def test_revision_zero_is_a_revision(world: World) -> None:
    """An entity that was never seen is below it."""
    assert not world.ok(advance(0), GuardAdvanceResult).repeated
    assert world.ok(advance(0), GuardAdvanceResult).repeated


@pytest.mark.parametrize(("retention", "length"), [(None, DEFAULT_GUARD_RETENTION_MS), (5, 5)])
def test_it_is_forgotten_after_its_retention(
    world: World, retention: int | None, length: int
) -> None:
    """Counted from the last advance; it is unknown at that instant, whether cleared away or not."""
    world.ask(advance(4, retention))
    expected = GuardRecord("customer-7", 4, world.now + length)
    world.pass_time(length - 1)
    world.settle_down()
    assert world.ok(GuardGet("customer-7"), GuardResult).guard == expected
    world.pass_time(1)
    assert world.status(GuardGet("customer-7")) == NOT_FOUND
    assert world.status(GuardDelete("customer-7")) == NOT_FOUND
    world.settle_down()
    assert world.entry(guard_key("customer-7")) is None
    assert world.status(advance(1)) == OK


def test_an_operator_forgets_it(world: World) -> None:
    """After a revision that was sent by mistake, lower ones are accepted again."""
    world.ask(advance(1_000_000))
    world.ok(GuardDelete("customer-7"), Nothing)
    assert world.status(advance(2)) == OK
    assert world.status(GuardDelete("customer-8")) == NOT_FOUND
