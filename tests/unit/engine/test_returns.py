"""A task that workers only hand back does not keep everybody busy (protocol A4, A7)."""

from __future__ import annotations

import functools

import pytest

from kept.engine.returns import (
    FREE_RETURNS,
    MAX_PAUSE_SECONDS,
    MAX_REMEMBERED_TASKS,
    WATCHED,
    Returns,
)
from kept.protocol import requests as r
from kept.protocol.limits import DEFAULT_RETRY_TIMEOUT_MS
from kept.protocol.records import PromiseState
from kept.protocol.responses import CONFLICT, OK, Response
from tests.unit.engine.rig import ScriptedTransport, WatchedStore, eventually, running
from tests.unit.machine.world import PUSHED, create

DONE = Response(OK, "")
PROGRESS = [
    r.TaskFence("t", 1, r.SettleAction(r.PromiseSettle("x", PromiseState.RESOLVED))),
    r.TaskSuspend("t", 1, []),
    r.TaskFulfill("t", 1, r.SettleAction(r.PromiseSettle("t", PromiseState.RESOLVED))),
    r.TaskContinue("t"),
]


def _released(times: int) -> Returns:
    returns = Returns()
    for _ in range(times):
        returns.note("default", r.TaskRelease("t", 1), DONE)
    return returns


def test_pauses_grow_up_to_less_than_the_retry_timeout() -> None:
    """A few returns are free; then each pause is longer, and none lets a repetition overtake."""
    pauses = [_released(times).pause_seconds("default", "t") for times in range(60)]
    assert pauses[: FREE_RETURNS + 1] == [0.0] * (FREE_RETURNS + 1)
    assert pauses[FREE_RETURNS + 1] > 0
    assert pauses == sorted(pauses)
    assert pauses[-1] == MAX_PAUSE_SECONDS < DEFAULT_RETRY_TIMEOUT_MS / 1_000
    assert _released(60).pause_seconds("default", "other") == 0
    assert _released(60).pause_seconds("elsewhere", "t") == 0


@pytest.mark.parametrize("progress", PROGRESS, ids=lambda request: request.kind)
def test_whatever_was_done_for_the_task_ends_its_pauses(progress: r.Request) -> None:
    """Only returns without anything between them count; a refused request does nothing."""
    assert type(progress) in WATCHED
    returns = _released(60)
    returns.note("default", progress, Response(CONFLICT, "stale"))
    assert returns.pause_seconds("default", "t") > 0
    returns.note("default", progress, DONE)
    assert returns.pause_seconds("default", "t") == 0


def test_memory_is_bounded() -> None:
    """The longest unheard of is forgotten first."""
    returns = _released(60)
    for number in range(MAX_REMEMBERED_TASKS):
        returns.note("default", r.TaskRelease(f"n{number}", 1), DONE)
    assert returns.pause_seconds("default", "t") == 0


def _arrived(transport: ScriptedTransport, count: int) -> bool:
    return len(transport.delivered) == count


async def test_a_worker_that_hands_back_at_once_is_asked_ever_less_often() -> None:
    """Without the pauses this would be hundreds of messages a second."""
    store, transport = WatchedStore(), ScriptedTransport("http")
    async with running(store, transports=[transport]) as engine:
        await engine.submit(create("t", target=PUSHED))
        for version in range(FREE_RETURNS + 3):
            await eventually(functools.partial(_arrived, transport, version + 1))
            await engine.submit(r.TaskAcquire("t", version, "w", 60_000))
            await engine.submit(r.TaskRelease("t", version + 1))
        began, commits = engine.runtime.monotonic(), store.commits
        await eventually(lambda: len(transport.delivered) > FREE_RETURNS + 3)
        assert engine.runtime.monotonic() - began > 0.1
        assert store.commits - commits < 10
