"""A worker works on nothing for which it may have lost the lease."""

from __future__ import annotations

import asyncio

import kept
from kept.client.connection import Connection
from kept.protocol import requests as r
from kept.protocol.responses import Response
from tests.unit.sdk.site import DEADLINE_SECONDS, site


async def test_a_worker_that_hears_nothing_stops() -> None:
    """A heartbeat that hangs for longer than the lease does not keep its worker at work."""
    app = kept.App()
    started, stopped = asyncio.Event(), asyncio.Event()

    @app.function
    async def endless() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with site() as place, asyncio.timeout(DEADLINE_SECONDS):
        connection = place.connection()
        place.worker(app, connection)
        await place.app(app).start(endless)
        await started.wait()
        connection.broken.set()
        await stopped.wait()


async def test_a_run_under_a_former_version_stops() -> None:
    """A task that this worker claims again has been lost in between: only the new run goes on."""
    app = kept.App()
    runs: list[asyncio.Event] = []
    started = asyncio.Semaphore(0)

    @app.function
    async def endless() -> None:
        stopped = asyncio.Event()
        runs.append(stopped)
        started.release()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with site() as place, asyncio.timeout(DEADLINE_SECONDS):
        worker = place.worker(app, place.connection())
        handle = await place.app(app).start(endless)
        await started.acquire()
        # As after an expired lease of which this worker has not heard yet.
        await place.connection().send(r.TaskRelease(handle.id, 1))
        await started.acquire()
        await runs[0].wait()
        assert not runs[1].is_set()
        assert [lease.version for lease, _ in worker._held.values()] == [2]


class SlowHeartbeats:
    """A connection whose heartbeats are answered after some time."""

    def __init__(self, inner: Connection, seconds: float, number: int) -> None:
        self._inner = inner
        self._seconds = seconds
        self._left = number
        self.answered = asyncio.Event()

    async def send(self, request: r.Request, *, request_id: str | None = None) -> Response:
        response = await self._inner.send(request, request_id=request_id)
        if isinstance(request, r.TaskHeartbeat):
            await asyncio.sleep(self._seconds)
            self._left -= 1
            if not self._left:
                self.answered.set()
        return response

    async def close(self) -> None:
        await self._inner.close()


async def test_slow_answers_to_heartbeats_lose_no_lease() -> None:
    """They are sent from start to start: what an answer takes does not come on top of the pause."""
    app = kept.App()
    started = 0

    @app.function
    async def endless() -> None:
        nonlocal started
        started += 1
        await asyncio.Event().wait()

    async with site() as place, asyncio.timeout(DEADLINE_SECONDS):
        connection = SlowHeartbeats(place.connection(), 0.4, 4)
        worker = place.worker(app, connection, ttl=1.0)
        await place.app(app).start(endless)
        await connection.answered.wait()
        assert [lease.version for lease, _ in worker._held.values()] == [1]
        assert started == 1


class FirstRecordFails:
    """A connection over which the first record of a step finds no server."""

    def __init__(self, inner: Connection) -> None:
        self._inner = inner
        self.failed = False

    async def send(self, request: r.Request, *, request_id: str | None = None) -> Response:
        if isinstance(request, r.TaskRecordStep) and not self.failed:
            self.failed = True
            raise kept.ConnectionFailedError("cannot reach the server")
        return await self._inner.send(request, request_id=request_id)

    async def close(self) -> None:
        await self._inner.close()


async def test_work_that_was_broken_off_goes_back_at_once() -> None:
    """Once the server is back, nobody waits for the lease to expire."""
    app = kept.App()

    async def step() -> int:
        return 7

    @app.function
    async def workflow(ctx: kept.Context) -> int:
        return await ctx.run(step)

    async with site() as place, asyncio.timeout(DEADLINE_SECONDS):
        connection = FirstRecordFails(place.connection())
        place.worker(app, connection, ttl=60.0)
        handle = await place.app(app).start(workflow)
        assert await handle.result() == 7
        assert connection.failed


async def test_a_lease_that_is_lost_twice_is_stopped_once() -> None:
    """Heartbeats tell again of a lease that is lost while its work is being stopped."""
    app = kept.App()
    started, stopping, gate, ended = (asyncio.Event() for _ in range(4))

    async def slow_to_stop() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopping.set()
            await gate.wait()

    @app.function
    async def workflow(ctx: kept.Context) -> None:
        try:
            await ctx.run(slow_to_stop)
        finally:
            ended.set()

    async with site() as place, asyncio.timeout(DEADLINE_SECONDS):
        worker = place.worker(app, place.connection(), ttl=60.0)
        await place.app(app).start(workflow)
        await started.wait()
        ((lease, work),) = worker._held.values()
        worker._lose(lease, "once")
        await stopping.wait()
        worker._lose(lease, "twice")
        await asyncio.wait([work], timeout=0.05)
        gate.set()
        await asyncio.wait([work])
        assert ended.is_set()
        assert not worker._held


class LateSuspend:
    """A connection over which the first suspend comes when what it awaits has settled, and is
    answered only when `heard` says so."""

    def __init__(self, inner: Connection) -> None:
        self._inner = inner
        self.answering, self.heard = asyncio.Event(), asyncio.Event()

    async def send(self, request: r.Request, *, request_id: str | None = None) -> Response:
        if not isinstance(request, r.TaskSuspend) or self.answering.is_set():
            return await self._inner.send(request, request_id=request_id)
        (action,) = request.actions
        await self._inner.send(r.PromiseWait(action.data.awaited, 20_000))
        response = await self._inner.send(request, request_id=request_id)
        self.answering.set()
        await self.heard.wait()
        return response

    async def close(self) -> None:
        await self._inner.close()


async def test_a_lease_that_is_lost_while_it_is_suspended_is_over() -> None:
    """The task stays acquired as what it awaits has settled: told too late, its code does not go on."""
    app = kept.App()
    went_on: list[int] = []

    @app.function
    async def child() -> int:
        return 7

    @app.function
    async def workflow(ctx: kept.Context) -> int:
        result = await ctx.call(child)
        went_on.append(versions[-1])
        return result

    async with site() as place, asyncio.timeout(DEADLINE_SECONDS):
        connection = LateSuspend(place.connection())
        worker = place.worker(app, connection, ttl=60.0)
        versions = [1]
        handle = await place.app(app).start(workflow)
        await connection.answering.wait()
        lease, work = worker._held[handle.id]
        worker._lose(lease, "no heartbeat was answered for its ttl")
        connection.heard.set()
        await asyncio.wait([work])
        assert went_on == []
        # As another worker, or this one, takes it when the lease has run out.
        versions.append(2)
        await place.connection().send(r.TaskRelease(handle.id, 1))
        assert await handle.result() == 7
        assert went_on == [2]
