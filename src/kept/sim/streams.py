"""Streams of server-sent events over the simulated network, as a listening worker has them open.

What the server writes arrives in order, each piece after a delay. A stream that breaks loses what is
on its way, and both ends hear of it; one that stalls goes on without anything arriving, and neither
end is told, as when a router in between forgets a connection.
"""

from __future__ import annotations

import asyncio
from collections import deque

from kept.sim.process import Process


class Stream:
    """One open stream. `server` is the process that writes it, once there is one."""

    def __init__(self, number: int, client: Process, status: asyncio.Future[int]) -> None:
        self.number = number
        self.client = client
        self.status = status
        self.server: Process | None = None
        # In the server: set when the client is gone.
        self.gone: asyncio.Future[None] | None = None
        self.ended = False
        self.stalled = False
        # Pieces arrive one after the other: the instant of the last one.
        self.arrives_at = 0.0
        self._pieces: deque[bytes] = deque()
        self._arrived = asyncio.Event()

    async def read(self) -> bytes | None:
        """The next piece; None once the stream has ended."""
        while not self._pieces:
            if self.ended:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        return self._pieces.popleft()

    def arrive(self, piece: bytes) -> None:
        """A piece reaches the client, unless the stream is broken by then."""
        if not self.ended and not self.stalled:
            self._pieces.append(piece)
            self._arrived.set()

    def opened(self, status: int) -> None:
        """The client learns whether it is let in."""
        if not self.status.done() and not self.stalled:
            self.status.set_result(status)

    def end(self) -> None:
        """The client learns that nothing more comes; idempotent."""
        self.ended = True
        self._arrived.set()
        if not self.status.done():
            self.status.set_result(0)

    def hang_up(self) -> None:
        """The server learns that the client is gone."""
        if self.gone is not None and not self.gone.done():
            self.gone.set_result(None)
