"""What `App` and `Handle` promise to those who start work."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import msgspec
import pytest

import kept
from kept.protocol import requests as r
from kept.protocol.records import TaskState
from kept.protocol.responses import DeadLetterResult, ReplayResult, TaskResult
from tests.unit.sdk.site import eventually, site


@dataclass
class Order:
    id: str
    cents: int


class Receipt(msgspec.Struct):
    order: Order
    note: str | None = None


async def test_values_keep_their_types() -> None:
    """Arguments and results come back as their annotations say, whatever text is in them."""
    app = kept.App("memory://")
    seen: list[object] = []

    @app.function
    async def pay(order: Order, note: str | None = None) -> Receipt:
        seen.append(order)
        return Receipt(order, note)

    @app.function
    async def shop(ctx: kept.Context, order: Order) -> Receipt:
        return await ctx.run(pay, order, "naïve \0 ☃ 𝄞")

    async with app:
        order = Order("ä\0", 5)
        assert await app.run(pay, order) == Receipt(order)
        assert await app.run(shop, order) == Receipt(order, "naïve \0 ☃ 𝄞")
        assert seen[0] == order


@pytest.mark.parametrize("value", [object(), float("nan"), "\ud800", [float("inf")]])
async def test_unserialisable_results_are_failures(value: object) -> None:
    """What JSON cannot hold fails the work with a clear error, and is never changed silently."""
    app = kept.App("memory://")

    @app.function
    async def job() -> object:
        return value

    @app.function
    async def flow(ctx: kept.Context) -> object:
        return value

    @app.function
    async def stepping(ctx: kept.Context) -> object:
        return await ctx.run(job)

    async with app:
        for function in (job, flow, stepping):
            with pytest.raises(kept.PromiseRejectedError, match="cannot be stored as JSON"):
                await app.run(function)
        with pytest.raises(TypeError, match="JSON"):
            await app.enqueue("elsewhere", args={"value": value})


async def test_large_results_are_failures() -> None:
    """A result over the limit fails job, workflow and step, and says so."""
    app = kept.App("memory://")

    @app.function
    async def large() -> str:
        return "x" * 1_048_577

    @app.function
    async def flow(ctx: kept.Context) -> str:
        return "x" * 1_048_577

    @app.function
    async def stepping(ctx: kept.Context) -> str:
        return await ctx.run(large)

    async with app:
        for function in (large, flow, stepping):
            with pytest.raises(kept.PromiseRejectedError, match="larger than 1048576 bytes"):
                await app.run(function)


async def test_same_id_is_the_same_work() -> None:
    """A second start gives the first's work; an id of another function's work is refused."""
    app = kept.App("memory://")
    runs: list[int] = []

    @app.function
    async def one(n: int) -> int:
        runs.append(n)
        return n

    @app.function
    async def two(n: int) -> int:
        return n

    async with app:
        assert await app.run(one, 1, id="x") == 1
        assert await app.run(one, 2, id="x") == 1
        with pytest.raises(kept.ConflictError, match="is the work of one@1 already"):
            await app.start(two, 1, id="x")
    assert runs == [1]


async def test_mistakes_are_told_at_once() -> None:
    """Wrong arguments, doubled names, an app that is not open or open already, bad settings."""
    app = kept.App("memory://")

    @app.function
    async def one(n: int) -> int:
        return n

    with pytest.raises(kept.ConfigurationError, match="registered twice"):
        app.function(name="one")(lambda: None)
    with pytest.raises(kept.ConfigurationError, match="no '@'"):
        app.function(name="a@1")(lambda: None)
    with pytest.raises(kept.ConfigurationError, match="not open"):
        await app.start(one, 1)
    with pytest.raises(kept.ConfigurationError, match="ttl"):
        kept.App("memory://", ttl=0)
    async with app:
        with pytest.raises(kept.InvalidArgumentsError, match="one: too many"):
            await app.start(one, 1, 2)
        with pytest.raises(kept.ConfigurationError, match="open already"):
            await app.open()
        with pytest.raises(kept.PromiseRejectedError, match="InvalidArgumentsError"):
            await app.run(one, "no number")
    await app.close()


async def test_handle_gives_up_waiting_and_cancels() -> None:
    """A timeout leaves the work alone; cancelling settles it, and the worker stops it."""
    async with site() as place:
        app = kept.App("memory://")
        stopped = asyncio.Event()

        @app.function
        async def endless(ctx: kept.Context) -> None:
            await ctx.run(forever)

        async def forever() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

        place.worker(app, ttl=0.3)
        handle = await place.app(app).start(endless)
        with pytest.raises(TimeoutError):
            await handle.result(0.02)
        assert not await handle.done()
        assert await handle.cancel()
        with pytest.raises(kept.PromiseCanceledError):
            await handle
        async with asyncio.timeout(5):
            await stopped.wait()


async def test_many_starts() -> None:
    """Ten thousand jobs are started and all done; failing policies end in dead letters."""
    app = kept.App("memory://", concurrency=1000)
    done: set[int] = set()

    @app.function
    async def job(n: int) -> None:
        done.add(n)

    async with app:
        handles = await app.start_many(job, [(n,) for n in range(10_000)])
        assert len(handles) == 10_000
        await asyncio.gather(*handles[-100:])

        async def all_done() -> bool:
            return len(done) == 10_000

        await eventually(all_done)


async def test_failures_of_jobs() -> None:
    """A job is tried as its policy says, and becomes a dead letter that a replay tries anew."""
    app = kept.App("memory://")
    tries: list[str] = []

    @app.function(retry=kept.Constant(attempts=3, delay=0.01, give_up_on=(KeyError,)))
    async def failing(kind: str) -> None:
        tries.append(kind)
        raise KeyError(kind) if kind == "key" else ValueError(kind)

    @app.function
    def exits() -> None:
        raise SystemExit(3)

    @app.function
    def stops() -> None:
        raise StopIteration

    async with app:
        with pytest.raises(kept.PromiseRejectedError, match="ValueError"):
            await app.run(failing, "value", id="v")
        with pytest.raises(kept.PromiseRejectedError, match="KeyError"):
            await app.run(failing, "key")
        assert tries == ["value"] * 3 + ["key"]
        response = await app.connection.send(r.DeadGet("v"))
        assert isinstance(response.data, DeadLetterResult)
        assert response.data.letter.failures == 3
        for function, text in ((exits, "sys.exit"), (stops, "StopIteration")):
            with pytest.raises(kept.PromiseRejectedError, match=text):
                await app.run(function)


async def test_changed_code_halts_and_goes_on_after_the_fix() -> None:
    """A replay that asks for something else shows both sides, is halted, and can be replayed."""
    async with site() as place:
        app = kept.App("memory://")
        asked = ["before"]

        @app.function
        async def step(what: str) -> str:
            return what

        @app.function
        async def flow(ctx: kept.Context) -> str:
            first = await ctx.run(step, asked[0])
            await ctx.promise("go")
            return first

        worker = place.worker(app, cache=0)
        handle = await place.app(app).start(flow, id="f")
        connection = place.connection()

        async def state() -> TaskState:
            response = await connection.send(r.TaskGet("f"))
            assert isinstance(response.data, TaskResult)
            return response.data.task.state

        async def is_suspended() -> bool:
            return await state() is TaskState.SUSPENDED

        async def is_halted() -> bool:
            return await state() is TaskState.HALTED

        await eventually(is_suspended)
        asked[0] = "after"
        from kept.protocol.records import PromiseState

        await connection.send(r.PromiseSettle("f.go", PromiseState.RESOLVED))
        await eventually(is_halted)
        response = await connection.send(r.DeadGet("f"))
        assert isinstance(response.data, DeadLetterResult)
        letter = response.data.letter
        assert letter.reason == "nondeterministic"
        assert "before" in str(letter.error.data)
        assert "after" in str(letter.error.data)
        asked[0] = "before"
        response = await connection.send(r.DeadReplay(["f"]))
        assert isinstance(response.data, ReplayResult)
        assert await handle == "before"
        assert worker is not None


async def test_deadlocks_are_rejected() -> None:
    """Code that waits for what cannot come is rejected, with the line where it waits."""
    app = kept.App("memory://")

    @app.function
    async def stuck(ctx: kept.Context) -> None:
        await asyncio.Event().wait()

    async with app:
        with pytest.raises(kept.PromiseRejectedError, match="DeadlockError") as caught:
            await app.run(stuck)
        assert "test_app.py" in caught.value.message


async def test_stopping_loses_no_claimed_work() -> None:
    """Jobs that are claimed at the very moment of a stop are free for others at once."""
    async with site() as place:
        app = kept.App("memory://")

        @app.function
        async def job() -> None: ...

        place.app(app)
        for _ in range(20):
            worker = place.worker(app, ttl=60)
            starting = asyncio.ensure_future(app.start(job))
            await asyncio.gather(worker.stop(), starting)
            other = place.worker(app, ttl=60)
            await (await starting).result(5)
            await other.stop()


async def test_long_steps_keep_their_lease() -> None:
    """Heartbeats hold a lease over several ttl: the step runs once, and nobody else gets it."""
    async with site() as place:
        app = kept.App("memory://")
        begun: list[int] = []
        go_on = asyncio.Event()

        async def long() -> str:
            begun.append(1)
            await go_on.wait()
            return "done"

        @app.function
        async def flow(ctx: kept.Context) -> str:
            return await ctx.run(long)

        place.worker(app, ttl=0.2)
        place.worker(app, ttl=0.2)
        handle = await place.app(app).start(flow)
        with pytest.raises(TimeoutError):
            await handle.result(1.0)
        go_on.set()
        assert await handle == "done"
        assert begun == [1]


async def test_forked_process_is_told_to_open_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """An app that was opened before a fork refuses to work in the child, and closing harms nothing."""
    app = kept.App("memory://")

    @app.function
    async def one() -> int:
        return 1

    async with app:
        with monkeypatch.context() as patch:
            patch.setattr("os.getpid", lambda: -1)
            with pytest.raises(kept.ConfigurationError, match="forked"):
                await app.start(one)
        assert await app.run(one) == 1


async def test_timeouts_begin_when_they_are_asked_for() -> None:
    """Work that waited long for a worker still gets the whole of each timeout and sleep."""
    async with site() as place:
        app = kept.App("memory://")

        @app.function
        async def quick() -> str:
            return "in time"

        @app.function
        async def flow(ctx: kept.Context) -> str:
            async with asyncio.timeout(0.3):
                return await ctx.run(quick)

        handle = await place.app(app).start(flow)
        with pytest.raises(TimeoutError):
            await handle.result(0.5)
        place.worker(app)
        assert await handle.result(5) == "in time"
