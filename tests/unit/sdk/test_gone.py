"""Work whose result has left after its retention (protocol B6)."""

from __future__ import annotations

import asyncio

import pytest

import kept
from kept.client.connection import call
from kept.protocol import requests as r
from kept.protocol.limits import MIN_RETENTION_MS


async def left(app: kept.App, id: str) -> None:
    """Returns once the promise has left."""
    while (await app.connection.send(r.PromiseGet(id))).status != 404:
        await app.runtime.sleep(0.02)


async def settings(app: kept.App, *, keep_ids: bool) -> None:
    put = r.QueuePut("default", retention=MIN_RETENTION_MS, keep_ids=keep_ids)
    await call(app.connection, put)


async def test_an_event_that_comes_again_much_later() -> None:
    """It does not run again, and whoever asks for its result is told what became of it: how it
    ended, when, and that its result was kept for the retention."""
    app = kept.App("memory://")
    ran: list[str] = []

    @app.function
    async def job(name: str) -> str:
        ran.append(name)
        if name == "bad":
            raise ValueError("bad")
        return name

    async with app, asyncio.timeout(30):
        await settings(app, keep_ids=True)
        early = await app.start(job, "good", id="good")
        assert await early == "good"
        with pytest.raises(kept.PromiseRejectedError):
            await app.run(job, "bad", id="bad")
        # A dead letter stays, and so does its promise.
        await app.dead.purge("bad")
        for id in ("good", "bad"):
            await left(app, id)
        again = await app.start(job, "good", id="good")
        with pytest.raises(kept.ResultGoneError) as caught:
            await again
        gone = caught.value
        assert (gone.id, gone.state) == ("good", "resolved")
        assert gone.settled_at is not None
        assert gone.left_at is not None
        assert gone.left_at - gone.settled_at >= MIN_RETENTION_MS
        text = str(gone)
        assert "good ended (resolved) at 20" in text
        assert "was kept for 1.0s, the retention of its queue" in text
        assert await again.done()
        assert not await again.cancel()
        with pytest.raises(kept.ResultGoneError, match=r"bad ended \(rejected\)"):
            await app.run(job, "bad", id="bad")
        by_name = await app.enqueue("job", args={"name": "good"}, id="good")
        with pytest.raises(kept.ResultGoneError):
            await by_name
        # A handle that was had before says so as well, with less to tell.
        assert await early.done()
        with pytest.raises(kept.ResultGoneError, match="was started and is not there any more"):
            await early
        assert not await early.cancel()
        # Nobody here knows whether there ever was one of that id.
        with pytest.raises(kept.NotFoundError, match="was never started, or left after"):
            await app.handle("good")
    assert ran == ["good", "bad"]


async def test_without_kept_ids_it_runs_again() -> None:
    """The id is free; a handle to the first run tells that it is over as long as nothing new is
    there."""
    app = kept.App("memory://")
    ran: list[int] = []

    @app.function
    async def job() -> int:
        ran.append(len(ran))
        return len(ran)

    async with app, asyncio.timeout(30):
        await settings(app, keep_ids=False)
        first = await app.start(job, id="j")
        assert await first == 1
        await left(app, "j")
        with pytest.raises(kept.ResultGoneError):
            await first.result(5)
        assert await app.run(job, id="j") == 2
