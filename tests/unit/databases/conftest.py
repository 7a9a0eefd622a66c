"""Databases of the tests' own: SQLite files, and a PostgreSQL server where there is one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.unit.databases import drivers
from tests.unit.databases.postgresql import PostgresqlServer, programs


@pytest.fixture(scope="session")
def postgresql(unavailable: Callable[[str], NoReturn]) -> Iterator[str]:
    """The URL of a server that lives as long as the tests."""
    found = programs()
    if found is None:
        unavailable("PostgreSQL")
    server = PostgresqlServer(found)
    try:
        server.start()
        yield server.url
    finally:
        server.stop()


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database that is empty, of the dialect that the test is run with."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'shop.db'}"
    server: str = request.getfixturevalue("postgresql")
    asyncio.run(_emptied(server))
    return server


async def _emptied(url: str) -> None:
    import asyncpg

    connection = await asyncpg.connect(url)
    await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    await connection.close()


@pytest.fixture
def driver(database: str, request: pytest.FixtureRequest) -> drivers.Driver:
    """A driver on a database with the tables of outbox and inbox."""
    driver = drivers.of_name(request.node.callspec.params["driver_name"], database)
    asyncio.run(driver.create_tables())
    return driver
