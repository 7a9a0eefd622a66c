"""Bugs put into the real code are found within a few seeds, each by an oracle that says what broke."""

from __future__ import annotations

import pytest

from kept.engine.committer import Committer
from kept.machine import background as steps
from kept.machine import effects, tasks
from kept.machine.step import Step
from kept.protocol.records import Promise, Task, TaskState
from kept.protocol.responses import CONFLICT, Response
from kept.protocol.storage import Notice
from kept.sdk.releases import Releases, Send
from kept.sdk.steps import Steps
from kept.sim import world
from kept.sim.mix import draw_mix
from kept.sim.run import run_seed
from kept.stores.memory.store import MemoryTransaction

TICKS = 60
# Long enough for what is not broken, and short, because a broken world is played to its end.
SETTLE_SECONDS = 240


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "SETTLE_SECONDS", SETTLE_SECONDS)


MAX_SEEDS = 12


def broken_by(*faults: str, ticks: int = TICKS) -> str:
    """What broke, in the first seed with one of the faults in which anything did; "" if none."""
    seeds = (s for s in range(1, 500) if not faults or set(faults) & set(draw_mix(s).faults))
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
    assert any(
        name in broken_by() for name in ("ShadowDiffers", "acknowledged", "PropertyViolated")
    )


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
