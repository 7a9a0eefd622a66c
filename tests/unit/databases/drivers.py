"""Each driver that the outbox and the inbox know, on a database of the test's own.

What a test says once runs on all of them: calls that do not wait become coroutines here.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from kept import inbox, outbox


class RollbackError(Exception):
    """Raised in a block to roll it back."""


class Driver:
    """A driver: `transaction` opens a connection with a transaction that commits at the end of its
    block, and `bare` a connection in none. `is_async` tells which functions it is for."""

    is_async = False

    def __init__(self, url: str) -> None:
        self.url = url

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        raise NotImplementedError
        yield

    @contextlib.asynccontextmanager
    async def bare(self) -> AsyncIterator[Any]:
        raise NotImplementedError
        yield

    async def execute(self, connection: Any, statement: str) -> None:
        """What a program does beside us."""
        await self._maybe(connection.execute(statement))

    async def create_tables(self) -> None:
        async with self.transaction() as connection:
            await self._call(outbox.create_table, outbox.create_table_async, connection)
            await self._call(inbox.create_table, inbox.create_table_async, connection)
            await self.execute(connection, "CREATE TABLE IF NOT EXISTS orders (number INTEGER)")

    async def enqueue(self, connection: Any, function: Any, **options: Any) -> str:
        return str(
            await self._call(outbox.enqueue, outbox.enqueue_async, connection, function, **options)
        )

    async def mark(self, connection: Any, event: str, **options: Any) -> bool:
        return bool(await self._call(inbox.mark, inbox.mark_async, connection, event, **options))

    async def clean(self, connection: Any, *arguments: Any, **options: Any) -> int:
        return int(
            await self._call(inbox.clean, inbox.clean_async, connection, *arguments, **options)
        )

    async def _call(
        self,
        plain: Callable[..., Any],
        waiting: Callable[..., Awaitable[Any]],
        *arguments: Any,
        **options: Any,
    ) -> Any:
        if self.is_async:
            return await waiting(*arguments, **options)
        return plain(*arguments, **options)

    async def _maybe(self, result: Any) -> None:
        if self.is_async:
            await result


class Sqlite(Driver):
    """The standard library's."""

    def path(self) -> str:
        return self.url.removeprefix("sqlite:///")

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        with contextlib.closing(sqlite3.connect(self.path())) as connection, connection:
            # A factory of the program's own must not disturb us.
            connection.row_factory = sqlite3.Row
            yield connection

    @contextlib.asynccontextmanager
    async def bare(self) -> AsyncIterator[Any]:
        with contextlib.closing(sqlite3.connect(self.path(), isolation_level=None)) as connection:
            yield connection


class Psycopg(Driver):
    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        import psycopg
        from psycopg.rows import dict_row

        with psycopg.connect(self.url, row_factory=dict_row) as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def bare(self) -> AsyncIterator[Any]:
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            yield connection


class PsycopgAsync(Driver):
    is_async = True

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        import psycopg

        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def bare(self) -> AsyncIterator[Any]:
        import psycopg

        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as connection:
            yield connection


class Asyncpg(Driver):
    is_async = True

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        import asyncpg

        pool = asyncpg.create_pool(self.url, min_size=1, max_size=1)
        async with pool, pool.acquire() as connection, connection.transaction():
            yield connection

    @contextlib.asynccontextmanager
    async def bare(self) -> AsyncIterator[Any]:
        import asyncpg

        connection = await asyncpg.connect(self.url)
        try:
            yield connection
        finally:
            await connection.close()


class _Sqlalchemy(Driver):
    """SQLAlchemy with `driver`; with a session or without."""

    def __init__(self, url: str, driver: str, *, session: bool) -> None:
        super().__init__(url)
        scheme, _, rest = url.partition("://")
        self._engine_url = f"{scheme}+{driver}://{rest}"
        self._session = session

    async def execute(self, connection: Any, statement: str) -> None:
        import sqlalchemy

        await self._maybe(connection.execute(sqlalchemy.text(statement)))


class Sqlalchemy(_Sqlalchemy):
    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        import sqlalchemy
        from sqlalchemy.orm import Session

        engine = sqlalchemy.create_engine(self._engine_url)
        with contextlib.closing(_Disposed(engine)):
            opened = Session(engine) if self._session else engine.connect()
            with opened as connection, connection.begin():
                yield connection

    @contextlib.asynccontextmanager
    async def bare(self) -> AsyncIterator[Any]:
        import sqlalchemy
        from sqlalchemy.orm import Session

        engine = sqlalchemy.create_engine(self._engine_url).execution_options(
            isolation_level="AUTOCOMMIT"
        )
        opened = Session(engine) if self._session else engine.connect()
        with contextlib.closing(_Disposed(engine)), opened as connection:
            yield connection


class SqlalchemyAsync(_Sqlalchemy):
    is_async = True

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        from sqlalchemy.ext import asyncio as extension

        engine = extension.create_async_engine(self._engine_url)
        opened = extension.AsyncSession(engine) if self._session else engine.connect()
        try:
            async with opened as connection, connection.begin():
                yield connection
        finally:
            await engine.dispose()

    @contextlib.asynccontextmanager
    async def bare(self) -> AsyncIterator[Any]:
        from sqlalchemy.ext import asyncio as extension

        plain = extension.create_async_engine(self._engine_url)
        engine = plain.execution_options(isolation_level="AUTOCOMMIT")
        try:
            async with (
                extension.AsyncSession(engine) if self._session else engine.connect() as connection
            ):
                yield connection
        finally:
            await plain.dispose()


class _Disposed:
    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def close(self) -> None:
        self._engine.dispose()


class Django(Driver):
    """Django's own connections; the alias is one for each database."""

    def _alias(self) -> str:
        import os

        import django
        from django.conf import settings
        from django.db import connections
        from django.db.utils import ConnectionHandler

        # Django asks for a thread where a loop runs; tests are coroutines.
        os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
        if not settings.configured:
            settings.configure(DATABASES={}, USE_TZ=True)
            django.setup()
        if self.url.startswith("sqlite"):
            database = {"ENGINE": "django.db.backends.sqlite3", "NAME": self.url[10:]}
        else:
            user, _, rest = self.url.removeprefix("postgresql://").partition("@")
            address, _, name = rest.partition("/")
            host, _, port = address.partition(":")
            database = {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": name,
                "USER": user,
                "HOST": host,
                "PORT": port,
            }
        connections.settings[self.url] = ConnectionHandler({"default": database}).settings[
            "default"
        ]
        return self.url

    async def execute(self, connection: Any, statement: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(statement)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        from django.db import connections, transaction

        alias = self._alias()
        with contextlib.closing(connections[alias]), transaction.atomic(using=alias):
            yield connections[alias]

    @contextlib.asynccontextmanager
    async def bare(self) -> AsyncIterator[Any]:
        from django.db import connections

        with contextlib.closing(connections[self._alias()]) as connection:
            yield connection


def of_name(name: str, url: str) -> Driver:
    """The driver that a test is run with."""
    dialect = url.partition(":")[0]
    is_sqlite = dialect == "sqlite"
    synchronous, asynchronous = ("pysqlite", "aiosqlite") if is_sqlite else ("psycopg", "asyncpg")
    made: dict[str, Callable[[], Driver]] = {
        "sqlite3": lambda: Sqlite(url),
        "psycopg": lambda: Psycopg(url),
        "psycopg async": lambda: PsycopgAsync(url),
        "asyncpg": lambda: Asyncpg(url),
        "sqlalchemy": lambda: Sqlalchemy(url, synchronous, session=False),
        "sqlalchemy session": lambda: Sqlalchemy(url, synchronous, session=True),
        "sqlalchemy async": lambda: SqlalchemyAsync(url, asynchronous, session=False),
        "sqlalchemy async session": lambda: SqlalchemyAsync(url, asynchronous, session=True),
        "django": lambda: Django(url),
    }
    return made[name]()


SHARED = (
    *("sqlalchemy", "sqlalchemy session", "sqlalchemy async", "sqlalchemy async session"),
    "django",
)
ON_SQLITE = ("sqlite3", *SHARED)
ON_POSTGRESQL = ("psycopg", "psycopg async", "asyncpg", *SHARED)
