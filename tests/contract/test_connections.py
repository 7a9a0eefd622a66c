"""Every way to an engine against the one contract."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from kept.client.connection import Connection
from kept.client.http import HttpConnection
from kept.client.local import LocalConnection
from kept.contract.connection_suite import ConnectionSuite
from kept.engine.config import EngineConfig
from kept.engine.engine import Engine
from kept.runtime import SystemRuntime
from kept.server.serve import ServerOptions, serve
from kept.stores.memory import MemoryStore


class TestLocalConnection(ConnectionSuite):
    """An engine in this process."""

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[Connection]:
        runtime = SystemRuntime()
        engine = Engine(MemoryStore(runtime), runtime, EngineConfig(debug=True))
        await engine.start()
        connection = LocalConnection(engine, runtime, owns=True)
        try:
            yield connection
        finally:
            await connection.close()


class TestHttpConnection(ConnectionSuite):
    """An engine behind a server."""

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[Connection]:
        runtime = SystemRuntime()
        stop = asyncio.Event()
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        options = ServerOptions(port=0, store_url="memory://", debug=True)
        serving = asyncio.ensure_future(
            serve(options, runtime, stop=stop, on_ready=ready.set_result)
        )
        await asyncio.wait((serving, ready), return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
        connection = HttpConnection(await ready, runtime)
        try:
            yield connection
        finally:
            await connection.close()
            stop.set()
            await serving
