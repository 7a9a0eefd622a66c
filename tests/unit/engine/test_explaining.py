"""Why work does not run: each cause, told by a real engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kept.engine import explained_queue
from kept.engine.engine import Engine
from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol import worker_requests as w
from kept.protocol.entries import AnnouncedFunction, LaneLimits, RateLimit
from kept.protocol.inquiries import Explanation, TaskExplain
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import PromiseState, Value
from kept.protocol.responses import (
    ClaimResult,
    NackResult,
    Nothing,
    PromiseResult,
    QueueResult,
)
from kept.protocol.spoken import timestamp
from kept.stores.open import open_store
from tests.unit.engine.rig import ShiftedRuntime, WatchedStore, ok, running, waiting_claim


def job(id: str, queue: str = "q", **tags: str) -> r.PromiseCreate:
    named = {name.replace("_", ":", 1): text for name, text in tags.items()}
    return r.PromiseCreate(id, NEVER_MS, tags={tag.TARGET: f"queue://{queue}", **named})


async def explained(engine: Engine, id: str, prefix: str | None = None) -> Explanation:
    response = await engine.submit(TaskExplain(id), prefix=prefix)
    assert response.ok, response
    assert isinstance(response.data, Explanation)
    assert response.data.text == response.data.reasons[0].text
    return response.data


def kinds(explanation: Explanation) -> list[str]:
    return [reason.kind for reason in explanation.reasons]


async def worker(engine: Engine, *functions: str, queue: str = "q") -> None:
    announced = [AnnouncedFunction(name, 1, queue) for name in functions]
    await ok(engine, w.WorkerAnnounce("w", [queue], announced, 60_000), Nothing)


async def take(engine: Engine, limit: int = 1, **fields: Any) -> list[str]:
    result = await ok(engine, waiting_claim("q", wait=0, limit=limit, **fields), ClaimResult)
    return [each.task.id for each in result.tasks]


def suspend(id: str, version: int, *awaited: str) -> r.TaskSuspend:
    actions = [r.CallbackAction(r.PromiseRegisterCallback(each, id)) for each in awaited]
    return r.TaskSuspend(id, version, actions)


async def test_what_is_not_there() -> None:
    """404, and another id that begins like it is not taken for it."""
    async with running(WatchedStore()) as engine:
        await ok(engine, job("job-1"), PromiseResult)
        assert (await engine.submit(TaskExplain("job"))).status == 404
        assert (await engine.submit(TaskExplain(""))).status == 400


async def test_its_time() -> None:
    """A delay, and a backoff with the failure that it comes after; until when is exact."""
    runtime = ShiftedRuntime()
    async with running(WatchedStore(runtime), runtime=runtime) as engine:
        await worker(engine)
        at = runtime.now_ms() + 60_000
        await ok(engine, job("later", resonate_delay=str(at)), PromiseResult)
        found = await explained(engine, "later")
        assert (found.reasons[0].kind, found.reasons[0].until) == ("delayed", at)
        assert found.text == f"It must not start before {timestamp(at)}."
        await ok(engine, job("j", kept_backoff="fixed:90000"), PromiseResult)
        await take(engine)
        nacked = await ok(engine, r.TaskNack("j", 1), NackResult)
        found = await explained(engine, "j")
        assert (found.reasons[0].kind, found.reasons[0].until) == ("backoff", nacked.retry_at)
        assert found.text.startswith("It failed once, and is tried again at ")
        assert found.failures == 1


async def test_handed_back_for_a_while() -> None:
    """A worker that cannot run it hands it back, and nothing failed."""
    async with running(WatchedStore()) as engine:
        await ok(engine, job("j"), PromiseResult)
        await take(engine)
        await ok(engine, r.TaskNack("j", 1, consume=False, delay=5_000), NackResult)
        assert kinds(await explained(engine, "j"))[0] == "handed_back"


async def test_a_pause() -> None:
    """The queue is paused, and how to end that."""
    async with running(WatchedStore()) as engine:
        await worker(engine)
        await ok(engine, job("j"), PromiseResult)
        await ok(engine, r.QueuePause("q"), QueueResult)
        found = await explained(engine, "j")
        assert kinds(found) == ["paused", "line"]
        assert "kept queue resume q" in found.text


@pytest.mark.parametrize("limit", [1, 2])
async def test_a_concurrency(limit: int) -> None:
    """The queue's slots are taken: who holds them, on which worker, until when."""
    async with running(WatchedStore()) as engine:
        await worker(engine)
        await ok(engine, r.QueuePut("q", concurrency=limit), QueueResult)
        for id in ("a", "b", "c"):
            await ok(engine, job(id), PromiseResult)
        held = await take(engine, limit=3)
        assert len(held) == limit
        (reason, line) = (await explained(engine, "c")).reasons
        assert (reason.kind, reason.limit, line.kind) == ("concurrency", limit, "line")
        assert [holder.id for holder in reason.holders] == held
        assert all(holder.pid == "w" and holder.expires_at for holder in reason.holders)
        for id in held:
            assert f"{id} on w" in reason.text


async def test_a_rate() -> None:
    """The period's starts are used up, and when the next period begins."""
    runtime = ShiftedRuntime()
    async with running(WatchedStore(runtime), runtime=runtime) as engine:
        await worker(engine)
        period = 3_600_000
        await ok(engine, r.QueuePut("q", rate=RateLimit(1, period)), QueueResult)
        for id in ("a", "b"):
            await ok(engine, job(id), PromiseResult)
        assert await take(engine, limit=2) == ["a"]
        found = (await explained(engine, "b")).reasons[0]
        now = runtime.now_ms()
        assert (found.kind, found.limit, found.until) == ("rate", 1, now - now % period + period)
        runtime.shift_ms += period
        await worker(engine)
        assert kinds(await explained(engine, "b")) == ["line"]


async def test_limits_of_its_lane() -> None:
    """What holds its own lane, and nothing of what holds another's."""
    async with running(WatchedStore()) as engine:
        await worker(engine)
        lane = LaneLimits(concurrency=1, rate=RateLimit(1, 3_600_000))
        await ok(engine, r.QueuePut("q", lane=lane), QueueResult)
        for id, name in (("a1", "a"), ("a2", "a"), ("b1", "b")):
            await ok(engine, job(id, kept_lane=name), PromiseResult)
        assert await take(engine) == ["a1"]
        found = await explained(engine, "a2")
        assert kinds(found) == ["lane_concurrency", "lane_rate", "line"]
        assert [holder.id for holder in found.reasons[0].holders] == ["a1"]
        assert "lane a of queue q" in found.text
        assert kinds(await explained(engine, "b1")) == ["line"]


async def test_nobody_runs_it() -> None:
    """No worker announces its function, or a worker does for another queue only."""
    async with running(WatchedStore()) as engine:
        await ok(engine, job("j", kept_function="send@1"), PromiseResult)
        assert kinds(await explained(engine, "j"))[0] == "no_worker"
        await worker(engine, "send", queue="other")
        await ok(engine, w.WorkerAnnounce("x", ["q"], [], 60_000), Nothing)
        found = await explained(engine, "j")
        assert found.text == "No worker announces that it runs send@1 from queue q."
        await worker(engine, "send")
        found = await explained(engine, "j")
        assert (kinds(found), found.workers) == (["line"], 1)
        assert found.text.startswith("It is the first in queue q, and 1 worker could take it")


async def test_its_place_in_line_and_an_estimate() -> None:
    """How many are before it, by rank and in its lane; how long those take once that is known."""
    runtime = ShiftedRuntime()
    async with running(WatchedStore(runtime), runtime=runtime) as engine:
        await worker(engine)
        for number in range(30):
            await ok(engine, job(f"j{number:02}"), PromiseResult)
        await ok(engine, job("urgent", kept_priority="9"), PromiseResult)
        await ok(engine, job("aside", kept_lane="x"), PromiseResult)
        found = await explained(engine, "j29")
        assert (found.before, found.before_at_least, found.estimate) == (30, False, None)
        assert "30 jobs of queue q come before it; nothing started there lately" in found.text
        assert (await explained(engine, "urgent")).before == 0
        assert (await explained(engine, "aside")).before == 0
        assert len(await take(engine, limit=21)) == 21
        runtime.shift_ms += 10_000
        found = await explained(engine, "j29")
        assert found.estimate is not None
        # About 20 of its lane started in some seconds; a slice of time may have begun in between.
        assert 1_000 <= found.estimate <= 60_000
        assert "at the pace of late that takes about" in found.text


async def test_very_many_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted up to a bound, and said so."""
    monkeypatch.setattr(explained_queue, "MAX_BEFORE", 5)
    async with running(WatchedStore()) as engine:
        for number in range(9):
            await ok(engine, job(f"j{number}"), PromiseResult)
        found = await explained(engine, "j8")
        assert (found.before, found.before_at_least) == (5, True)
        assert any("At least 5 jobs" in reason.text for reason in found.reasons)


async def test_it_runs() -> None:
    """Which worker holds it, until when; and that it is asked to stop."""
    async with running(WatchedStore()) as engine:
        await ok(engine, job("j"), PromiseResult)
        await take(engine)
        found = await explained(engine, "j")
        assert kinds(found) == ["running"]
        (holder,) = found.reasons[0].holders
        assert (holder.id, holder.pid, holder.expires_at) == ("j", "w", found.reasons[0].until)
        await engine.submit(r.PromiseCancel("j"))
        assert kinds(await explained(engine, "j")) == ["running", "canceling"]


async def test_it_is_suspended_and_what_it_awaits_in_turn() -> None:
    """The promises that it awaits, each with what that one waits for."""
    async with running(WatchedStore()) as engine:
        await worker(engine)
        inner = {tag.EXTERNAL: "true"}
        await ok(engine, r.PromiseCreate("approval", NEVER_MS, tags=inner), PromiseResult)
        await ok(engine, job("child"), PromiseResult)
        await take(engine)
        await ok(engine, suspend("child", 1, "approval"), Nothing)
        await ok(engine, job("flow"), PromiseResult)
        await take(engine)
        await ok(engine, suspend("flow", 1, "approval", "child"), Nothing)
        found = await explained(engine, "flow")
        assert kinds(found) == ["suspended"]
        assert found.text == "It waits for approval, child."
        texts = {each.id: each.text for each in found.awaits}
        assert texts["approval"].startswith("Nobody works on it: it waits until somebody settles")
        assert texts["child"] == "It waits for approval."
        found = await explained(engine, "child")
        assert found.text.startswith("It waits for approval: nobody works on it")


async def test_a_timer_and_a_promise_that_others_settle() -> None:
    """When the timer is done; that nobody works on the other, and its deadline."""
    runtime = ShiftedRuntime()
    async with running(WatchedStore(runtime), runtime=runtime) as engine:
        at = runtime.now_ms() + 60_000
        timer = {tag.TIMER: "true", tag.TARGET: "queue://q"}
        await ok(engine, r.PromiseCreate("timer", at, tags=timer), PromiseResult)
        await ok(engine, r.PromiseCreate("plain", at), PromiseResult)
        found = (await explained(engine, "timer")).reasons[0]
        assert (found.kind, found.until) == ("timer", at)
        found = (await explained(engine, "plain")).reasons[0]
        assert (found.kind, found.until) == ("external", at)


async def test_work_that_is_pushed() -> None:
    """To whom it is offered, and when again; or that it is not yet."""
    runtime = ShiftedRuntime()
    async with running(WatchedStore(runtime), runtime=runtime) as engine:
        pushed = {tag.TARGET: "poll://any@g"}
        await ok(engine, r.PromiseCreate("p", NEVER_MS, tags=pushed), PromiseResult)
        found = (await explained(engine, "p")).reasons[0]
        assert found.kind == "offered"
        assert "poll://any@g" in found.text
        delay = {**pushed, tag.DELAY: str(runtime.now_ms() + 50_000)}
        await ok(engine, r.PromiseCreate("d", NEVER_MS, tags=delay), PromiseResult)
        assert kinds(await explained(engine, "d")) == ["delayed"]


async def test_it_was_halted_or_given_up_on() -> None:
    """Halted by somebody, halted by its failures, rejected by them: and what undoes each."""
    async with running(WatchedStore()) as engine:
        for id, exhausted in (("halt", "halt"), ("dead", "reject"), ("stop", "reject")):
            tags = {"kept_attempts": "1", "kept_exhausted": exhausted}
            await ok(engine, job(id, **tags), PromiseResult)
        await ok(engine, r.TaskHalt("stop"), Nothing)
        for id in await take(engine, limit=2):
            await ok(engine, r.TaskNack(id, 1), NackResult)
        found = await explained(engine, "stop")
        assert found.text == "It is halted; `kept task continue stop` lets it go on."
        found = await explained(engine, "halt")
        assert kinds(found) == ["halted"]
        assert "exhausted, after 1 failure, and" in found.text
        assert "kept dead replay halt" in found.text
        found = await explained(engine, "dead")
        assert kinds(found) == ["dead"]
        assert "kept dead replay dead" in found.text
        assert found.state is PromiseState.REJECTED


async def test_it_is_over() -> None:
    """How it ended and when, also where only its deadline says so."""
    runtime = ShiftedRuntime()
    async with running(WatchedStore(runtime), runtime=runtime) as engine:
        await ok(engine, r.PromiseCreate("p", NEVER_MS), PromiseResult)
        await ok(engine, r.PromiseSettle("p", PromiseState.RESOLVED, Value()), PromiseResult)
        found = await explained(engine, "p")
        assert kinds(found) == ["settled"]
        assert found.text.startswith("It is done since ")
        await ok(engine, r.PromiseCreate("late", runtime.now_ms() + 1_000), PromiseResult)
        runtime.shift_ms += 2_000
        found = await explained(engine, "late")
        assert found.state is PromiseState.REJECTED_TIMEDOUT


async def test_a_token_is_not_told_of_others() -> None:
    """Ids of holders outside of the prefix are hidden, and what they are doing."""
    async with running(WatchedStore()) as engine:
        await ok(engine, r.QueuePut("shop-q", concurrency=1), QueueResult)
        await ok(engine, job("bank-1", "shop-q"), PromiseResult)
        await ok(engine, job("shop-1", "shop-q"), PromiseResult)
        await ok(engine, waiting_claim("shop-q", wait=0), ClaimResult)
        found = await explained(engine, "shop-1", prefix="shop-")
        assert found.reasons[0].holders[0].id == "(another's)"
        assert "bank" not in str(found)
        assert "bank-1" in str(await explained(engine, "shop-1"))


async def test_over_a_file(tmp_path: Path) -> None:
    """The same from SQLite, where each question is a few seeks."""
    runtime = ShiftedRuntime()
    store = open_store(f"sqlite:///{tmp_path}/kept.db", runtime)
    async with running(store, runtime=runtime) as engine:
        await worker(engine, "f", "g")
        for number in range(20):
            await ok(engine, job(f"j{number:02}", kept_function="fg"[number % 2]), PromiseResult)
        found = await explained(engine, "j19")
        assert (found.before, found.workers) == (19, 1)
        await ok(engine, r.QueuePut("q", concurrency=1), QueueResult)
        assert await take(engine) == ["j00"]
        found = await explained(engine, "j19")
        assert kinds(found) == ["concurrency", "line"]
        assert found.before == 18
        await ok(engine, suspend("j00", 1, "j19"), Nothing)
        assert (await explained(engine, "j00")).awaits[0].id == "j19"
