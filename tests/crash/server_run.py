"""Eight clients on a server that dies again and again, and what it comes to."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from tests.crash.judge import judge_history, judge_stored, recorder, stored
from tests.crash.load import Client, Ledger
from tests.crash.processes import Nursery
from tests.crash.receiver import Receiver
from tests.crash.record import Record
from tests.crash.server import ServerProcess

CLIENTS: Final = 8
ANSWERS_AT_THE_END: Final = 100
TOLD_LIMIT_S: Final = 45.0


class ServerRun:
    """One file, one server at a time, and its clients."""

    def __init__(self, nursery: Nursery, place: Path, seed: int, record: Record) -> None:
        place.mkdir(parents=True, exist_ok=True)
        self.database = place / "kept.db"
        self.server = ServerProcess(nursery, self.database, place / "server.log")
        self.ledger = Ledger()
        self.random = random.Random(seed)
        self.record = record
        self._place = place
        self._seed = seed
        self._working: list[asyncio.Task[None]] = []
        self._recorder = recorder(f"kills of a server, seed {seed}")

    async def play(self, kill: Callable[[ServerRun], Awaitable[str]], times: int) -> None:
        """Lets `kill` end the server so many times (it answers what to count), then judges."""
        receiver = Receiver()
        await receiver.open()
        try:
            clients = [self._client(n, receiver) for n in range(CLIENTS)]
            self._working = [asyncio.create_task(client.run()) for client in clients]
            for _ in range(times):
                self.record.kills[await kill(self)] += 1
            if self.server.process is None:
                await self.server.start()
            await self.answered(ANSWERS_AT_THE_END)
            for client in clients:
                client.stopping = True
            await asyncio.gather(*self._working)
            async with asyncio.timeout(TOLD_LIMIT_S):
                await receiver.heard(self.ledger.listened)
            assert await self.server.stop() == 0
        finally:
            self.server.end()
            for task in self._working:
                task.cancel()
            await asyncio.gather(*self._working, return_exceptions=True)
            await receiver.close()
        await self._judge()

    def _client(self, number: int, receiver: Receiver) -> Client:
        seed = self._seed * 1_000 + number
        return Client(f"c{number}", self.server.url, seed, self.ledger, self._recorder, receiver)

    async def answered(self, count: int) -> None:
        """Returns after `count` more answers; a client that failed fails the run at once."""
        target = self.ledger.acknowledged + count
        while self.ledger.acknowledged < target:
            self.ledger.answered.clear()
            answered = asyncio.create_task(self.ledger.answered.wait())
            await self.unless_failed(answered)

    async def died(self) -> None:
        """Returns when the server has killed itself; a client that failed fails the run at once."""
        await self.unless_failed(asyncio.create_task(self.server.died()))

    async def unless_failed(self, awaited: asyncio.Task[None]) -> None:
        """Awaits something; a client that failed fails the run at once."""
        try:
            await asyncio.wait({awaited, *self._working}, return_when=asyncio.FIRST_COMPLETED)
            for each in self._working:
                if each.done():
                    each.result()
            if awaited.done():
                awaited.result()
        finally:
            awaited.cancel()
            await asyncio.wait({awaited})

    async def _judge(self) -> None:
        ledger, record = self.ledger, self.record
        judge_stored(ledger, await stored(self.database), record)
        record.acknowledged += ledger.acknowledged
        record.unknown_outcomes += ledger.unknown
        record.messages_told += len(ledger.listened)
        judge_history(self._recorder.history(), record, self._place)
