"""What jobs and steps raise to say how they go on."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

import kept


async def test_a_rejected_job_is_a_dead_letter_at_once() -> None:
    """Whatever its policy, its start and `exhausted` say; in a thread, and from durable code too."""
    app = kept.App("memory://")
    tries: list[str] = []

    @app.function(retry=kept.Constant(attempts=9, delay=0), exhausted="halt")
    async def job(name: str) -> None:
        tries.append(name)
        raise kept.RejectJob("the card is stolen", reason="stolen_card") from KeyError(name)

    @app.function(retry=kept.Constant(retry_on=(kept.RejectJob,)))
    def threaded() -> None:
        tries.append("threaded")
        raise kept.RejectJob

    @app.function
    async def flow(ctx: kept.Context) -> None:
        tries.append("flow")
        raise kept.RejectJob("no such order", reason="unknown")

    async with app, asyncio.timeout(20):
        with pytest.raises(kept.PromiseRejectedError, match="RejectJob: the card is stolen"):
            await app.run(job, "own", id="own")
        with pytest.raises(kept.PromiseRejectedError, match="RejectJob"):
            await app.run(job, "started", id="started", retry=kept.Constant())
        with pytest.raises(kept.PromiseRejectedError, match="RejectJob: the job was rejected"):
            await app.run(threaded, id="threaded")
        with pytest.raises(kept.PromiseRejectedError, match="RejectJob: no such order"):
            await app.run(flow, id="flow")
        reasons = {letter.id: letter.reason async for letter in app.dead.list()}
        assert reasons == {
            "own": "stolen_card",
            "started": "stolen_card",
            "threaded": "rejected",
            "flow": "unknown",
        }
    assert tries == ["own", "started", "threaded", "flow"]


@pytest.mark.parametrize("retry", [None, kept.Constant(attempts=2, delay=0)])
async def test_trying_later_is_no_failure(retry: kept.Retry | None) -> None:
    """Unless it is counted: then it uses up an attempt, of the function's policy or of the start's."""
    app = kept.App("memory://")
    attempts: dict[str, list[int]] = {"free": [], "counted": []}

    @app.function(retry=kept.Constant(attempts=2, delay=0))
    async def job(name: str) -> str:
        current = kept.current_job()
        assert current is not None
        attempts[name].append(current.attempt)
        if len(attempts[name]) < 5:
            raise kept.RetryJob("busy", delay=timedelta(milliseconds=10), counted=name == "counted")
        return "done"

    async with app, asyncio.timeout(20):
        assert await app.run(job, "free", retry=retry) == "done"
        with pytest.raises(kept.PromiseRejectedError, match="RetryJob: busy"):
            await app.run(job, "counted", id="c", retry=retry)
        assert (await app.dead.get("c")).reason == "exhausted"
    assert attempts == {"free": [1, 1, 1, 1, 1], "counted": [1, 2]}


async def test_the_delay_is_waited_for_in_the_queue() -> None:
    """The worker is free meanwhile."""
    app = kept.App("memory://", concurrency=1)
    ran: list[str] = []

    @app.function
    async def job(name: str) -> None:
        ran.append(name)
        if ran == ["early"]:
            raise kept.RetryJob(delay=0.3)

    async with app, asyncio.timeout(20):
        early = await app.start(job, "early")
        while not ran:
            await app.runtime.sleep(0.01)
        for name in ("a", "b"):
            await app.run(job, name)
        await early
    assert ran == ["early", "a", "b", "early"]


async def test_steps_raise_them_too() -> None:
    """A rejected step is not tried again, and the workflow sees it; another waits in its worker."""
    app = kept.App("memory://")
    tries: list[str] = []

    @app.function(retry=kept.Constant(attempts=2, delay=0))
    async def step(name: str) -> str:
        tries.append(name)
        if name == "rejected":
            raise kept.RejectJob("never")
        if len(tries) < 5:
            raise kept.RetryJob(delay=0, counted=False)
        return "done"

    @app.function
    async def flow(ctx: kept.Context) -> list[str]:
        result = await ctx.run(step, "again")
        try:
            await ctx.run(step, "rejected")
        except kept.PromiseRejectedError as error:
            return [result, error.type, error.message]
        return []

    @app.function
    async def late(ctx: kept.Context) -> None:
        raise kept.RetryJob(delay=1)

    async with app, asyncio.timeout(20):
        assert await app.run(flow) == ["done", "RejectJob", "never"]
        with pytest.raises(kept.PromiseRejectedError, match=r"NotDurableError: .*ctx\.sleep"):
            await app.run(late)
        assert [letter async for letter in app.dead.list()] == []
    assert tries == ["again"] * 5 + ["rejected"]


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: kept.RejectJob("x", reason=""), "reason: must be a text"),
        (lambda: kept.RejectJob("x", reason="x" * 1_025), "reason: is 1025 bytes long"),
        (lambda: kept.RetryJob(delay=-1), "delay: a duration must be 0 or more, not -1"),
        (lambda: kept.RetryJob(delay="soon"), "delay: must be a timedelta"),  # type: ignore[arg-type]
        (lambda: kept.RetryJob(delay=1e300), "delay: .* is too long"),
    ],
)
def test_what_makes_no_sense_is_refused_where_it_is_made(make: Any, error: str) -> None:
    """In the job, so that its author sees it."""
    with pytest.raises(kept.InvalidArgumentsError, match=error):
        make()


async def test_a_job_may_snooze() -> None:
    """Without a failure, as often as it likes, however few attempts it has."""
    app = kept.App("memory://")
    attempts: list[int] = []

    @app.function(retry=kept.Never())
    async def job() -> str:
        found = kept.current_job()
        assert found is not None
        attempts.append(found.attempt)
        if len(attempts) < 4:
            raise kept.Snooze(0.001)
        return "awake"

    async with app, asyncio.timeout(20):
        assert await app.run(job) == "awake"
    assert attempts == [1, 1, 1, 1]
