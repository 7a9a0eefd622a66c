"""Bugs that only show in what clients rely on, order, counts, deliveries and latency, are found."""

from __future__ import annotations

from typing import Any

import pytest

from kept.engine.outbox import Outbox
from kept.engine.waiters import Waiters
from kept.machine import effects, queues
from kept.machine.step import Step
from kept.protocol import tags as tag
from kept.protocol.records import MessageKind, OutboxEntry, Promise
from kept.sim import world
from kept.stores.memory import reading
from tests.sim.hunting import broken_by

# Long enough for what is not broken, and short, because a broken world is played to its end.
SETTLE_SECONDS = 300


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "SETTLE_SECONDS", SETTLE_SECONDS)


def test_a_listener_that_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that leaves the outbox without being sent is missed by its receiver."""
    hand_over = Outbox._hand_over

    async def forgetful(self: Outbox, tenant: str, entry: OutboxEntry, promise: Promise) -> None:
        if entry.key.kind is not MessageKind.UNBLOCK:
            await hand_over(self, tenant, entry, promise)

    monkeypatch.setattr(Outbox, "_hand_over", forgetful)
    broken = broken_by(prompt=True)
    assert "messages leave when delivered" in broken or "was not told of" in broken


def test_priorities_that_are_turned_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue whose lowest priority comes first is caught by its order."""

    def turned(step: Step, promise: Promise, queue: str | None, retry_at: int) -> int:
        return retry_at + int(promise.tags.get(tag.PRIORITY, 0)) * 60_000

    monkeypatch.setattr(effects, "rank_of", turned)
    assert "priorities count" in broken_by(prompt=True)


def test_one_attempt_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is tried once more than it may be is caught, by counting."""

    def generous(promise: Promise, failures: int) -> bool:
        attempts = promise.tags.get(tag.ATTEMPTS)
        return attempts is not None and failures > int(attempts)

    monkeypatch.setattr(queues, "is_exhausted", generous)
    assert "attempts are limited" in broken_by(prompt=True)


def test_a_wake_up_that_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that waits for the next scan, because nobody woke the claim, comes too late."""
    monkeypatch.setattr(Waiters, "wake_claims", lambda self, key: 0)
    broken = broken_by(ticks=25, prompt=True, first=18)
    assert "in time" in broken or "scripts go as written" in broken


def test_a_page_that_skips_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search whose cursor goes one too far is caught by whoever follows the pages."""
    beyond = reading.beyond

    def skipping(records: Any, after: str | None, limit: int, prefix: str = "") -> list[Any]:
        found = beyond(records, after, limit, prefix)
        return found[1:] if after is not None else found

    monkeypatch.setattr(reading, "beyond", skipping)
    broken = broken_by(prompt=True, store="memory")
    assert "pages" in broken or "ScanDiffers" in broken or "scripts go as written" in broken
