"""What users do wrong: a clear error, or a recorded failure; never a hang, never an effect twice."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

import kept
from kept.protocol import requests as r
from kept.protocol.records import TaskState
from kept.protocol.responses import TaskResult
from tests.unit.sdk.site import site


class Fatal(BaseException):
    """Not an `Exception`: what careless `except` clauses let pass."""


@pytest.mark.parametrize("kind", [Fatal, GeneratorExit])
async def test_every_kind_of_error_is_an_outcome(kind: type[BaseException]) -> None:
    """A job or step that raises past `Exception` has failed, once, and is not tried for ever."""
    app = kept.App("memory://")
    calls = []

    @app.function
    async def job(place: str) -> None:
        calls.append(place)
        raise kind(place)

    @app.function
    async def flow(ctx: kept.Context) -> None:
        await ctx.run(job, "step")

    async with app:
        for work in (app.run(job, "job"), app.run(flow)):
            with pytest.raises(kept.PromiseRejectedError, match=kind.__name__):
                async with asyncio.timeout(10):
                    await work
    assert calls == ["job", "step"]


async def test_the_app_is_refused_in_durable_code() -> None:
    """Starting or awaiting work past the Context names the user's line and the right way."""
    app = kept.App("memory://")

    @app.function
    async def job() -> int:
        return 1

    @app.function
    async def starts(ctx: kept.Context) -> None:
        await app.start(job)

    @app.function
    async def awaits(ctx: kept.Context, handle: str) -> None:
        await outside

    async with app:
        outside = await app.start(job, id="outside")
        with pytest.raises(kept.PromiseRejectedError, match=r"test_misuse.*ctx\.call"):
            await app.run(starts)
        with pytest.raises(kept.PromiseRejectedError, match=r"test_misuse.*ctx\.call"):
            await app.run(awaits, "outside")


async def test_only_what_is_registered_can_be_started() -> None:
    """An unregistered callable, or an id that is no text, is refused before anything is stored."""
    app = kept.App("memory://", worker=False)

    @app.function
    async def job() -> int:
        return 1

    async with app:
        with pytest.raises(kept.ConfigurationError, match="not registered"):
            await app.start(len, "x")  # type: ignore[arg-type]
        with pytest.raises(kept.InvalidArgumentsError, match="id: must be a str"):
            await app.start(job, id=7)  # type: ignore[call-overload]


async def test_a_thread_that_goes_on_keeps_its_lease() -> None:
    """A stopping worker does not hand back work whose function still runs in a thread: nobody else
    may run it at the same time."""
    app = kept.App("memory://", worker=False)
    begun, end = threading.Event(), threading.Event()

    @app.function
    def stuck() -> None:
        begun.set()
        end.wait(30)

    async with site() as place:
        worker = place.worker(app, ttl=30)
        await place.app(app).start(stuck, id="stuck")
        await asyncio.to_thread(begun.wait, 10)
        try:
            await worker.stop(grace=0)
            found = (await place.connection().send(r.TaskGet("stuck"))).data
            assert isinstance(found, TaskResult)
            assert found.task.state is TaskState.ACQUIRED
        finally:
            end.set()


async def test_a_file_that_is_removed_is_noticed(tmp_path: Path) -> None:
    """Nothing is acknowledged that was written into a file which is not there any more."""
    path = tmp_path / "kept.db"
    app = kept.App(f"sqlite:///{path}", worker=False)

    @app.function
    async def job() -> int:
        return 1

    async with app:
        await app.start(job, id="before")
        path.rename(tmp_path / "elsewhere.db")
        with pytest.raises(kept.UnavailableError, match="removed or replaced"):
            await app.start(job, id="lost")
        (tmp_path / "elsewhere.db").rename(path)
        await app.start(job, id="after")
