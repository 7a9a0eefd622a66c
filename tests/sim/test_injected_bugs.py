"""Bugs put into the real code are found within a few seeds, each by an oracle that says what broke."""

from __future__ import annotations

from typing import Any

import pytest

from kept.engine.committer import Committer
from kept.engine.outbox import Outbox
from kept.engine.waiters import Waiters
from kept.machine import background as steps
from kept.machine import effects, queues, tasks
from kept.machine.step import Step
from kept.protocol import tags as tag
from kept.protocol.records import MessageKind, OutboxEntry, Promise, Task, TaskState
from kept.protocol.responses import CONFLICT, Response
from kept.protocol.storage import Notice
from kept.sdk.releases import Releases, Send
from kept.sdk.steps import Steps
from kept.sim import world
from kept.sim.mix import draw_mix
from kept.sim.run import run_seed
from kept.stores.memory import reading, store
from kept.stores.memory.store import MemoryTransaction

TICKS = 60
# Long enough for what is not broken, and short, because a broken world is played to its end.
SETTLE_SECONDS = 300


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "SETTLE_SECONDS", SETTLE_SECONDS)


MAX_SEEDS = 12


def broken_by(*faults: str, ticks: int = TICKS, prompt: bool = False) -> str:
    """What broke, in the first seed with one of the faults in which anything did; "" if none.
    `prompt`: only worlds without faults, in which nothing may come late."""
    seeds = (
        seed
        for seed in range(1, 500)
        if (mix := draw_mix(seed)).prompt or not prompt
        if not faults or set(faults) & set(mix.faults)
    )
    for _, seed in zip(range(MAX_SEEDS), seeds, strict=False):
        broken = run_seed(seed, ticks).broken
        if broken is not None:
            return broken
    return ""


def test_a_commit_that_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that now and then says "committed" and forgets is caught."""
    commit = MemoryTransaction.commit
    count = 0

    async def forgetful(self: MemoryTransaction, batch_id: str, now: int, notice: Notice) -> None:
        nonlocal count
        count += 1
        if count % 20 == 0:
            self._changes = []
        await commit(self, batch_id, now, notice)

    monkeypatch.setattr(MemoryTransaction, "commit", forgetful)
    broken = broken_by()
    named = ("ShadowDiffers", "acknowledged", "PropertyViolated", "scripts", "settled")
    assert any(name in broken for name in named), broken


def test_a_stale_holder_that_is_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that is not compared with the task's version is caught, by its answers alone."""

    def unfenced(step: Step, id: str, version: int) -> tuple[Task, Promise] | Response:
        found = effects.read_task(step, id)
        if found is None:
            return tasks.no_task(id)
        task, promise = found
        if task.state is not TaskState.ACQUIRED or not promise.pending:
            return Response(CONFLICT, "not held")
        return task, promise

    monkeypatch.setattr(tasks, "held", unfenced)
    broken = broken_by("worker_crash", "stall")
    assert "stale holders are refused" in broken or "PropertyViolated" in broken


def test_an_awaiter_that_is_not_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A callback that is dropped without waking its awaiter leaves work pending for ever."""

    def sleepy(step: Step, id: str, awaiter: str) -> None:
        step.records.remove_callback(id, awaiter)

    monkeypatch.setattr(steps, "drain_callback", sleepy)
    assert broken_by() != ""


def test_a_failed_commit_that_is_answered_as_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that does not refuse the requests of a failed commit is caught by what it answers."""
    monkeypatch.setattr(Committer, "_refuse", staticmethod(lambda items, status, text: None))
    assert broken_by("commit_fails", "store_outage") != ""


def test_a_step_whose_record_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that loses track of a step's end leaves its workflow waiting."""

    def lost(self: Steps, id: str, task: object) -> None:
        self._running.pop(id, None)

    monkeypatch.setattr(Steps, "_task_done", lost)
    assert "liveness" in broken_by()


def test_the_order_of_results_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the order of release, a replay takes another way and is halted."""
    carried = Releases.carried

    async def light(self: Releases, send: Send) -> Response:
        return await carried(self, lambda released: send([]))

    monkeypatch.setattr(Releases, "carried", light)
    assert "replays are deterministic" in broken_by("worker_crash", "stall", ticks=100)


def test_a_listener_that_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that leaves the outbox without being sent is missed by its receiver."""
    hand_over = Outbox._hand_over

    async def forgetful(self: Outbox, entry: OutboxEntry, promise: Promise) -> None:
        if entry.key.kind is not MessageKind.UNBLOCK:
            await hand_over(self, entry, promise)

    monkeypatch.setattr(Outbox, "_hand_over", forgetful)
    assert "was not told of" in broken_by(prompt=True)


def test_priorities_that_are_turned_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue whose lowest priority comes first is caught by its order."""

    def turned(promise: Promise, retry_at: int) -> int:
        return retry_at + int(promise.tags.get(tag.PRIORITY, 0)) * 60_000

    monkeypatch.setattr(effects, "rank_of", turned)
    broken = broken_by(prompt=True)
    assert "queues are in order" in broken or "scripts go as written" in broken


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
    broken = broken_by(prompt=True)
    assert "in time" in broken or "scripts go as written" in broken


def test_a_page_that_skips_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search whose cursor goes one too far is caught by whoever follows the pages."""
    beyond = reading.beyond

    def skipping(records: Any, after: str | None, limit: int, prefix: str = "") -> list[Any]:
        found = beyond(records, after, limit, prefix)
        return found[1:] if after is not None else found

    monkeypatch.setattr(store, "beyond", skipping, raising=False)
    monkeypatch.setattr(reading, "beyond", skipping)
    broken = broken_by(prompt=True)
    assert "pages" in broken or "scripts go as written" in broken
