"""One client of one server on a disk that fails: what it was answered, and what must be there again."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from kept.client.http import HttpConnection
from kept.client.retry import NO_RETRY
from kept.protocol import requests as r
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import PromiseRecord, PromiseState, Value
from kept.protocol.responses import PromiseResult, Response
from kept.runtime import SystemRuntime
from tests.crash.judge import stored
from tests.crash.processes import Nursery
from tests.crash.server import ServerProcess

RUNTIME: Final = SystemRuntime()
LOOK_S: Final = 0.05
# What one promise carries: enough that a small disk fills soon.
PAYLOAD: Final = "x" * 20_000
MAX_PROMISES: Final = 2_000


class Shop:
    """Creates promises one after another, and remembers those that it was told are stored."""

    def __init__(self, nursery: Nursery, database: Path, log: Path) -> None:
        self.database = database
        self.server = ServerProcess(nursery, database, log)
        self.acknowledged: dict[str, PromiseRecord] = {}
        self._numbers = itertools.count(1)
        self.connection = HttpConnection(self.server.url, RUNTIME, retry=NO_RETRY)

    @property
    def newest(self) -> str:
        """The id of the promise that was acknowledged last."""
        return next(reversed(self.acknowledged))

    async def create(self) -> Response:
        """One more promise; what the server answered."""
        id = f"p-{next(self._numbers)}"
        response = await self.connection.send(r.PromiseCreate(id, NEVER_MS, Value(data=PAYLOAD)))
        self._take(response)
        return response

    async def settle(self, id: str) -> Response:
        """Resolves a promise; what the server answered."""
        settle = r.PromiseSettle(id, PromiseState.RESOLVED, Value(data=f"the result of {id}"))
        response = await self.connection.send(settle)
        self._take(response)
        return response

    def _take(self, response: Response) -> None:
        if response.ok:
            assert isinstance(response.data, PromiseResult)
            self.acknowledged[response.data.promise.id] = response.data.promise

    async def fill(self, promises: int) -> None:
        """So many promises, every other one settled."""
        for number in range(promises):
            assert (await self.create()).ok
            if number % 2:
                assert (await self.settle(self.newest)).ok

    async def refused(self) -> Response:
        """Creates promises until the server refuses one; its answer."""
        for _ in range(MAX_PROMISES):
            response = await self.create()
            if not response.ok:
                return response
        raise AssertionError("the server never refused")

    async def goes_on(self) -> None:
        """Waits until the server stores again."""
        while not (await self.create()).ok:
            await RUNTIME.sleep(LOOK_S)

    async def can_read(self) -> bool:
        """Whether what was stored can be read now."""
        id = next(iter(self.acknowledged))
        response = await self.connection.send(r.PromiseGet(id))
        return isinstance(response.data, PromiseResult) and (
            response.data.promise == self.acknowledged[id]
        )

    async def judge(self, database: Path | None = None) -> None:
        """Everything that was acknowledged is in the file, as it was answered."""
        dump = await stored(database or self.database)
        for id, record in self.acknowledged.items():
            assert dump.promises[id].record() == record, id


@asynccontextmanager
async def shop(nursery: Nursery, database: Path, log: Path) -> AsyncIterator[Shop]:
    """A shop with its server; both end with the test."""
    found = Shop(nursery, database, log)
    try:
        yield found
    finally:
        await found.connection.close()
        found.server.end()
