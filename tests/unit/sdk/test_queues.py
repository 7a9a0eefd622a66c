"""`app.queues`: settings from Python."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

import kept
from kept.protocol.entries import LaneLimits, RateLimit


async def test_settings_are_put_read_and_taken_back() -> None:
    """What is not named stays, None takes back, and all are listed."""
    app = kept.App("memory://", worker=False)
    async with app:
        queues = app.queues
        put = await queues.put(
            "mail",
            concurrency=3,
            rate=kept.Rate(100, timedelta(minutes=1)),
            lane=kept.Lane(concurrency=1),
            lanes={"ann": kept.Lane(rate=kept.Rate(5), weight=3)},
            max_depth=9,
            aging=30,
            retention=timedelta(days=30),
            keep_ids=True,
        )
        assert put == await queues.get("mail")
        assert (put.concurrency, put.max_depth, put.aging) == (3, 9, 30_000)
        assert put.rate == RateLimit(100, 60_000)
        assert put.lane == LaneLimits(concurrency=1)
        assert put.lanes == {"ann": LaneLimits(rate=RateLimit(5, 1_000), weight=3)}
        assert (put.retention, put.keep_ids) == (30 * 86_400_000, True)
        changed = await queues.put("mail", concurrency=None, max_depth=8)
        assert (changed.concurrency, changed.max_depth, changed.rate) == (None, 8, put.rate)
        assert (await queues.pause("mail")).paused
        assert not (await queues.resume("mail")).paused
        await queues.put("other", paused=True)
        assert [queue.name async for queue in queues.list()] == ["mail", "other"]
        await queues.delete("mail")
        with pytest.raises(kept.NotFoundError):
            await queues.get("mail")


async def test_they_hold_for_what_is_started() -> None:
    """A pause, a depth and the lanes; the numbers tell of it."""
    app = kept.App("memory://", queue="mail")
    running: list[str] = []
    most: dict[str, int] = {}

    @app.function
    async def job(lane: str) -> None:
        running.append(lane)
        most[lane] = max(most.get(lane, 0), running.count(lane))
        await app.runtime.sleep(0.01)
        running.remove(lane)

    async with app, asyncio.timeout(20):
        await app.queues.put("mail", paused=True, max_depth=6, lanes={"ann": kept.Lane(2)})
        by_lane = {name: job.options(lane=name) for name in ("ann", "bob")}
        calls = [(name, by_lane[name]) for name in ("ann", "ann", "ann", "ann", "bob", "bob")]
        handles = [await app.start(function, name) for name, function in calls]
        stats = await app.queues.stats("mail")
        assert (stats.depth, stats.due, stats.acquired) == (6, 6, 0)
        with pytest.raises(kept.ShedError, match="queue mail is full"):
            await app.start(job, "eve")
        await app.queues.resume("mail")
        for handle in handles:
            await handle
    assert most["ann"] <= 2


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"concurrency": 0}, "concurrency: must be a whole number from 1"),
        ({"concurrency": "3"}, "concurrency: .*not '3'"),
        ({"rate": 5}, r"rate: must be a kept.Rate\(limit, per\), not 5"),
        ({"rate": kept.Rate(0, 1)}, "rate: limit: must be a whole number from 1"),
        ({"rate": kept.Rate(1, 0)}, "rate: per must be from a millisecond to 31 days"),
        ({"rate": kept.Rate(1, timedelta(days=32))}, "rate: per must be from"),
        ({"rate": kept.Rate(1, -1)}, "rate: per: a duration must be 0 or more"),
        ({"lane": {"concurrency": 1}}, "lane: must be a kept.Lane"),
        ({"lane": kept.Lane(weight=1_001)}, "lane: weight: .* from 1 to 1000, not 1001"),
        ({"lanes": [kept.Lane(1)]}, "lanes: must be a dict of lanes by name"),
        ({"lanes": {"": kept.Lane(1)}}, "lanes: must be a text that is not empty"),
        ({"lanes": {"ann": kept.Lane(0)}}, "lanes: ann: concurrency: "),
        ({"aging": -1}, "aging: a duration must be 0 or more"),
        ({"paused": 1}, "paused: must be True or False, not 1"),
        ({"retention": 0.5}, "retention: must be at least 1 s"),
        ({"retention": 1e300}, "retention: .* is too long"),
    ],
)
async def test_settings_that_make_no_sense(settings: dict[str, Any], error: str) -> None:
    """Are told at the call, with the name of the setting."""
    app = kept.App("memory://", worker=False)
    async with app:
        with pytest.raises(kept.InvalidArgumentsError, match=error):
            await app.queues.put("mail", **settings)
        with pytest.raises(kept.InvalidArgumentsError, match="queue: must be a name"):
            await app.queues.put("a b")
        with pytest.raises(TypeError, match="there is no setting 'speed'; there are concurrency"):
            await app.queues.put("mail", speed=9)  # type: ignore[call-arg]
