"""Databases that are opened here, by a URL, each statement in a transaction of its own."""

from __future__ import annotations

import sqlite3
import threading
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from kept.databases.sessions import AsyncpgSession, AsyncPsycopgSession, AsyncSession, SqliteSession
from kept.databases.statements import Row, Values
from kept.errors import ConfigurationError
from kept.runtime import Runtime

# How long a writer waits for another's transaction on a SQLite file.
BUSY_SECONDS: Final = 5.0
# A server that does not answer must not hold a statement for ever.
STATEMENT_SECONDS: Final = 60.0
_POSTGRESQL: Final = ("postgresql", "postgres")


class Database(Protocol):
    """A database of somebody's, open."""

    async def execute(self, statement: str, values: Values = ()) -> list[Row]:
        """Runs a statement and commits it; its rows. Raises what the driver raises."""

    async def close(self) -> None:
        """Ends the connection; idempotent."""


def check_url(url: str) -> None:
    """Raises `ConfigurationError` for a URL that `open_database` cannot open."""
    scheme = urlsplit(url).scheme.partition("+")[0]
    if scheme == "sqlite":
        _path_of(url)
    elif scheme in _POSTGRESQL:
        if find_spec("asyncpg") is None and find_spec("psycopg") is None:
            raise ConfigurationError(
                "PostgreSQL needs a driver: pip install 'kept[postgres]', or psycopg"
            )
    else:
        raise ConfigurationError(
            f"database {url!r}: use sqlite:///FILE or postgresql://USER@HOST/NAME"
        )


async def open_database(url: str, runtime: Runtime) -> Database:
    """Opens `sqlite:///FILE`, or `postgresql://…` with asyncpg or psycopg, whichever is there.

    A driver that the scheme names, as SQLAlchemy's URLs do, is not looked at. Raises
    `ConfigurationError` for other URLs, and what the driver raises where it cannot connect.
    """
    check_url(url)
    scheme, _, rest = url.partition("://")
    if scheme.partition("+")[0] == "sqlite":
        path = _path_of(url)
        return await runtime.run_code(lambda: _SqliteDatabase(path, runtime))
    address = f"postgresql://{rest}"
    if find_spec("asyncpg") is not None:
        connection: Any = await import_module("asyncpg").connect(
            address, command_timeout=STATEMENT_SECONDS
        )
        return _PostgresqlDatabase(AsyncpgSession(connection), connection)
    psycopg = import_module("psycopg")
    import_module("psycopg.rows")
    connection = await psycopg.AsyncConnection.connect(address, autocommit=True)
    return _PostgresqlDatabase(AsyncPsycopgSession(connection), connection)


def _path_of(url: str) -> str:
    rest = url.partition("://")[2].partition("?")[0]
    if len(rest) < 2 or not rest.startswith("/"):
        raise ConfigurationError(
            f"database {url!r}: a path follows the third slash, as in sqlite:///app.db or "
            "sqlite:////var/lib/app.db"
        )
    return rest[1:]


class _SqliteDatabase:
    """A connection of its own, used in threads, one statement at a time."""

    def __init__(self, path: str, runtime: Runtime) -> None:
        self._runtime = runtime
        # What is not there is a mistake in the URL: an outbox is made by the program that writes it.
        self._connection = sqlite3.connect(
            f"{_file_uri(path)}?mode=rw",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        self._session = SqliteSession(self._connection)
        # A statement that nobody waits for any more still runs when the next one comes.
        self._turn = threading.Lock()

    async def execute(self, statement: str, values: Values = ()) -> list[Row]:
        def run() -> list[Row]:
            with self._turn:
                return self._session.execute(statement, values)

        return await self._runtime.run_code(run)

    async def close(self) -> None:
        def run() -> None:
            with self._turn:
                self._connection.close()

        await self._runtime.run_code(run)


def _file_uri(path: str) -> str:
    from pathlib import Path

    return Path(path).absolute().as_uri()


class _PostgresqlDatabase:
    def __init__(self, session: AsyncSession, connection: Any) -> None:
        self._session = session
        self._connection = connection

    async def execute(self, statement: str, values: Values = ()) -> list[Row]:
        return await self._session.execute(statement, values)

    async def close(self) -> None:
        await self._connection.close()
