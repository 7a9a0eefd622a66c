"""Bugs put into the ledger of `app.once` are found by the oracle of those who call."""

from __future__ import annotations

from typing import Any

import pytest

from kept.protocol.records import PromiseRecord, PromiseState
from kept.sdk import ledger, payload
from kept.sim import inspector, once
from tests.sim.hunting import broken_by

TICKS = 30


@pytest.fixture(autouse=True)
def _busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "PAUSE_SECONDS", 0.3)


def test_an_entry_that_nobody_else_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each caller has a record of its own, its runs have idempotency keys of their own."""
    entry = ledger.Ledger._entry

    async def alone(self: Any) -> PromiseRecord:
        key = f"{self._asked.key}-{self._runtime.entropy(4).hex()}"
        self._asked = self._asked._replace(key=key)
        return await entry(self)

    monkeypatch.setattr(ledger.Ledger, "_entry", alone)
    assert once.SAME_KEY in broken_by(ticks=TICKS)


def test_a_lease_that_is_not_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing fails, it ends, and if nobody looks at that, two run it at a time."""

    async def forgetful(self: Any) -> None:
        await self._runtime.sleep(1_000_000)

    monkeypatch.setattr(ledger._Run, "_renew", forgetful)
    assert "heartbeats keep leases" in broken_by(ticks=TICKS, prompt=True)
    monkeypatch.setattr(inspector, "CALLING", "nobody")
    assert once.ONE_RUNNER in broken_by(ticks=TICKS, prompt=True)


def test_a_result_that_is_not_the_recorded_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner that lost its lease and answers what it made itself is caught."""
    recorded = ledger._Run._recorded

    async def stubborn(self: Any, result: Any) -> PromiseRecord:
        record = await recorded(self, result)
        value = payload.encode(result)
        own = PromiseRecord(self._id, PromiseState.RESOLVED, value, value, {}, 0, 0)
        return record or own

    monkeypatch.setattr(ledger._Run, "_recorded", stubborn)
    assert once.RECORDED_ONCE in broken_by(ticks=TICKS, first=10)
