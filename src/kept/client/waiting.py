"""Requests that wait (protocol B1, B2, B5): each holds a connection, so there is a bound on how many do."""

from __future__ import annotations

from typing import Final

from kept.client.connection import Connection
from kept.protocol.records import PromiseState
from kept.protocol.requests import PromiseGet, PromiseWait
from kept.protocol.responses import PromiseResult, Response
from kept.runtime import Runtime

MAX_WAITING_PROMISES: Final = 256
MAX_WAITING_CLAIMS: Final = 64
# For locks and slots.
MAX_WAITING_IN_LINE: Final = 256
_FIRST_POLL_SECONDS: Final = 0.05
_LONGEST_POLL_SECONDS: Final = 2.0


class PromiseWaits:
    """Waits for promises beyond the bound: they look again and again instead, each less often with
    time, and share their exchanges with everything else. Ten thousand handles awaited at once
    would otherwise mean ten thousand connections."""

    def __init__(self, connection: Connection, runtime: Runtime) -> None:
        self._connection = connection
        self._runtime = runtime

    async def poll(self, request: PromiseWait) -> Response:
        """What `promise.wait` answers, at most one interval (2 s) after the settlement."""
        end = self._runtime.monotonic() + request.timeout / 1_000
        interval = _FIRST_POLL_SECONDS
        while True:
            response = await self._connection.send(PromiseGet(request.id))
            left = end - self._runtime.monotonic()
            if left <= 0 or not _is_pending(response):
                return response
            await self._runtime.sleep(min(interval, left))
            interval = min(interval * 1.5, _LONGEST_POLL_SECONDS)


def _is_pending(response: Response) -> bool:
    data = response.data
    return isinstance(data, PromiseResult) and data.promise.state is PromiseState.PENDING
