"""Slots: never more holders than the limit, lapses, the line, and different limits."""

from __future__ import annotations

import pytest

from kept.machine.slots import slots_key
from kept.protocol.guard_requests import SlotAcquire, SlotGet, SlotHeartbeat, SlotRelease
from kept.protocol.limits import MAX_LINE, TURN_MS
from kept.protocol.responses import (
    CONFLICT,
    OK,
    SHED,
    LeaseExtension,
    Nothing,
    Response,
    SlotResult,
)
from tests.unit.machine.world import World

TTL = 1_000
WAIT = 30_000


@pytest.fixture
def world() -> World:
    return World()


def acquire(holder: str, limit: int = 2, wait: int = 0, ttl: int = TTL) -> SlotAcquire:
    return SlotAcquire("api", limit, holder, ttl, wait)


def holders(world: World) -> list[str]:
    return [each.holder for each in world.ok(SlotGet("api"), SlotResult).holders]


def refused(response: Response) -> dict[str, str | int]:
    assert response.status == CONFLICT, response
    assert response.detail is not None
    return response.detail


def test_as_many_as_the_limit_hold_one_each(world: World) -> None:
    """The next is refused with the time when the first of them ends."""
    assert world.status(acquire("one")) == OK
    first_ends = world.now + TTL
    world.pass_time(10)
    assert world.status(acquire("two")) == OK
    assert refused(world.ask(acquire("three"))) == {"expiresAt": first_ends}
    assert holders(world) == ["one", "two"]


def test_a_holder_that_asks_again_has_its_slot_still(world: World) -> None:
    """It takes no second one, and its time grows."""
    world.ask(acquire("one"))
    world.pass_time(10)
    assert world.ok(acquire("one"), LeaseExtension).expires_at == world.now + TTL
    assert holders(world) == ["one"]


def test_release_may_be_repeated(world: World) -> None:
    """Releasing a slot that is not held is no error; the last one leaves no record."""
    world.ask(acquire("one"))
    for _ in range(2):
        world.ok(SlotRelease("api", "one"), Nothing)
    assert world.entry(slots_key("api")) is None
    world.ok(SlotRelease("never heard of", "one"), Nothing)


def test_heartbeats_hold_and_lapses_free(world: World) -> None:
    """A slot without heartbeats is free at its expiry, and its holder is told so."""
    world.ask(acquire("one"))
    world.ask(acquire("two"))
    world.pass_time(TTL - 1)
    assert world.ok(SlotHeartbeat("api", "one"), LeaseExtension).expires_at == world.now + TTL
    world.pass_time(1)
    assert holders(world) == ["one"]
    assert world.status(SlotHeartbeat("api", "two")) == CONFLICT
    world.settle_down()
    assert world.status(acquire("three")) == OK
    world.pass_time(TTL)
    world.settle_down()
    assert world.entry(slots_key("api")) is None


def test_waiters_are_served_in_order(world: World) -> None:
    """Of two that wait the first may take what is free, and one that only passes by may not."""
    for holder in ("one", "two"):
        world.ask(acquire(holder))
    for place, holder in enumerate(("three", "four"), 1):
        assert refused(world.ask(acquire(holder, wait=WAIT)))["place"] == place
    world.ask(SlotRelease("api", "one"))
    assert world.status(acquire("passer-by")) == CONFLICT
    assert world.status(acquire("four", wait=WAIT)) == CONFLICT
    assert world.status(acquire("three", wait=WAIT)) == OK
    world.ask(SlotRelease("api", "two"))
    assert world.status(acquire("four", wait=WAIT)) == OK
    assert holders(world) == ["three", "four"]


def test_as_many_turns_as_there_are_free_slots(world: World) -> None:
    """Two slots that come free at once are for the first two in line, in any order."""
    for holder in ("one", "two"):
        world.ask(acquire(holder))
    for holder in ("three", "four", "five"):
        world.ask(acquire(holder, wait=WAIT))
    for holder in ("one", "two"):
        world.ask(SlotRelease("api", holder))
    assert world.status(acquire("five", wait=WAIT)) == CONFLICT
    assert world.status(acquire("four", wait=WAIT)) == OK
    assert world.status(acquire("three", wait=WAIT)) == OK


def test_a_dead_waiter_costs_one_turn(world: World) -> None:
    """The slot that was kept for it goes to the next."""
    world.ask(acquire("one", limit=1))
    for holder in ("dead", "alive"):
        world.ask(acquire(holder, limit=1, wait=WAIT))
    world.ask(SlotRelease("api", "one"))
    world.pass_time(TURN_MS)
    world.settle_down()
    assert world.status(acquire("alive", limit=1, wait=WAIT)) == OK


def test_each_request_is_judged_by_the_limit_it_names(world: World) -> None:
    """While a deployment changes the limit, old and new callers ask for different ones."""
    for holder in ("one", "two", "three"):
        assert world.status(acquire(holder, limit=3)) == OK
    assert world.status(acquire("four", limit=2)) == CONFLICT
    assert world.status(acquire("four", limit=4)) == OK
    world.ask(SlotRelease("api", "one"))
    world.ask(SlotRelease("api", "two"))
    assert world.status(acquire("five", limit=2)) == CONFLICT
    world.ask(SlotRelease("api", "three"))
    assert world.status(acquire("five", limit=2)) == OK


def test_the_line_is_bounded(world: World) -> None:
    """One more than it holds is shed."""
    world.ask(acquire("one", limit=1))
    for number in range(MAX_LINE):
        world.ask(acquire(f"waiter-{number}", limit=1, wait=WAIT))
    assert world.status(acquire("one too many", limit=1, wait=WAIT)) == SHED
