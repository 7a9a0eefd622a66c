"""Workers over one engine in this process, and connections that break where a test says so."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import kept
from kept.client.connection import Connection
from kept.client.local import LocalConnection
from kept.engine.config import EngineConfig
from kept.engine.engine import Engine
from kept.protocol import requests as r
from kept.protocol.responses import Response
from kept.runtime import SystemRuntime
from kept.sdk.services import Services
from kept.sdk.worker import Worker
from kept.stores.open import open_store

T = TypeVar("T")

DEADLINE_SECONDS = 10.0
LOOK_SECONDS = 0.01
RUNTIME = SystemRuntime()


class BreakingConnection:
    """Passes requests on until number `limit`, counted from 1; that one and all later ones hang.

    With `applied`, the request of that number still reaches the engine, and only its answer is lost.
    `revive` lets what hangs go on: the worker behind it was a zombie all the while.
    """

    def __init__(
        self, inner: Connection, limit: int | None = None, *, applied: bool = False
    ) -> None:
        self._inner = inner
        self._limit = limit
        self._applied = applied
        self._revived = asyncio.Event()
        self.broken = asyncio.Event()
        self.sent = 0
        # The first arguments of the steps that are recorded.
        self.recorded: list[str] = []
        self.requests: Counter[str] = Counter()

    async def send(self, request: r.Request, *, request_id: str | None = None) -> Response:
        # Heartbeats and claims come at any time; only what one task sends can be numbered.
        if isinstance(request, r.TaskHeartbeat | r.TaskClaim):
            return await self._unless_broken(request, request_id)
        self.sent += 1
        self.requests[request.kind] += 1
        if self._limit is not None and self.sent >= self._limit:
            if self._applied and self.sent == self._limit:
                await self._pass(request, request_id)
            self.broken.set()
            await self._revived.wait()
        return await self._pass(request, request_id)

    async def _unless_broken(self, request: r.Request, request_id: str | None) -> Response:
        """As from a process that dies: the engine answers no request that still waits."""
        if not self.broken.is_set():
            sending = asyncio.ensure_future(self._inner.send(request, request_id=request_id))
            broken = asyncio.ensure_future(self.broken.wait())
            try:
                await asyncio.wait([sending, broken], return_when=asyncio.FIRST_COMPLETED)
                if sending.done():
                    return sending.result()
            finally:
                sending.cancel()
                broken.cancel()
        await self._revived.wait()
        return await self._inner.send(request, request_id=request_id)

    async def _pass(self, request: r.Request, request_id: str | None) -> Response:
        response = await self._inner.send(request, request_id=request_id)
        if isinstance(request, r.TaskRecordStep) and response.ok:
            arguments = json.loads(request.step.param.data or "{}")["args"]
            self.recorded.append(str(arguments[0]) if arguments else "")
        return response

    def revive(self) -> None:
        self._revived.set()

    async def close(self) -> None:
        await self._inner.close()


class Site:
    """An engine over a store of its own."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._workers: list[Worker] = []
        self._connections: list[BreakingConnection] = []

    def connection(self, limit: int | None = None, *, applied: bool = False) -> BreakingConnection:
        local = LocalConnection(self.engine, RUNTIME)
        connection = BreakingConnection(local, limit, applied=applied)
        self._connections.append(connection)
        return connection

    def app(self, app: kept.App, connection: Connection | None = None) -> kept.App:
        """The app, open, without a worker."""
        app._services = self.services(app, connection)
        app._process = os.getpid()
        return app

    def services(self, app: kept.App, connection: Connection | None = None) -> Services:
        return Services(connection or self.connection(), RUNTIME, app._registry, app.queue)

    def worker(
        self,
        app: kept.App,
        connection: Connection | None = None,
        *,
        ttl: float = 0.5,
        cache: int = 100,
        concurrency: int = 20,
    ) -> Worker:
        """A worker that runs the app's functions."""
        worker = Worker(
            self.services(app, connection),
            queues=app._queues(),
            ttl=ttl,
            cache=cache,
            concurrency=concurrency,
        )
        worker.start()
        self._workers.append(worker)
        return worker

    async def close(self) -> None:
        for connection in self._connections:
            connection.revive()
        await asyncio.gather(*(worker.stop(grace=0) for worker in self._workers))
        await self.engine.stop()


@asynccontextmanager
async def site(url: str = "memory://") -> AsyncIterator[Site]:
    """A site that is torn down in the end."""
    engine = Engine(open_store(url, RUNTIME), RUNTIME, EngineConfig())
    await engine.start()
    place = Site(engine)
    try:
        yield place
    finally:
        await place.close()


async def eventually(
    look: Callable[[], Awaitable[T | None]], deadline: float = DEADLINE_SECONDS
) -> T:
    """The first result of `look` that is not None or False; it is asked again until the deadline."""
    async with asyncio.timeout(deadline):
        while True:
            found = await look()
            if found:
                return found
            await RUNTIME.sleep(LOOK_SECONDS)
