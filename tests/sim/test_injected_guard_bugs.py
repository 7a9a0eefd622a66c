"""Bugs put into locks, slots, buckets and guards are found by the oracle of those who contend."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from kept.machine import buckets, guards, line, locks
from kept.machine.step import Step
from kept.protocol import guard_requests as g
from kept.protocol.entries import Bucket, Entry, Guard, Lock
from kept.protocol.responses import OK, GuardAdvanceResult, Nothing, Response
from kept.sim import guards as contention
from kept.sim import world
from tests.sim.hunting import broken_by

TICKS = 30
# Waiting for what never comes need not take longer to be noticed.
SETTLE_SECONDS = 120


@pytest.fixture(autouse=True)
def _busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "SETTLE_SECONDS", SETTLE_SECONDS)
    monkeypatch.setattr(contention, "PAUSE_SECONDS", 0.2)


def test_a_fence_that_is_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that forgets its fence with its holder is caught by the grants alone."""
    free = locks._free

    def forgetful(lock: Lock) -> Lock:
        return replace(free(lock), fence=0)

    monkeypatch.setattr(locks, "_free", forgetful)
    monkeypatch.setattr(locks, "max", lambda a, b: a, raising=False)
    assert "fence" in broken_by(ticks=TICKS)


def test_a_stale_holder_that_is_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat that does not look at the fence is caught."""

    def careless(step: Step, request: g.LockHeartbeat | g.LockRelease) -> Response:
        return Response(OK, Nothing())

    monkeypatch.setitem(locks_handlers(), g.LockRelease, careless)
    assert "stale lock holders are refused" in broken_by(ticks=TICKS)


def locks_handlers() -> dict[type, object]:
    from kept.machine.dispatch import HANDLERS

    return HANDLERS  # type: ignore[return-value]


def test_a_lock_that_stays_with_a_dead_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lapse that frees nothing is told to whoever asks when it is over."""

    def eternal(lock: Lock, now: int) -> Lock:
        return replace(lock, waiters=line.called(lock.waiters, int(lock.holder is not None), now))

    monkeypatch.setattr(locks, "_at", eternal)
    broken = broken_by(ticks=TICKS)
    assert "what has lapsed is free" in broken or "leases last from now" in broken


def test_one_slot_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A semaphore that counts wrongly by one is caught."""
    monkeypatch.setattr(
        line, "may_take", lambda waiters, holder, occupied, limit: occupied <= limit
    )
    broken = broken_by(ticks=TICKS)
    assert "slots keep their limit" in broken or "first come, first served" in broken


def test_a_bucket_that_fills_too_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the rate is more than was promised."""
    filled = buckets._filled

    def generous(bucket: Bucket, now: int) -> Bucket:
        return filled(filled(replace(bucket, at=2 * bucket.at - now), now), now)

    monkeypatch.setattr(buckets, "_filled", generous)
    monkeypatch.setattr(contention, "PAUSE_SECONDS", 0.05)
    assert "buckets keep their rate" in broken_by(ticks=TICKS, first=9)


def test_a_late_event_that_overwrites(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard that takes whatever comes is caught."""

    def lenient(step: Step, request: g.GuardAdvance) -> Response:
        data = Guard(request.revision, step.now + 10**9)
        step.records.put_entry(Entry(guards.guard_key(request.key), data, data.expires_at))
        return Response(OK, GuardAdvanceResult(request.revision))

    monkeypatch.setitem(locks_handlers(), g.GuardAdvance, lenient)
    broken = broken_by(ticks=TICKS)
    assert "late events are refused" in broken or "revisions end at the highest" in broken


def test_a_newcomer_that_passes_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes last is let in before one that waits."""

    def place_of(waiters: line.Line, holder: str) -> int:
        holders = [waiter.holder for waiter in waiters]
        return holders.index(holder) if holder in holders else max(len(holders) - 1, 0)

    monkeypatch.setattr(line, "place_of", place_of)
    assert "first come, first served" in broken_by(ticks=TICKS)


def test_a_heartbeat_that_gives_more_than_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """A millisecond more in the record than in the answer is noticed at the step."""
    heartbeat = locks.lock_heartbeat

    def generous(step: Step, request: g.LockHeartbeat) -> Response:
        response = heartbeat(step, request)
        entry = step.records.entry(locks.lock_key(request.resource))
        if response.ok and entry is not None and isinstance(entry.data, Lock):
            longer = replace(entry.data, expires_at=(entry.data.expires_at or 0) + 1)
            step.records.put_entry(Entry(entry.key, longer, entry.due_at))
        return response

    monkeypatch.setitem(locks_handlers(), g.LockHeartbeat, generous)
    assert "leases last from now" in broken_by(ticks=TICKS)
