"""Workers that die again and again while orders go through them, and what it comes to."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import kept
from kept.client.connection import Connection, call
from kept.errors import NotFoundError
from kept.protocol import requests as r
from kept.protocol.records import PromiseState
from kept.protocol.storage import Dump
from kept.runtime import SystemRuntime
from kept.sdk import payload
from tests.crash import program
from tests.crash.effects import EffectLedger, judge_effects
from tests.crash.judge import stored
from tests.crash.nursery import Order
from tests.crash.processes import Nursery, Process
from tests.crash.record import Record
from tests.crash.server import ServerProcess

RUNTIME: Final = SystemRuntime()
WORKERS: Final = 3
# Orders that are under way at one time.
CUSTOMERS: Final = 6
# Short, because the work of each dead worker waits for so long.
TTL_S: Final = 0.6
LOOK_S: Final = 0.005
RESULT_LIMIT_S: Final = 60.0


class WorkerRun:
    """One file, some workers on it, directly or through a server, and customers who order."""

    def __init__(
        self,
        nursery: Nursery,
        place: Path,
        seed: int,
        record: Record,
        *,
        served: bool,
        disk: Path | None = None,
    ) -> None:
        """The file is on `disk`, if one is given; logs and effects are not."""
        place.mkdir(parents=True, exist_ok=True)
        self.database = (disk or place) / "kept.db"
        self.random = random.Random(seed)
        self.workers: list[Process] = []
        self.server = ServerProcess(nursery, self.database, place / "server.log")
        self.served = served
        self.effects = EffectLedger(place / "effects.jsonl")
        self.orders: dict[str, int] = {}
        self._nursery = nursery
        self._place = place
        self._record = record
        self._numbers = itertools.count(1)
        self._customers: list[asyncio.Task[None]] = []
        self._closing = False
        self._url = self.server.url if served else f"sqlite:///{self.database}"

    async def play(self, strike: Callable[[WorkerRun], Awaitable[str]], times: int) -> None:
        """Lets `strike` hit a worker so many times, then judges. It answers what kind
        of kill to count, "" for none."""
        try:
            if self.served:
                await self.server.start()
            async with kept.App(self._url, worker=False) as app:
                for _ in range(WORKERS):
                    self.add_worker()
                self._customers = [asyncio.create_task(self._buy(app)) for _ in range(CUSTOMERS)]
                for _ in range(times):
                    if kind := await strike(self):
                        self._record.kills[kind] += 1
                self._closing = True
                await self._unless_failed(asyncio.gather(*self._customers))
                for worker in self.workers:
                    assert await worker.stop() == 0, self.log[-3_000:]
            if self.served:
                assert await self.server.stop() == 0
        finally:
            for customer in self._customers:
                customer.cancel()
            await asyncio.gather(*self._customers, return_exceptions=True)
            for worker in self.workers:
                worker.end()
            self.server.end()
        self._judge(await stored(self.database))

    @property
    def log(self) -> str:
        """What the workers wrote to standard error."""
        path = self._place / "workers.log"
        return path.read_text() if path.exists() else ""

    def add_worker(self, *, point: str = "", passes: int = 1) -> Process:
        """One more worker, which dies at a point if one is named."""
        env = {
            "CRASH_URL": self._url,
            "CRASH_LEDGER": str(self._place / "effects.jsonl"),
            "CRASH_TTL": str(TTL_S),
            # Some keep suspended workflows in memory, some replay each time.
            "CRASH_CACHE": str(self.random.choice((0, 1_000))),
        }
        order = Order(
            argv=["worker", "tests.crash.program:app"],
            env=env,
            directory=str(self._place),
            log=str(self._place / "workers.log"),
            point=point,
            passes=passes,
        )
        worker = self._nursery.start(order)
        self.workers.append(worker)
        return worker

    async def kill_one(self) -> None:
        """SIGKILL to one of the workers; another takes its place."""
        worker = self.random.choice(self.workers)
        await worker.kill()
        self.workers.remove(worker)
        self.add_worker()

    async def freeze_one(self) -> None:
        """Stops one for longer than its leases and lets it go on: a zombie, which believes that it
        still holds what others have by now."""
        worker = self.random.choice(self.workers)
        worker.send(signal.SIGSTOP)
        await self._unless_failed(asyncio.ensure_future(RUNTIME.sleep(1.5 * TTL_S)))
        worker.send(signal.SIGCONT)

    async def die_at(self, point: str, passes: int) -> None:
        """Waits until one worker has killed itself at a point, while the others go on."""
        worker = self.add_worker(point=point, passes=passes)
        code: asyncio.Future[int] = asyncio.ensure_future(worker.ended())
        await self._unless_failed(code)
        assert code.result() == -signal.SIGKILL, self.log[-3_000:]
        self.workers.remove(worker)

    async def logged(self, text: str) -> None:
        """Returns when the workers have written such a line anew."""
        known = len(self.log)

        async def look() -> None:
            while text not in self.log[known:]:
                await RUNTIME.sleep(LOOK_S)

        await self._unless_failed(asyncio.ensure_future(look()))

    async def grown(self, effects: int) -> None:
        """Returns after about so many more effects; a customer who fails fails the run at once."""
        line = 60
        wanted = self.effects.bytes() + effects * line

        async def look() -> None:
            while self.effects.bytes() < wanted:
                await RUNTIME.sleep(LOOK_S)

        await self._unless_failed(asyncio.ensure_future(look()))

    async def _unless_failed(self, awaited: asyncio.Future[object]) -> None:
        customers = set() if self._closing else set(self._customers)
        try:
            async with asyncio.timeout(RESULT_LIMIT_S):
                await asyncio.wait({awaited, *customers}, return_when=asyncio.FIRST_COMPLETED)
            for customer in customers:
                if customer.done():
                    customer.result()
            await awaited
        except TimeoutError:
            raise AssertionError(f"no progress: {self.log[-3_000:]}") from None
        finally:
            awaited.cancel()
            await asyncio.wait({awaited})

    async def _buy(self, app: kept.App) -> None:
        while not self._closing:
            key = f"order-{next(self._numbers)}"
            approval = self.random.randint(1, 9)
            self.orders[key] = approval
            handle = await app.enqueue("order", args={"key": key}, id=key)
            await self._approve(app.connection, f"{key}.{program.APPROVAL}", approval)
            found = await handle.result(RESULT_LIMIT_S)
            assert found == program.result_of(key, approval), key

    async def _approve(self, connection: Connection, id: str, approval: int) -> None:
        """Settles the promise that the workflow waits for, as soon as it has created it."""
        settle = r.PromiseSettle(id, PromiseState.RESOLVED, payload.encode(approval))
        while True:
            try:
                await call(connection, settle)
                return
            except NotFoundError:
                await RUNTIME.sleep(4 * LOOK_S)

    def _judge(self, dump: Dump) -> None:
        """Everything is settled, nothing was given up, every effect is there under its key."""
        pending = [id for id, each in dump.promises.items() if each.state is PromiseState.PENDING]
        assert not pending, pending[:5]
        assert not dump.dead_letters, next(iter(dump.dead_letters.values()))
        record, orders = self._record, len(self.orders)
        record.workflows += orders
        keys = [each for key in self.orders for each in program.effects_of(key)]
        judge_effects(self.effects.all(), {key: program.worth(key) for key in keys}, record)
        # The first try of each stamp fails, which is no death's doing.
        record.effects_tried_again -= program.STAMPS * orders
        for key, approval in self.orders.items():
            result = payload.decode(dump.promises[key].value, int)
            assert result == program.result_of(key, approval), key
