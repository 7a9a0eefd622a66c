"""Outbox and inbox in a transaction of the caller's: they are there exactly when it commits."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import Any

import msgspec
import pytest

import kept
from kept import inbox, outbox
from kept.databases.opened import open_database
from kept.databases.statements import Dialect, Placeholders, rendered
from kept.protocol.requests import PromiseCreate
from kept.runtime import SystemRuntime
from tests.unit.databases.drivers import ON_POSTGRESQL, ON_SQLITE, Driver, RollbackError

everywhere = pytest.mark.parametrize(
    ("database", "driver_name"),
    [
        *(("sqlite", name) for name in ON_SQLITE),
        *(
            pytest.param("postgresql", name, marks=pytest.mark.xdist_group("postgresql"))
            for name in ON_POSTGRESQL
        ),
    ],
    indirect=["database"],
)


async def rows(driver: Driver, statement: str) -> list[tuple[Any, ...]]:
    """What another connection sees."""
    database = await open_database(driver.url, SystemRuntime())
    found = await database.execute(statement)
    await database.close()
    return found


@everywhere
async def test_a_job_is_written_with_the_rest(driver: Driver, driver_name: str) -> None:
    """It commits with what is beside it, and is rolled back with it."""
    with contextlib.suppress(RollbackError):
        async with driver.transaction() as connection:
            await driver.execute(connection, "INSERT INTO orders VALUES (1)")
            await driver.enqueue(connection, "pack", args={"order": 1})
            raise RollbackError
    async with driver.transaction() as connection:
        await driver.execute(connection, "INSERT INTO orders VALUES (2)")
        id = await driver.enqueue(connection, "pack@2", args={"order": 2}, order="a", queue="q")
    assert await rows(driver, "SELECT number FROM orders") == [(2,)]
    [(found, order, job)] = await rows(driver, "SELECT id, ordering_key, job FROM kept_outbox")
    assert (found, order) == (id, "a")
    create = msgspec.json.decode(job, type=PromiseCreate)
    assert create.id == id
    assert create.param.data == '{"args":[],"kwargs":{"order":2}}'
    assert create.tags == {"resonate:target": "queue://q", "kept:function": "pack@2"}


@everywhere
async def test_the_same_id_is_the_same_job(driver: Driver, driver_name: str) -> None:
    """The first one stands, also within one transaction."""
    async with driver.transaction() as connection:
        for order in (1, 2):
            args = {"order": order}
            assert await driver.enqueue(connection, "pack", args=args, id="pack-7") == "pack-7"
    [(job,)] = await rows(driver, "SELECT job FROM kept_outbox")
    assert '\\"order\\":1' in job


@everywhere
async def test_without_a_transaction_it_is_refused(driver: Driver, driver_name: str) -> None:
    """A connection that commits by itself would start the job whatever becomes of the rest."""
    async with driver.bare() as connection:
        with pytest.raises(kept.ConfigurationError, match="no transaction"):
            await driver.enqueue(connection, "pack")
        with pytest.raises(kept.ConfigurationError, match="no transaction"):
            await driver.mark(connection, "event-1")
    assert await rows(driver, "SELECT number FROM kept_outbox") == []


@everywhere
async def test_an_event_is_new_once(driver: Driver, driver_name: str) -> None:
    """For each consumer, unless the transaction that marked it is rolled back."""
    with contextlib.suppress(RollbackError):
        async with driver.transaction() as connection:
            assert await driver.mark(connection, "event-1")
            raise RollbackError
    for new in (True, False):
        async with driver.transaction() as connection:
            assert await driver.mark(connection, "event-1") is new
            assert await driver.mark(connection, "event-1", consumer="mail") is new
            assert not await driver.mark(connection, "event-1")


@pytest.mark.xdist_group("postgresql")
@pytest.mark.parametrize(
    ("database", "driver_name"),
    [("postgresql", "asyncpg"), ("postgresql", "psycopg async")],
    indirect=["database"],
)
async def test_of_two_at_once_one_is_told_that_it_is_new(driver: Driver, driver_name: str) -> None:
    """The other waits for what becomes of it."""

    async def mark_and_end(*, first_fails: bool) -> bool:
        async with driver.transaction() as other:
            with contextlib.suppress(RollbackError):
                async with driver.transaction() as connection:
                    assert await driver.mark(connection, f"event-{first_fails}")
                    marking = asyncio.ensure_future(driver.mark(other, f"event-{first_fails}"))
                    done, _ = await asyncio.wait((marking,), timeout=0.1)
                    assert not done
                    if first_fails:
                        raise RollbackError
            return await marking

    assert await mark_and_end(first_fails=False) is False
    assert await mark_and_end(first_fails=True) is True


@everywhere
async def test_old_events_are_forgotten(driver: Driver, driver_name: str) -> None:
    """As many at a time as is said; young ones stay."""
    async with driver.transaction() as connection:
        for number in range(5):
            await driver.mark(connection, f"event-{number}")
        await driver.execute(
            connection, "UPDATE kept_inbox SET handled_at = 1 WHERE event_id > 'event-1'"
        )
    counts = []
    for _ in range(3):
        async with driver.transaction() as connection:
            counts.append(await driver.clean(connection, timedelta(days=1), limit=2))
    assert counts == [2, 1, 0]
    left = await rows(driver, "SELECT event_id FROM kept_inbox ORDER BY event_id")
    assert left == [("event-0",), ("event-1",)]


@pytest.mark.parametrize(
    ("database", "driver_name"), [("sqlite", "sqlite3")], indirect=["database"]
)
async def test_what_could_never_be_started_is_refused(driver: Driver, driver_name: str) -> None:
    """In the caller's transaction, where it can still be told."""
    app = kept.App("memory://")

    @app.function
    async def pack(order: int) -> None: ...

    async with driver.transaction() as connection:
        for wrong in (
            lambda: outbox.enqueue(connection, pack, args={"parcel": 1}),
            lambda: outbox.enqueue(connection, pack, args={"order": 1}, id=7),  # type: ignore[arg-type]
            lambda: outbox.enqueue(connection, "pack", queue="a b"),
            lambda: outbox.enqueue(connection, "pack", delay=-1),
        ):
            with pytest.raises(kept.InvalidArgumentsError):
                wrong()
        for options in ({"id": ""}, {"order": ""}, {"id": "x" * 2000}):
            with pytest.raises(kept.BadRequestError):
                outbox.enqueue(connection, "pack", **options)
        with pytest.raises(kept.BadRequestError):
            outbox.enqueue(connection, "pack", args={"text": "x" * 2_000_000})
        with pytest.raises(TypeError, match="JSON"):
            outbox.enqueue(connection, "pack", args={"order": object()})
        with pytest.raises(kept.BadRequestError):
            inbox.mark(connection, "")
    assert await rows(driver, "SELECT number FROM kept_outbox") == []


def test_what_is_no_connection_is_told() -> None:
    """With what is one, and with the functions for the other kind."""
    for wrong in (object(), "sqlite:///shop.db", None):
        with pytest.raises(kept.ConfigurationError, match="sqlite3"):
            outbox.enqueue(wrong, "pack")
    for url in ("mysql://host/name", "sqlite://", "shop.db"):
        with pytest.raises(kept.ConfigurationError):
            outbox.Relay(url, kept.App("memory://"))
    with pytest.raises(kept.ConfigurationError, match="mysql"):
        outbox.statements("mysql")
    assert [len(inbox.statements(dialect)) for dialect in Dialect] == [2, 2]


def test_statements_are_written_for_each_driver() -> None:
    """Values are numbered from 1 where they have numbers."""
    made = {style: rendered("a = ? AND b = ?", style) for style in Placeholders}
    assert made == {
        Placeholders.QUESTION: "a = ? AND b = ?",
        Placeholders.FORMAT: "a = %s AND b = %s",
        Placeholders.DOLLAR: "a = $1 AND b = $2",
        Placeholders.NAMED: "a = :v1 AND b = :v2",
    }
