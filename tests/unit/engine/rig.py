"""An engine over a store in memory that a test can watch, hold up and let fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from kept.check.monitor import Monitor
from kept.engine.config import EngineConfig
from kept.engine.engine import Engine
from kept.errors import StoreFailedError
from kept.protocol import requests as r
from kept.protocol.records import MessageKind, OutboxEntry, Promise, Task
from kept.protocol.responses import INTERNAL, ClaimResult, Response
from kept.protocol.storage import DEFAULT_TENANT, Changes, Loaded, Notice, Reads
from kept.runtime import SystemRuntime
from kept.stores.base import Store, Transaction
from kept.stores.memory import MemoryStore
from kept.transports.base import DeliveryFailedError, Transport

ResultT = TypeVar("ResultT")
LIMIT_S = 10.0


class ShiftedRuntime(SystemRuntime):
    """The real world, with a wall clock that a test sets forward and back."""

    def __init__(self) -> None:
        super().__init__()
        self.shift_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.shift_ms


class WatchedStore(MemoryStore):
    """Counts looks for due work and for messages; commits wait for `gate`, and fail with `failure`."""

    def __init__(self, runtime: SystemRuntime | None = None) -> None:
        super().__init__(runtime or SystemRuntime())
        self.looks = 0
        self.message_looks = 0
        self.commits = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        async with super().transaction() as transaction:
            yield _WatchedTransaction(self, transaction)

    async def next_due(self) -> int | None:
        # Every look begins with it.
        self.looks += 1
        return await super().next_due()

    async def scan_outbox(
        self, now: int, limit: int, channels: Collection[str]
    ) -> list[tuple[str, OutboxEntry, Promise]]:
        self.message_looks += 1
        return await super().scan_outbox(now, limit, channels)

    def fail(self) -> None:
        self.failure = StoreFailedError("the disk is full")

    def task(self, id: str) -> Task:
        return self.tables[DEFAULT_TENANT].tasks[id]


class _WatchedTransaction:
    def __init__(self, store: WatchedStore, transaction: Transaction) -> None:
        self.clock_floor = transaction.clock_floor
        self._store = store
        self._transaction = transaction

    async def load(self, tenant: str, reads: Reads, now: int) -> Loaded:
        return await self._transaction.load(tenant, reads, now)

    async def save(self, tenant: str, changes: Changes) -> None:
        await self._transaction.save(tenant, changes)

    async def commit(self, batch_id: str, now: int, notice: Notice) -> None:
        await self._store.gate.wait()
        if self._store.failure is not None:
            raise self._store.failure
        await self._transaction.commit(batch_id, now, notice)
        self._store.commits += 1


class ScriptedTransport:
    """Keeps what it delivers; `refusals` deliveries fail first; `open` says what is reachable."""

    schemes = frozenset({"http", "https", "poll"})

    def __init__(self, *channels: str) -> None:
        self.open = list(channels)
        self.delivered: list[tuple[str, bytes]] = []
        self.refusals = 0
        self.asked: list[str] = []
        self.closed = False

    def channels(self) -> list[str]:
        return self.open

    def reachable(self, address: str, tenant: str) -> bool:
        return True

    async def deliver(self, address: str, message: bytes, tenant: str, kind: MessageKind) -> None:
        self.asked.append(address)
        if self.refusals:
            self.refusals -= 1
            raise DeliveryFailedError("refused")
        self.delivered.append((address, message))

    async def close(self) -> None:
        self.closed = True


@asynccontextmanager
async def running(
    store: Store,
    *,
    transports: Sequence[Transport] = (),
    watched: bool = True,
    runtime: SystemRuntime | None = None,
    broken: bool = False,
    **config: Any,
) -> AsyncIterator[Engine]:
    """A started engine, stopped at the end. Unless `broken`, nothing may have failed inside, which
    is how a property that the monitor found false shows. The monitor starts from an empty store."""
    monitor = Monitor(whole_every=100) if watched else None
    engine = Engine(
        store, runtime or SystemRuntime(), EngineConfig(**config), transports, observer=monitor
    )
    await engine.start()
    try:
        yield engine
        if monitor is not None:
            monitor.compare(await store.dump(DEFAULT_TENANT))
    finally:
        await engine.stop()
    failed = [key for key in engine.statistics.requests if key[1] == INTERNAL]
    assert broken or not failed, failed


async def ok(engine: Engine, request: r.Request, kind: type[ResultT], **head: Any) -> ResultT:
    """The data of a request that must succeed."""
    response = await engine.submit(request, r.RequestHead(**head))
    assert response.status == 200, response
    assert isinstance(response.data, kind), response
    return response.data


async def eventually(check: Callable[[], bool], *, within: float = LIMIT_S) -> None:
    """Returns once `check` holds; fails after `within` seconds."""
    async with asyncio.timeout(within):
        while not check():  # noqa: ASYNC110 - whatever it is, nobody signals it
            await asyncio.sleep(0)


async def turns(count: int = 50) -> None:
    """Lets everybody else run for some turns of the loop."""
    for _ in range(count):
        await asyncio.sleep(0)


def started(engine: Engine, request: r.Request) -> asyncio.Task[Response]:
    """A request that is asked beside the test."""
    return asyncio.get_running_loop().create_task(engine.submit(request))


def beside(work: Coroutine[Any, Any, ResultT]) -> asyncio.Task[ResultT]:
    return asyncio.get_running_loop().create_task(work)


def waiting_claim(*queues: str, wait: int = 30_000, limit: int = 1, **fields: Any) -> r.TaskClaim:
    defaults: dict[str, Any] = {"pid": "w", "ttl": 60_000}
    return r.TaskClaim(queues=list(queues), wait=wait, limit=limit, **{**defaults, **fields})


def claimed(response: Response) -> list[str]:
    """Ids of the tasks in the answer to a claim."""
    assert isinstance(response.data, ClaimResult), response
    return [each.task.id for each in response.data.tasks]
