"""The relay: moves the jobs of an outbox into kept, each exactly once, by its id.

A row is deleted after kept has answered, so whatever a crash cuts off is sent again, and creating a
promise of the same id again changes nothing. Rows of one order are sent one after the other. A row
for a queue that is full holds back those of its order and of that queue until the next pass, and no
others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, NamedTuple

import msgspec

from kept.client.connection import Connection
from kept.databases.opened import Database, check_url, open_database
from kept.errors import ConfigurationError, ConnectionFailedError, RequestError, error_for
from kept.outbox import tables
from kept.protocol import tags as tag
from kept.protocol.requests import PromiseCreate
from kept.protocol.responses import (
    BAD_REQUEST,
    CONFLICT,
    SHED,
    TOO_LARGE,
    UNPROCESSABLE,
    PromiseResult,
    Response,
)
from kept.runtime import Runtime
from kept.sdk.announcing import Routes
from kept.sdk.app import App
from kept.sdk.starting import is_work_of

log = logging.getLogger("kept.outbox")

DEFAULT_BATCH: Final = 200
MAX_BATCH: Final = 1_000
MAX_BATCH_CHARACTERS: Final = 16 * 1_048_576
DEFAULT_INTERVAL_SECONDS: Final = 0.2
FIRST_BACKOFF_SECONDS: Final = 0.2
LONGEST_BACKOFF_SECONDS: Final = 30.0
# Orders and queues that one pass may leave behind before it begins anew.
MAX_BLOCKED: Final = 10_000
MAX_REASON_CHARACTERS: Final = 1_000
_JITTER_BYTES: Final = 4
# Answers that no repetition changes.
_FOR_GOOD: Final = frozenset({BAD_REQUEST, CONFLICT, TOO_LARGE, UNPROCESSABLE})

Opens = Callable[[], Awaitable[Database]]


class Passed(NamedTuple):
    """What a pass over the outbox came to: jobs that were moved, that were refused for good, and that
    have to be tried again."""

    moved: int = 0
    refused: int = 0
    left: int = 0


class _Row(NamedTuple):
    number: int
    id: str
    order: str | None
    job: str


class _Batch(NamedTuple):
    """What became of a batch: row numbers to delete, those refused and why, and how many are left."""

    moved: list[int]
    refused: list[tuple[int, str]]
    left: list[int]


class _Blocked:
    """What a pass has left behind: orders, and targets that are full."""

    def __init__(self) -> None:
        self.orders: set[str] = set()
        self.targets: set[str] = set()

    def __len__(self) -> int:
        return len(self.orders) + len(self.targets)


class Mover:
    """Passes over one outbox, on a database that it opens when it needs it."""

    def __init__(
        self, opens: Opens, connection: Connection, runtime: Runtime, queue: str, batch: int
    ) -> None:
        if not 1 <= batch <= MAX_BATCH:
            raise ConfigurationError(f"batch: must be from 1 to {MAX_BATCH}")
        self._opens = opens
        self._connection = connection
        self._routes = Routes(connection, runtime)
        self._queue = queue
        self._batch = batch
        self._database: Database | None = None

    async def close(self) -> None:
        """Closes the database; idempotent."""
        database, self._database = self._database, None
        if database is not None:
            await database.close()

    async def run(self) -> Passed:
        """One pass over everything that waits. Raises what the driver raises, and where kept cannot
        be reached or starts nothing `ConnectionFailedError` or `RequestError`; the next one goes on."""
        try:
            if self._database is None:
                self._database = await self._opens()
            return await self._passed(self._database)
        except BaseException:
            # It may be what is broken.
            await self.close()
            raise

    async def _passed(self, database: Database) -> Passed:
        after, total, blocked = 0, Passed(), _Blocked()
        # What comes while it runs is for the next pass, which begins with what is left here.
        [(last,)] = await database.execute(tables.LAST_WAITING)
        while last is not None and len(blocked) <= MAX_BLOCKED:
            bounds = (after, last, self._batch, MAX_BATCH_CHARACTERS)
            found = await database.execute(tables.WAITING, bounds)
            rows = [_Row(*row) for row in found]  # type: ignore[arg-type]
            if not rows:
                break
            after = rows[-1].number
            batch = _Batch([], [], [])
            try:
                await self._send(rows, blocked, batch)
            finally:
                # What was answered is done, whatever became of the others.
                await _store(database, batch)
            total = Passed(
                total.moved + len(batch.moved),
                total.refused + len(batch.refused),
                total.left + len(batch.left),
            )
        return total

    async def _send(self, rows: list[_Row], blocked: _Blocked, batch: _Batch) -> None:
        lines: dict[str | int, list[_Row]] = {}
        for row in rows:
            lines.setdefault(row.number if row.order is None else row.order, []).append(row)
        sending = [self._send_line(line, blocked, batch) for line in lines.values()]
        problems = await asyncio.gather(*sending, return_exceptions=True)
        for problem in problems:
            if problem is not None:
                raise problem

    async def _send_line(self, line: list[_Row], blocked: _Blocked, batch: _Batch) -> None:
        """Rows of one order, one after the other, until one has to be tried again."""
        for position, row in enumerate(line):
            if row.order in blocked.orders or not await self._send_row(row, blocked, batch):
                if row.order is not None:
                    blocked.orders.add(row.order)
                batch.left.extend(each.number for each in line[position:])
                return

    async def _send_row(self, row: _Row, blocked: _Blocked, batch: _Batch) -> bool:
        """Whether it is decided what becomes of it."""
        try:
            create = msgspec.json.decode(row.job, type=PromiseCreate)
        except (msgspec.DecodeError, ValueError) as error:
            batch.refused.append((row.number, f"cannot be read: {error}"))
            return True
        reference = create.tags.get(tag.FUNCTION, "")
        if tag.TARGET not in create.tags:
            queue = await self._routes.queue_of(reference)
            create.tags[tag.TARGET] = f"queue://{queue or self._queue}"
        if create.tags[tag.TARGET] in blocked.targets:
            return False
        response = await self._connection.send(create)
        if response.status == SHED:
            log.info("outbox job %s is refused for now: %s", row.id, response.data)
            blocked.targets.add(create.tags[tag.TARGET])
            return False
        reason = _refusal(response, reference)
        if reason is None:
            batch.moved.append(row.number)
        else:
            log.warning("outbox job %s is refused: %s", row.id, reason)
            batch.refused.append((row.number, reason[:MAX_REASON_CHARACTERS]))
        return True


async def _store(database: Database, batch: _Batch) -> None:
    if batch.moved:
        await database.execute(tables.delete(len(batch.moved)), batch.moved)
    for number, reason in batch.refused:
        await database.execute(tables.REFUSE, (reason, number))


def _refusal(response: Response, reference: str) -> str | None:
    """Why a job will never be started. Raises `RequestError` where kept can start none now."""
    if response.status in _FOR_GOOD:
        return f"{response.status}: {response.data}"
    if not isinstance(response.data, PromiseResult):
        raise error_for(response.status, str(response.data), response.detail)
    promise = response.data.promise
    owner = promise.tags.get(tag.FUNCTION)
    if is_work_of(owner, reference):
        return None
    return f"{promise.id} is the work of {owner or 'something else'} already"


class Relay:
    """Moves the jobs of the outbox in `database` into kept, in the background of an `async with`
    block, or by `drain`.

    `database` is `sqlite:///FILE` or `postgresql://…` (asyncpg or psycopg); `app` must be open as long
    as the relay is. It looks every `interval` seconds, and at once when `wake` is called, for at most
    `batch` rows at a time; where either side fails it waits up to 30 s. Several relays of one
    outbox do no harm, and no good.
    """

    def __init__(
        self,
        database: str,
        app: App,
        *,
        batch: int = DEFAULT_BATCH,
        interval: float = DEFAULT_INTERVAL_SECONDS,
    ) -> None:
        check_url(database)
        self._runtime = app.runtime
        self._interval = interval
        self._app = app
        self._database = database
        self._batch = batch
        self._woken = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Relay:
        """Raises `ConfigurationError` where the app is not open."""
        self._running = self._runtime.spawn(self._run(self._mover()), "kept-outbox-relay")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    def _mover(self) -> Mover:
        def opens() -> Awaitable[Database]:
            return open_database(self._database, self._runtime)

        app = self._app
        return Mover(opens, app.connection, self._runtime, app.queue, self._batch)

    def wake(self) -> None:
        """Lets it look at once: for whoever has just committed."""
        self._woken.set()

    async def drain(self) -> Passed:
        """One pass over all that waits. Raises what the driver raises, and `ConnectionFailedError`."""
        mover = self._mover()
        try:
            return await mover.run()
        finally:
            await mover.close()

    async def _run(self, mover: Mover) -> None:
        failures = 0
        try:
            while True:
                self._woken.clear()
                if await self._passed_well(mover):
                    failures = 0
                    await self._rest(self._interval)
                else:
                    failures += 1
                    # Whoever wakes it must not take the pause from what is overloaded.
                    await self._runtime.sleep(self._backoff(failures))
        finally:
            await mover.close()

    async def _passed_well(self, mover: Mover) -> bool:
        """Whether nothing is left that has to be tried again."""
        try:
            return (await mover.run()).left == 0
        except (ConnectionFailedError, RequestError) as error:
            log.warning("the outbox cannot be relayed, trying again: %s", error)
        except Exception as error:  # noqa: BLE001 - drivers have no common root
            kind = type(error).__name__
            log.warning("the outbox cannot be relayed, trying again: %s: %s", kind, error)
        return False

    async def _rest(self, seconds: float) -> None:
        """Until it is woken, at most so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass

    def _backoff(self, failures: int) -> float:
        ceiling = min(FIRST_BACKOFF_SECONDS * 2.0 ** min(failures - 1, 16), LONGEST_BACKOFF_SECONDS)
        draw = int.from_bytes(self._runtime.entropy(_JITTER_BYTES), "big") / 256**_JITTER_BYTES
        return ceiling * (0.5 + draw / 2)
