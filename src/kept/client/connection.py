"""The one interface through which everything above reaches an engine."""

from __future__ import annotations

from typing import Protocol

from kept.errors import error_for
from kept.protocol.requests import Request
from kept.protocol.responses import Response


class Connection(Protocol):
    """A way to an engine. Safe to share between tasks of one event loop."""

    async def send(self, request: Request, *, request_id: str | None = None) -> Response:
        """The engine's answer, whatever its status.

        `request_id` makes a request that acts under a lease repeatable (protocol B1). Raises
        `ConnectionFailedError` when no answer came.
        """

    async def close(self) -> None:
        """Ends the connection; idempotent."""


async def call(
    connection: Connection, request: Request, *, request_id: str | None = None
) -> Response:
    """Like `send`, but raises the matching `RequestError` where the engine refused."""
    response = await connection.send(request, request_id=request_id)
    if not response.ok:
        raise error_for(response.status, str(response.data), response.detail)
    return response
