"""`LocalConnection`: an engine in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kept.client.retry import REFUSED_FOR_NOW, RetryPolicy
from kept.errors import ConnectionFailedError
from kept.protocol.bounds import bounds_problem
from kept.protocol.requests import Request, RequestHead
from kept.protocol.responses import BAD_REQUEST, Response
from kept.protocol.storage import DEFAULT_TENANT
from kept.runtime import Runtime

if TYPE_CHECKING:  # a program that only speaks HTTP does not load the engine
    from kept.engine.engine import Engine


class LocalConnection:
    """A connection to `engine`, acting as `tenant` (B7). Like every connection it asks again where
    the engine says that nothing was applied (429, 503).

    Where it `owns` the engine, closing it stops the engine.
    """

    def __init__(
        self,
        engine: Engine,
        runtime: Runtime,
        tenant: str = DEFAULT_TENANT,
        *,
        owns: bool = False,
        retry: RetryPolicy | None = None,
    ) -> None:
        self._engine = engine
        self._runtime = runtime
        self._tenant = tenant
        self._owns = owns
        self._retry = retry or RetryPolicy()
        self._closed = False

    async def send(self, request: Request, *, request_id: str | None = None) -> Response:
        """The engine's answer (see `Connection.send`). What decoding would refuse is refused."""
        problem = bounds_problem(request)
        if problem is not None:
            return Response(BAD_REQUEST, problem)
        head = RequestHead(request_id=request_id)
        attempt = 1
        while not self._closed:
            response = await self._engine.submit(request, head, self._tenant)
            if response.status not in REFUSED_FOR_NOW or attempt >= self._retry.attempts:
                return response
            await self._runtime.sleep(self._retry.delay(self._runtime, attempt, None))
            attempt += 1
        raise ConnectionFailedError("the connection is closed")

    async def close(self) -> None:
        """Ends the connection, and the engine that it owns; idempotent."""
        if not self._closed:
            self._closed = True
            if self._owns:
                await self._engine.stop()
