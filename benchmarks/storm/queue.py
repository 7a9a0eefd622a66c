"""The queue of the events, as an operator sees it."""

from __future__ import annotations

from benchmarks.storm.program import app
from kept.client.connection import Connection, call
from kept.protocol import requests as r
from kept.protocol.responses import QueueNumbers, QueueStatsResult


class Queue:
    """Its settings and its numbers."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def put(self, max_depth: int) -> None:
        """At that depth the server refuses more."""
        await call(self._connection, r.QueuePut(app.queue, max_depth=max_depth))

    async def stats(self) -> QueueNumbers:
        data = (await call(self._connection, r.QueueStats(app.queue))).data
        assert isinstance(data, QueueStatsResult)
        return data.stats

    async def close(self) -> None:
        await self._connection.close()
