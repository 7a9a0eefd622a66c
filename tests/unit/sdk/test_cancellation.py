"""Canceling durable code and jobs: what the code sees, what it may still do, and how it ends (B3)."""

from __future__ import annotations

import asyncio

import pytest

import kept
from kept.protocol import requests as r
from kept.protocol.records import PromiseState
from kept.protocol.responses import DeadLetterPage, PromiseResult
from tests.unit.sdk.site import Site, eventually, site

TTL = 0.3


class Log:
    """What happened outside, in order."""

    def __init__(self) -> None:
        self.entries: list[str] = []
        self.reached = asyncio.Event()

    async def write(self, entry: str) -> str:
        self.entries.append(entry)
        return entry

    async def hang(self, entry: str) -> None:
        self.entries.append(entry)
        self.reached.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.entries.append(f"{entry} stopped")


async def state_of(app: kept.App, id: str) -> PromiseState:
    assert app._services is not None
    response = await app._services.connection.send(r.PromiseGet(id))
    assert isinstance(response.data, PromiseResult)
    return response.data.promise.state


async def nothing_is_dead(app: kept.App) -> None:
    assert app._services is not None
    response = await app._services.connection.send(r.DeadList())
    assert isinstance(response.data, DeadLetterPage)
    assert response.data.letters == []


async def test_in_the_midst_of_a_step() -> None:
    """The step is stopped, the code sees it, cleans up in durable steps, and ends as canceled."""
    async with site() as place:
        app, log = kept.App("memory://"), Log()

        @app.function
        async def order(ctx: kept.Context) -> None:
            await ctx.run(log.write, "charge")
            try:
                await ctx.run(log.hang, "ship")
            except asyncio.CancelledError:
                await ctx.run(log.write, "refund")
                raise

        place.worker(app, ttl=TTL)
        handle = await place.app(app).start(order, id="o")
        await log.reached.wait()
        assert await handle.cancel("out of stock")
        with pytest.raises(kept.PromiseCanceledError, match="out of stock"):
            await handle.result(5)
        assert log.entries == ["charge", "ship", "ship stopped", "refund"]
        assert await handle.cancel()
        await nothing_is_dead(app)


async def test_a_saga_is_undone() -> None:
    """In reverse, whether or not what was being done is recorded; what fails is only noted."""
    async with site() as place:
        app, log = kept.App("memory://"), Log()

        @app.function
        async def fail(entry: str) -> None:
            await log.write(entry)
            raise LookupError(entry)

        @app.function
        async def trip(ctx: kept.Context) -> None:
            async with ctx.saga() as saga:
                saga.undo(log.write, "cancel flight")
                await ctx.run(log.write, "book flight")
                saga.undo(fail, "cancel car")
                saga.undo(log.write, "cancel hotel")
                await ctx.run(log.hang, "book hotel")

        place.worker(app, ttl=TTL)
        handle = await place.app(app).start(trip, id="trip")
        await log.reached.wait()
        await handle.cancel("no leave")
        with pytest.raises(kept.PromiseCanceledError, match="no leave"):
            await handle.result(timeout=10)
        assert log.entries == [
            "book flight",
            "book hotel",
            "book hotel stopped",
            "cancel hotel",
            "cancel car",
            "cancel flight",
        ]


@pytest.mark.parametrize("cache", [0, 100])
async def test_while_it_is_suspended(cache: int) -> None:
    """It is woken, in place or by a replay; its clean-up may itself wait for others."""
    async with site() as place:
        app, log = kept.App("memory://"), Log()

        @app.function
        async def undo(ctx: kept.Context) -> None:
            await ctx.sleep(0.01)
            await ctx.run(log.write, "undone")

        @app.function
        async def order(ctx: kept.Context) -> None:
            await ctx.run(log.write, "begun")
            try:
                await ctx.promise("approval")
            finally:
                await ctx.call(undo)
                await ctx.sleep(0.01)
                await ctx.run(log.write, "closed")

        place.worker(app, ttl=TTL, cache=cache)
        handle = await place.app(app).start(order, id="o")
        await _suspended(app, "o")
        assert await handle.cancel()
        with pytest.raises(kept.PromiseCanceledError):
            await handle.result(5)
        assert log.entries == ["begun", "undone", "closed"]
        assert await state_of(app, "o.approval") is PromiseState.REJECTED_CANCELED
        await nothing_is_dead(app)


async def _suspended(app: kept.App, id: str) -> None:
    assert app._services is not None
    connection = app._services.connection

    async def look() -> bool:
        response = await connection.send(r.TaskGet(id))
        return getattr(response.data, "task", None) is not None and (
            response.data.task.state.value == "suspended"  # type: ignore[union-attr]
        )

    await eventually(look)


async def test_before_it_starts() -> None:
    """Nothing runs, and nothing is left."""
    async with site() as place:
        app, log = kept.App("memory://"), Log()

        @app.function
        async def job(entry: str) -> None:
            await log.write(entry)

        handle = await place.app(app).start(job, "never")
        assert await handle.cancel()
        place.worker(app, ttl=TTL)
        with pytest.raises(kept.PromiseCanceledError):
            await handle.result(5)
        assert await (await app.start(job, "other")).result(5) is None
        assert log.entries == ["other"]


async def test_code_that_goes_on_has_a_result() -> None:
    """As in asyncio: what catches the error and returns has returned."""
    async with site() as place:
        app, log = kept.App("memory://"), Log()

        @app.function
        async def stubborn(ctx: kept.Context) -> str:
            try:
                await ctx.run(log.hang, "work")
            except asyncio.CancelledError:
                return "partial"
            return "whole"

        place.worker(app, ttl=TTL)
        handle = await place.app(app).start(stubborn)
        await log.reached.wait()
        assert await handle.cancel()
        assert await handle.result(5) == "partial"
        assert not await handle.cancel()


async def test_a_tree_stops_from_the_root_on() -> None:
    """Each part cleans up by itself; the root hears of its own cancellation, never of a child's, and
    ends when all have."""
    async with site() as place:
        app, log = kept.App("memory://"), Log()

        @app.function
        async def leaf(ctx: kept.Context, name: str) -> None:
            try:
                await ctx.sleep(60)
            finally:
                await ctx.run(log.write, f"{name} undone")

        @app.function
        async def branch(ctx: kept.Context, name: str) -> None:
            try:
                await asyncio.gather(*(ctx.call(leaf, f"{name}{n}") for n in range(2)))
            except kept.PromiseCanceledError:
                await ctx.run(log.write, "wrong")
            finally:
                await ctx.run(log.write, f"{name} undone")

        @app.function
        async def root(ctx: kept.Context) -> None:
            side = asyncio.create_task(ctx.sleep(100))
            try:
                await asyncio.shield(asyncio.gather(ctx.call(branch, "a"), ctx.call(branch, "b")))
            finally:
                await ctx.run(log.write, "root undone")
                assert not side.done()

        place.worker(app, ttl=TTL)
        handle = await place.app(app).start(root, id="r")
        await asyncio.gather(*(_suspended(app, f"r.{n}") for n in (1, 2)))
        assert await handle.cancel()
        with pytest.raises(kept.PromiseCanceledError):
            await handle.result(5)
        names = ["a", "a0", "a1", "b", "b0", "b1", "root"]
        assert sorted(log.entries) == [f"{name} undone" for name in names]
        await nothing_is_dead(app)


async def test_code_that_cancels_a_call_waits_for_its_end() -> None:
    """The awaiting line goes on at once; the work as a whole ends when what it called has."""
    async with site() as place:
        app, log = kept.App("memory://"), Log()

        @app.function
        async def slow(ctx: kept.Context) -> None:
            try:
                await ctx.sleep(60)
            finally:
                await ctx.run(log.write, "undone")

        @app.function
        async def hurried(ctx: kept.Context) -> str:
            try:
                async with asyncio.timeout(0.05):
                    await ctx.call(slow)
            except TimeoutError:
                await ctx.run(log.write, "late")
            return "end"

        place.worker(app, ttl=TTL)
        handle = await place.app(app).start(hurried, id="h")
        assert await handle.result(5) == "end"
        assert sorted(log.entries) == ["late", "undone"]
        assert await state_of(app, "h.2") is PromiseState.REJECTED_CANCELED


async def test_jobs() -> None:
    """A coroutine is stopped; a thread cannot be, and its result counts."""
    async with site() as place:
        app, log = kept.App("memory://"), Log()
        go_on = asyncio.Event()
        loop = asyncio.get_running_loop()

        @app.function
        async def job() -> None:
            await log.hang("job")

        @app.function
        def threaded() -> str:
            loop.call_soon_threadsafe(log.reached.set)
            asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(5)
            return "done"

        worker = place.worker(app, ttl=TTL)
        handle = await place.app(app).start(job)
        await log.reached.wait()
        assert await handle.cancel("enough")
        with pytest.raises(kept.PromiseCanceledError, match="enough"):
            await handle.result(5)
        assert log.entries == ["job", "job stopped"]
        log.reached.clear()
        handle = await app.start(threaded)
        await log.reached.wait()
        assert await handle.cancel()
        await worker._beat()
        go_on.set()
        assert await handle.result(5) == "done"


async def test_force_leaves_no_time() -> None:
    """It is settled at once, with what it started; the worker stops without a clean-up."""
    async with site() as place:
        app, log = kept.App("memory://"), Log()

        @app.function
        async def child(ctx: kept.Context) -> None:
            await ctx.sleep(60)

        @app.function
        async def order(ctx: kept.Context) -> None:
            call = ctx.call(child)
            try:
                await ctx.run(log.hang, "ship")
            finally:
                await ctx.run(log.write, "refund")
            await call

        place.worker(app, ttl=TTL)
        handle = await place.app(app).start(order, id="o")
        await log.reached.wait()
        await _suspended(app, "o.1")
        assert await handle.cancel(force=True)
        assert await state_of(app, "o") is PromiseState.REJECTED_CANCELED

        async def child_is_canceled() -> bool:
            return await state_of(app, "o.1") is PromiseState.REJECTED_CANCELED

        await eventually(child_is_canceled)
        await eventually(lambda: _is(log.entries == ["ship", "ship stopped"]))


async def _is(fact: bool) -> bool:  # noqa: FBT001 - a fact to look at
    return fact


async def _crashed_at(place: Site, limit: int, *, applied: bool) -> tuple[list[str], bool]:
    """Cancels an order whose first worker breaks off at a request; what was recorded by all, and
    whether that worker broke at all."""
    app, log = kept.App("memory://"), Log()

    @app.function
    async def order(ctx: kept.Context) -> None:
        first = await ctx.run(log.write, "charge")
        try:
            await asyncio.gather(ctx.run(log.write, "pack"), ctx.promise("approval"))
        except asyncio.CancelledError:
            await ctx.run(log.write, f"refund {first}")
            await ctx.sleep(0.01)
            await ctx.run(log.write, "mail")
            raise

    broken = place.connection(limit, applied=applied)
    second = place.connection()
    place.worker(app, broken, ttl=TTL, cache=0)
    handle = await place.app(app).start(order, id=f"o{limit}{applied}")

    async def quiet_or_broken() -> bool:
        response = await second.send(r.TaskGet(handle.id))
        state = getattr(response.data, "task").state.value  # noqa: B009
        return broken.broken.is_set() or state == "suspended"

    await eventually(quiet_or_broken)
    await handle.cancel()
    if not broken.broken.is_set():
        ended = asyncio.ensure_future(handle.result(5))
        waited = asyncio.ensure_future(broken.broken.wait())
        await asyncio.wait([ended, waited], return_when=asyncio.FIRST_COMPLETED)
        for task in (ended, waited):
            task.cancel()
        await asyncio.gather(ended, waited, return_exceptions=True)
    place.worker(app, second, ttl=TTL)
    with pytest.raises(kept.PromiseCanceledError):
        await handle.result(8)
    await nothing_is_dead(app)
    broke = broken.broken.is_set()
    recorded = [*broken.recorded, *second.recorded]
    return recorded, broke


@pytest.mark.parametrize("applied", [False, True])
async def test_a_crash_at_any_request_changes_nothing(*, applied: bool) -> None:
    """Wherever the first worker breaks off: the code is canceled at one place, and whatever it had
    recorded by then it cleans up after, once."""
    for limit in range(1, 30):
        async with site() as place:
            recorded, broke = await _crashed_at(place, limit, applied=applied)
            assert len(recorded) == len(set(recorded)), recorded
            undone = [each for each in recorded if each in ("refund charge", "mail")]
            assert undone == (["refund charge", "mail"] if "charge" in recorded else [])
            if not broke:
                assert sorted(recorded) == ["charge", "mail", "pack", "refund charge"]
                assert limit > 8
                return
    raise AssertionError("it never came to an end by itself")
