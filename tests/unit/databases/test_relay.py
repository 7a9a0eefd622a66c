"""The relay of an outbox: each job once, in order, whatever fails on the way."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import kept
from kept import outbox
from kept.client.connection import Connection, call
from kept.client.local import LocalConnection
from kept.client.retry import NO_RETRY
from kept.databases import opened
from kept.databases.opened import Database, open_database
from kept.databases.statements import Row, Values
from kept.errors import ConnectionFailedError
from kept.outbox import relay
from kept.outbox.relay import Mover
from kept.protocol import requests as r
from kept.protocol.responses import PromisePage, Response
from tests.unit.databases.drivers import Asyncpg, Psycopg
from tests.unit.sdk.site import RUNTIME, Site, eventually, site


@pytest.fixture
def url(tmp_path: Path) -> str:
    """An outbox in a SQLite file."""
    path = tmp_path / "shop.db"
    with contextlib.closing(sqlite3.connect(path)) as shop, shop:
        shop.execute("PRAGMA journal_mode = WAL")
        outbox.create_table(shop)
    return f"sqlite:///{path}"


@contextlib.contextmanager
def writing(url: str) -> Iterator[sqlite3.Connection]:
    """A transaction of the program that writes the outbox."""
    path = url.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(path)) as shop, shop:
        yield shop


def left(url: str) -> list[tuple[Any, ...]]:
    """The rows that are in the outbox, with why they are refused."""
    with writing(url) as shop:
        return shop.execute("SELECT id, refused FROM kept_outbox ORDER BY number").fetchall()


class Watched:
    """A connection that notes what is created, and fails where a test says so."""

    def __init__(self, place: Site) -> None:
        self._inner: Connection = LocalConnection(place.engine, RUNTIME, retry=NO_RETRY)
        self.created: list[str] = []
        self.refused_queues: set[str] = set()
        self.fails_at: int | None = None

    async def send(self, request: r.Request, *, request_id: str | None = None) -> Response:
        if isinstance(request, r.PromiseCreate):
            if self.fails_at == len(self.created):
                raise ConnectionFailedError("cut off")
            if (
                request.tags.get("resonate:target", "").removeprefix("queue://")
                in self.refused_queues
            ):
                return Response(429, "the queue is full")
            self.created.append(request.id)
        return await self._inner.send(request, request_id=request_id)

    async def close(self) -> None:
        await self._inner.close()


class Broken:
    """A database whose connection is lost before statement number `limit`, or right after it."""

    def __init__(self, inner: Database, limit: int, *, applied: bool) -> None:
        self._inner = inner
        self._left = limit
        self._applied = applied

    async def execute(self, statement: str, values: Values = ()) -> list[Row]:
        self._left -= 1
        if self._left == 0:
            if self._applied:
                await self._inner.execute(statement, values)
            raise OSError("the database is gone")
        return await self._inner.execute(statement, values)

    async def close(self) -> None:
        await self._inner.close()


@contextlib.asynccontextmanager
async def moving(
    url: str, connection: Connection, limit: int = 0, *, applied: bool = False, batch: int = 3
) -> AsyncIterator[Mover]:
    """A relay's core, whose database breaks where `limit` says."""

    async def opens() -> Database:
        return Broken(await open_database(url, RUNTIME), limit, applied=applied)

    mover = Mover(opens, connection, RUNTIME, "default", batch)
    try:
        yield mover
    finally:
        await mover.close()


async def promises(connection: Connection) -> list[str]:
    found = (await call(connection, r.PromiseSearch(limit=1000))).data
    assert isinstance(found, PromisePage)
    return [promise.id for promise in found.promises]


async def test_jobs_are_run(url: str) -> None:
    """By registered function, by name to the queue that is announced, and only what committed."""
    app = kept.App("memory://")
    packed: list[int] = []

    @app.function(queue="parcels")
    async def pack(order: int) -> None:
        packed.append(order)

    with writing(url) as shop:
        outbox.enqueue(shop, pack, args={"order": 1})
        outbox.enqueue(shop, "pack", args={"order": 2}, queue="parcels")
    with contextlib.suppress(ValueError), writing(url) as shop:
        outbox.enqueue(shop, pack, args={"order": 3})
        raise ValueError
    async with app, outbox.Relay(url, app, interval=60) as mine, asyncio.timeout(20):

        async def announced() -> bool:
            name = await app.connection.send(kept_function("pack"))
            return name.ok

        await eventually(announced)
        with writing(url) as shop:
            id = outbox.enqueue(shop, "pack", args={"order": 4})
        mine.wake()

        async def done() -> bool:
            return len(packed) == 3

        await eventually(done)
        await app.handle(id)
    assert sorted(packed) == [1, 2, 4]
    assert left(url) == []


def kept_function(name: str) -> r.Request:
    from kept.protocol.worker_requests import FunctionGet

    return FunctionGet(name)


@pytest.mark.parametrize("applied", [False, True], ids=["before", "after"])
async def test_each_job_is_moved_once_whatever_breaks(
    url: str, tmp_path: Path, *, applied: bool
) -> None:
    """The database is lost at each statement in turn, before or after it took effect."""
    ids: list[str] = []
    async with site() as place, asyncio.timeout(40):
        for limit in range(1, 12):
            watched = Watched(place)
            with writing(url) as shop:
                written = [outbox.enqueue(shop, "pack", order="a") for _ in range(10)]
            ids += written
            async with moving(url, watched, limit, applied=applied) as mover:
                broke = False
                try:
                    await mover.run()
                except OSError:
                    broke = True
                # Asking for the last, four batches and their ends.
                assert broke is (limit <= 10)
            async with moving(url, watched) as mover:
                await mover.run()
            assert left(url) == []
            firsts = list(dict.fromkeys(watched.created))
            assert firsts == written
        assert sorted(await promises(watched)) == sorted(ids)


async def test_kept_is_lost_on_the_way(url: str) -> None:
    """At each job in turn: what was answered is done, the rest is moved next time, in order."""
    async with site() as place, asyncio.timeout(20):
        for limit in range(8):
            watched = Watched(place)
            watched.fails_at = limit
            with writing(url) as shop:
                written = [outbox.enqueue(shop, "pack", order="ab"[n % 2]) for n in range(8)]
            async with moving(url, watched) as mover:
                with pytest.raises(ConnectionFailedError):
                    await mover.run()
                assert len(left(url)) == 8 - limit
                watched.fails_at = None
                await mover.run()
            assert left(url) == []
            assert len(watched.created) == 8
            for order in range(2):
                mine = written[order::2]
                assert [id for id in watched.created if id in mine] == mine


async def test_several_relays_keep_the_order(url: str) -> None:
    """Beside each other they do some work twice, and nothing else."""
    orders: dict[str, list[str]] = defaultdict(list)
    with writing(url) as shop:
        for number in range(200):
            order = f"customer-{number % 7}"
            orders[order].append(outbox.enqueue(shop, "pack", order=order))
    async with site() as place, contextlib.AsyncExitStack() as stack, asyncio.timeout(40):
        watched = Watched(place)
        movers = [
            await stack.enter_async_context(moving(url, watched, batch=batch))
            for batch in (2, 5, 30)
        ]
        await asyncio.gather(*(mover.run() for mover in movers))
        firsts = list(dict.fromkeys(watched.created))
        assert len(await promises(watched)) == len(firsts) == 200
    for mine in orders.values():
        assert [id for id in firsts if id in mine] == mine
    assert left(url) == []


async def test_what_kept_refuses_for_good_stays(url: str) -> None:
    """With the reason; it holds up nobody, and can be tried again."""
    async with site() as place, asyncio.timeout(20):
        watched = Watched(place)
        with writing(url) as shop:
            outbox.enqueue(shop, "pack", id="taken", order="a")
            outbox.enqueue(shop, "pack", id="one", order="a", dedupe="k", args={"n": 1})
            outbox.enqueue(shop, "pack", id="two", order="a", dedupe="k", args={"n": 2})
            outbox.enqueue(shop, "pack", id="last", order="a")
            outbox.enqueue(shop, "pack", id="broken")
            shop.execute("UPDATE kept_outbox SET job = '{' WHERE id = 'broken'")
        await call(watched, r.PromiseCreate("taken", 9_000_000_000_000))
        async with moving(url, watched) as mover:
            assert await mover.run() == (2, 3, 0)
            reasons = left(url)
            assert [id for id, _ in reasons] == ["taken", "two", "broken"]
            assert "something else" in reasons[0][1]
            assert reasons[1][1].startswith("409")
            assert "read" in reasons[2][1]
            assert await mover.run() == (0, 0, 0)


async def test_a_full_queue_holds_up_no_other(url: str) -> None:
    """Its jobs, and those of their orders, wait for the next pass; it is asked once in a pass."""
    async with site() as place, asyncio.timeout(20):
        watched = Watched(place)
        watched.refused_queues = {"full"}
        with writing(url) as shop:
            for number in range(20):
                outbox.enqueue(shop, "pack", id=f"full-{number}", queue="full")
                outbox.enqueue(shop, "pack", id=f"free-{number}", queue="free")
            outbox.enqueue(shop, "pack", id="a-1", queue="full", order="a")
            outbox.enqueue(shop, "pack", id="a-2", queue="free", order="a")
        async with moving(url, watched) as mover:
            passed = await mover.run()
            assert (passed.moved, passed.refused, passed.left) == (20, 0, 22)
            assert {id for id, _ in left(url)} == {f"full-{n}" for n in range(20)} | {"a-1", "a-2"}
            watched.refused_queues = set()
            assert (await mover.run()).moved == 22
        assert watched.created[-2:] == ["a-1", "a-2"]


async def test_it_goes_on_when_the_database_is_there(url: str) -> None:
    """A relay in the background outlives a database that it cannot read."""
    with writing(url) as shop:
        id = outbox.enqueue(shop, "pack")
        shop.execute("ALTER TABLE kept_outbox RENAME TO hidden")
    async with kept.App("memory://", worker=False) as app, asyncio.timeout(20):
        mine = outbox.Relay(url, app)
        with pytest.raises(sqlite3.OperationalError):
            await mine.drain()
        async with mine:
            await asyncio.sleep(0)
            with writing(url) as shop:
                shop.execute("ALTER TABLE hidden RENAME TO kept_outbox")

            async def moved() -> bool:
                return left(url) == []

            await eventually(moved)
            await call(app.connection, r.PromiseGet(id))


async def test_a_relay_needs_an_open_app(url: str) -> None:
    """It says so at once, not in the background; and a batch that is none."""
    app = kept.App("memory://", worker=False)
    for relay_ in (outbox.Relay(url, app), outbox.Relay(url, app, batch=0)):
        with pytest.raises(kept.ConfigurationError, match="not open"):
            await relay_.__aenter__()
    async with app:
        with pytest.raises(kept.ConfigurationError, match="batch"):
            await outbox.Relay(url, app, batch=0).__aenter__()


async def test_the_outbox_may_be_in_keeps_own_file(tmp_path: Path) -> None:
    """One transaction holds the program's data and the job, in the file that kept works on."""
    url = f"sqlite:///{tmp_path / 'kept.db'}"
    app = kept.App(url)
    packed: list[int] = []

    @app.function
    async def pack(order: int) -> int:
        packed.append(order)
        return order

    async with app, asyncio.timeout(20):
        with writing(url) as shop:
            outbox.create_table(shop)
            shop.execute("CREATE TABLE orders (number INTEGER)")
        async with outbox.Relay(url, app, interval=0.02):
            for number in range(5):
                with writing(url) as shop:
                    shop.execute("INSERT INTO orders VALUES (?)", (number,))
                    id = outbox.enqueue(shop, pack, args={"order": number}, order="a")
                assert await app.run(pack, 100 + number) == 100 + number

            async def done() -> bool:
                return len(packed) == 10

            await eventually(done)
            assert await app.handle(id) == 4
    assert left(url) == []


@pytest.mark.parametrize(
    ("database", "missing"),
    [
        pytest.param("postgresql", missing, marks=pytest.mark.xdist_group("postgresql"))
        for missing in ("psycopg", "asyncpg")
    ],
    indirect=["database"],
)
async def test_relaying_from_postgresql(
    database: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With whichever driver is there."""
    monkeypatch.setattr(
        opened, "find_spec", lambda name: None if name == missing else find_spec(name)
    )
    driver = Psycopg(database)
    await driver.create_tables()
    async with kept.App("memory://", worker=False) as app, asyncio.timeout(20):
        mine = outbox.Relay(database, app, batch=3)
        async with Asyncpg(database).transaction() as connection:
            ids = [await outbox.enqueue_async(connection, "pack", order="a") for _ in range(8)]
            async with driver.transaction() as other:
                ids.append(outbox.enqueue(other, "pack"))
            assert await mine.drain() == (1, 0, 0)
        assert await mine.drain() == (8, 0, 0)
        assert sorted(await promises(app.connection)) == sorted(ids)
        assert await mine.drain() == (0, 0, 0)


async def test_large_jobs_are_read_few_at_a_time(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is bounded by its size, too, and has one job at least."""
    monkeypatch.setattr(relay, "MAX_BATCH_CHARACTERS", 2_500)
    read: list[int] = []

    class Counting(Broken):
        async def execute(self, statement: str, values: Values = ()) -> list[Row]:
            rows = await super().execute(statement, values)
            if "job" in statement:
                read.append(len(rows))
            return rows

    with writing(url) as shop:
        for size in (1_000, 1_000, 1_000, 1_000, 9_000, 10):
            outbox.enqueue(shop, "pack", args={"text": "x" * size})

    async def opens() -> Database:
        return Counting(await open_database(url, RUNTIME), 0, applied=False)

    async with site() as place, asyncio.timeout(20):
        mover = Mover(opens, Watched(place), RUNTIME, "default", 100)
        assert (await mover.run()).moved == 6
        await mover.close()
    assert read == [3, 2, 1, 0]


async def test_a_pass_ends_while_jobs_are_written(url: str) -> None:
    """What is written while it runs is for the next one."""
    async with site() as place, asyncio.timeout(20):

        class Writing(Watched):
            async def send(self, request: r.Request, *, request_id: str | None = None) -> Response:
                with writing(url) as shop:
                    outbox.enqueue(shop, "pack")
                return await super().send(request, request_id=request_id)

        with writing(url) as shop:
            outbox.enqueue(shop, "pack", queue="q")
        async with moving(url, Writing(place)) as mover:
            assert await mover.run() == (1, 0, 0)
            assert (await mover.run()).moved >= 1
