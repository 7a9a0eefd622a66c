"""Locks in every state: free, held, lapsed, with others in line, forgotten."""

from __future__ import annotations

import pytest

from kept.machine import background as b
from kept.machine.locks import lock_key
from kept.protocol.guard_requests import LockAcquire, LockGet, LockHeartbeat, LockRelease
from kept.protocol.limits import FREE_RETENTION_MS, MAX_LINE, PRESENCE_MS, TURN_MS
from kept.protocol.responses import (
    CONFLICT,
    NOT_FOUND,
    OK,
    SHED,
    LeaseExtension,
    LockGrant,
    LockRecord,
    LockResult,
    Nothing,
    Response,
)
from tests.unit.machine.world import World

TTL = 1_000
WAIT = 30_000


@pytest.fixture
def world() -> World:
    return World()


def acquire(holder: str, wait: int = 0, ttl: int = TTL) -> LockAcquire:
    return LockAcquire("door", holder, ttl, wait)


def take(world: World, holder: str, wait: int = 0, ttl: int = TTL) -> int:
    """The fence of a grant that must succeed."""
    return world.ok(acquire(holder, wait, ttl), LockGrant).fence


def release(world: World, holder: str, fence: int) -> None:
    world.ok(LockRelease("door", holder, fence), Nothing)


def look(world: World) -> LockRecord:
    return world.ok(LockGet("door"), LockResult).lock


def refused(response: Response) -> dict[str, str | int]:
    assert response.status == CONFLICT, response
    assert response.detail is not None
    return response.detail


def test_a_free_lock_is_granted_and_shown(world: World) -> None:
    """Whoever asks first has it, for its ttl, and everybody can see that."""
    grant = world.ok(acquire("one"), LockGrant)
    assert grant.expires_at == world.now + TTL
    assert look(world) == LockRecord("door", grant.fence, "one", world.now + TTL)


def test_a_held_lock_is_refused_with_the_holders_expiry(world: World) -> None:
    """A program reads from the refusal who holds it, and until when."""
    take(world, "one")
    detail = refused(world.ask(acquire("two")))
    assert detail == {"holder": "one", "expiresAt": world.now + TTL}
    assert look(world).waiting == 0


def test_the_holder_that_asks_again_has_the_same_grant(world: World) -> None:
    """The same fence, and never less time than it had."""
    first = world.ok(acquire("one", ttl=5_000), LockGrant)
    world.pass_time(100)
    assert world.ok(acquire("one", ttl=10), LockGrant) == first
    longer = world.ok(acquire("one", ttl=9_000), LockGrant)
    assert longer == LockGrant(first.fence, world.now + 9_000)


def test_a_heartbeat_extends_by_the_ttl(world: World) -> None:
    """It is held for its ttl from the heartbeat on, which needs holder and fence."""
    fence = take(world, "one")
    world.pass_time(TTL - 1)
    beat = LockHeartbeat("door", "one", fence)
    assert world.ok(beat, LeaseExtension).expires_at == world.now + TTL
    for wrong in (LockHeartbeat("door", "one", fence + 1), LockHeartbeat("door", "two", fence)):
        assert refused(world.ask(wrong))["holder"] == "one"
    assert world.status(LockHeartbeat("window", "one", fence)) == CONFLICT


def test_a_lapsed_lock_is_free_whoever_looks(world: World) -> None:
    """From its expiry on it is shown as free, its holder's requests fail, and others may have it."""
    fence = take(world, "one")
    world.pass_time(TTL)
    assert look(world) == LockRecord("door", fence)
    assert world.status(LockHeartbeat("door", "one", fence)) == CONFLICT
    assert world.status(LockRelease("door", "one", fence)) == CONFLICT
    assert take(world, "two") > fence


def test_a_lapsed_lock_is_freed_by_the_background_too(world: World) -> None:
    """The entry says so without being asked, at the instant of the expiry."""
    fence = take(world, "one")
    world.pass_time(TTL)
    world.settle_down()
    entry = world.entry(lock_key("door"))
    assert entry is not None
    assert entry.due_at == world.now + FREE_RETENTION_MS
    assert take(world, "two") > fence


def test_release_frees_and_may_be_repeated(world: World) -> None:
    """A release whose answer was lost is answered alike, also when the next one has the lock."""
    first = take(world, "one")
    giving_back = LockRelease("door", "one", first)
    world.ok(giving_back, Nothing, request_id="r1")
    assert look(world) == LockRecord("door", first)
    second = take(world, "two")
    world.ok(giving_back, Nothing, request_id="r1")
    assert look(world).holder == "two"
    assert world.status(giving_back, request_id="r2") == CONFLICT
    assert world.status(giving_back) == CONFLICT
    assert world.status(LockRelease("door", "two", second + 1)) == CONFLICT
    assert world.status(LockRelease("window", "two", second)) == CONFLICT


def test_fences_rise_within_one_millisecond(world: World) -> None:
    """Grants that follow each other faster than the clock have different fences."""
    fences = []
    for number in range(5):
        fences.append(take(world, f"holder-{number}"))
        release(world, f"holder-{number}", fences[-1])
    assert fences == sorted(set(fences))


def test_fences_rise_after_the_lock_was_forgotten(world: World) -> None:
    """A free lock leaves no record for ever, and the next grant is above all that were."""
    fences = [take(world, "one")]
    release(world, "one", fences[0])
    fences.append(take(world, "two"))
    release(world, "two", fences[1])
    world.pass_time(FREE_RETENTION_MS - 1)
    world.settle_down()
    assert world.entry(lock_key("door")) is not None
    world.pass_time(1)
    world.settle_down()
    assert world.entry(lock_key("door")) is None
    assert world.status(LockGet("door")) == NOT_FOUND
    assert take(world, "three") > max(fences)


def test_waiters_are_served_in_order(world: World) -> None:
    """What is free is kept for the first in line, whoever else asks, and then for the next."""
    fence = take(world, "one")
    assert refused(world.ask(acquire("two", WAIT)))["place"] == 1
    assert refused(world.ask(acquire("three", WAIT)))["place"] == 2
    assert refused(world.ask(acquire("two", WAIT)))["place"] == 1
    assert look(world).waiting == 2
    release(world, "one", fence)
    assert refused(world.ask(acquire("three", WAIT))) == {"place": 2}
    assert refused(world.ask(acquire("passer-by"))) == {}
    fence = take(world, "two", WAIT)
    assert refused(world.ask(acquire("three", WAIT)))["place"] == 1
    release(world, "two", fence)
    take(world, "three", WAIT)
    assert look(world).waiting == 0


def test_a_waiter_that_does_not_come_is_passed_over(world: World) -> None:
    """A dead one costs the others the length of a turn, no more."""
    fence = take(world, "one")
    world.ask(acquire("dead", WAIT))
    world.ask(acquire("alive", WAIT))
    release(world, "one", fence)
    world.pass_time(TURN_MS - 1)
    world.settle_down()
    assert world.status(acquire("alive", WAIT)) == CONFLICT
    world.pass_time(1)
    world.settle_down()
    entry = world.entry(lock_key("door"))
    assert entry is not None
    assert entry.due_at == world.now + TURN_MS
    take(world, "alive", WAIT)


def test_a_waiter_that_is_not_seen_loses_its_place(world: World) -> None:
    """Whoever says now and then that it waits stays before those who came later."""
    world.ok(acquire("one", ttl=60_000), LockGrant)
    world.ask(acquire("dead", WAIT))
    world.ask(acquire("alive", WAIT))
    world.pass_time(PRESENCE_MS - 1)
    assert refused(world.ask(acquire("alive", WAIT)))["place"] == 2
    world.pass_time(1)
    world.settle_down()
    assert look(world).waiting == 1
    assert refused(world.ask(acquire("alive", WAIT)))["place"] == 1


def test_a_waiter_that_waits_no_more_leaves(world: World) -> None:
    """By its last look, which waits for nothing, or because its caller is gone."""
    take(world, "one")
    for holder in ("two", "three"):
        world.ask(acquire(holder, WAIT))
    assert "place" not in refused(world.ask(acquire("two")))
    assert look(world).waiting == 1
    world.fire(b.LeaveLine(lock_key("door"), "three"), b.LeaveLine(lock_key("none"), "three"))
    assert look(world).waiting == 0


def test_a_lapse_gives_the_first_in_line_its_turn(world: World) -> None:
    """The commit that ends the lease also says whose turn it is."""
    take(world, "one")
    world.ask(acquire("two", WAIT))
    world.pass_time(TTL)
    world.settle_down()
    assert world.status(acquire("one")) == CONFLICT
    take(world, "two", WAIT)


def test_the_line_is_bounded(world: World) -> None:
    """One more than it holds is shed, and those in it keep their places."""
    world.ok(acquire("one", ttl=60_000), LockGrant)
    for number in range(MAX_LINE):
        assert world.status(acquire(f"waiter-{number}", WAIT)) == CONFLICT
    assert world.status(acquire("one too many", WAIT)) == SHED
    assert refused(world.ask(acquire("waiter-7", WAIT)))["place"] == 8


def test_a_late_copy_of_an_acquire_takes_nothing(world: World) -> None:
    """A request id that had its grant, and gave it back, does not get another."""
    fence = world.ok(acquire("one"), LockGrant, request_id="r1").fence
    assert world.ok(acquire("one"), LockGrant, request_id="r1").fence == fence
    release(world, "one", fence)
    assert world.status(acquire("one"), request_id="r1") == CONFLICT
    assert world.status(acquire("one"), request_id="r2") == OK


def test_one_batch_hands_a_lock_on(world: World) -> None:
    """Requests of one commit see what those before them did."""
    grant, refusal = world.batch([acquire("one"), acquire("two", WAIT)])
    assert isinstance(grant.data, LockGrant)
    assert refusal.status == CONFLICT
    fence = grant.data.fence
    answers = world.batch([LockRelease("door", "one", fence), acquire("one"), acquire("two", WAIT)])
    assert [answer.status for answer in answers] == [OK, CONFLICT, OK]
