"""What stands behind a connection of the caller's: an adapter for each driver, chosen by its type.

Nothing is imported for it that the caller has not imported already.
"""

from __future__ import annotations

import sqlite3
import sys
from typing import Any, Final, Protocol

from kept.databases.statements import Dialect, Placeholders, Row, Values, dialect_of, rendered
from kept.errors import ConfigurationError

# What psycopg calls a connection that is in no transaction.
_PSYCOPG_IDLE: Final = 0


class Session(Protocol):
    """A connection that is used without waiting on a loop."""

    dialect: Dialect

    @property
    def in_transaction(self) -> bool:
        """Whether what is executed is undone by a rollback of the caller's."""

    def execute(self, statement: str, values: Values = ()) -> list[Row]:
        """Runs a statement; its rows."""


class AsyncSession(Protocol):
    """A connection whose statements are awaited."""

    dialect: Dialect

    @property
    def in_transaction(self) -> bool: ...

    async def execute(self, statement: str, values: Values = ()) -> list[Row]: ...


def session_of(connection: object) -> Session:
    """A connection of sqlite3, psycopg, SQLAlchemy (also a session) or Django.

    Raises `ConfigurationError` for anything else.
    """
    if isinstance(connection, sqlite3.Connection):
        return SqliteSession(connection)
    rooms = _rooms_of(connection)
    if "psycopg" in rooms and not _is_async(connection, "psycopg", "AsyncConnection"):
        return _PsycopgSession(connection)
    if "sqlalchemy" in rooms and not _is_async_sqlalchemy(connection):
        return _SqlalchemySession(connection)
    if "django" in rooms:
        return _DjangoSession(connection)
    raise _unknown(connection, "sqlite3, psycopg, SQLAlchemy or Django", "the async functions")


def async_session_of(connection: object) -> AsyncSession:
    """A connection of asyncpg, or an async one of psycopg or SQLAlchemy (also a session).

    Raises `ConfigurationError` for anything else.
    """
    rooms = _rooms_of(connection)
    if "asyncpg" in rooms:
        return AsyncpgSession(connection)
    if "psycopg" in rooms and _is_async(connection, "psycopg", "AsyncConnection"):
        return AsyncPsycopgSession(connection)
    if "sqlalchemy" in rooms and _is_async_sqlalchemy(connection):
        return _AsyncSqlalchemySession(connection)
    raise _unknown(connection, "asyncpg, psycopg or SQLAlchemy", "the functions without async")


def _rooms_of(connection: object) -> set[str]:
    """The packages that the type of a connection comes from."""
    return {kind.__module__.partition(".")[0] for kind in type(connection).__mro__}


def _is_async(connection: object, module: str, name: str) -> bool:
    return isinstance(connection, getattr(sys.modules[module], name))


def _is_async_sqlalchemy(connection: object) -> bool:
    if "sqlalchemy.ext.asyncio" not in sys.modules:
        return False
    return any(
        _is_async(connection, "sqlalchemy.ext.asyncio", name)
        for name in ("AsyncConnection", "AsyncSession", "async_scoped_session")
    )


def _unknown(connection: object, known: str, others: str) -> ConfigurationError:
    kind = f"{type(connection).__module__}.{type(connection).__qualname__}"
    return ConfigurationError(
        f"a {kind} is no connection that is known here: use one of {known}, or {others}"
    )


class SqliteSession:
    """The standard library's driver."""

    dialect = Dialect.SQLITE

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @property
    def in_transaction(self) -> bool:
        """With an isolation level, the first statement begins one (before Python 3.12: always)."""
        legacy = getattr(sqlite3, "LEGACY_TRANSACTION_CONTROL", -1)
        control = getattr(self._connection, "autocommit", legacy)
        begins = control is False or (
            control is not True and self._connection.isolation_level is not None
        )
        return self._connection.in_transaction or begins

    def execute(self, statement: str, values: Values = ()) -> list[Row]:
        cursor = self._connection.cursor()
        try:
            # The caller's own factory may make anything of a row.
            cursor.row_factory = None
            return cursor.execute(statement, tuple(values)).fetchall()
        finally:
            cursor.close()


class _PsycopgSession:
    dialect = Dialect.POSTGRESQL

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @property
    def in_transaction(self) -> bool:
        idle = self._connection.info.transaction_status == _PSYCOPG_IDLE
        return not (self._connection.autocommit and idle)

    def execute(self, statement: str, values: Values = ()) -> list[Row]:
        with self._connection.cursor(row_factory=_tuple_row()) as cursor:
            cursor.execute(rendered(statement, Placeholders.FORMAT), tuple(values))
            return list(cursor.fetchall()) if cursor.description is not None else []


class AsyncPsycopgSession(_PsycopgSession):
    """psycopg's `AsyncConnection`."""

    async def execute(self, statement: str, values: Values = ()) -> list[Row]:  # type: ignore[override]
        async with self._connection.cursor(row_factory=_tuple_row()) as cursor:
            await cursor.execute(rendered(statement, Placeholders.FORMAT), tuple(values))
            return list(await cursor.fetchall()) if cursor.description is not None else []


def _tuple_row() -> Any:
    return sys.modules["psycopg.rows"].tuple_row


class AsyncpgSession:
    """asyncpg's `Connection`, also one of a pool."""

    dialect = Dialect.POSTGRESQL

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @property
    def in_transaction(self) -> bool:
        return bool(self._connection.is_in_transaction())

    async def execute(self, statement: str, values: Values = ()) -> list[Row]:
        rows = await self._connection.fetch(rendered(statement, Placeholders.DOLLAR), *values)
        return [tuple(row) for row in rows]


class _DjangoSession:
    """`django.db.connection`, or one of `django.db.connections`."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.dialect = dialect_of(connection.vendor)

    @property
    def in_transaction(self) -> bool:
        return bool(self._connection.in_atomic_block)

    def execute(self, statement: str, values: Values = ()) -> list[Row]:
        with self._connection.cursor() as cursor:
            cursor.execute(rendered(statement, Placeholders.FORMAT), tuple(values))
            return [tuple(row) for row in cursor.fetchall()] if cursor.description else []


class _SqlalchemySession:
    """A `Connection`, or the connection that a `Session` works on."""

    def __init__(self, connection: Any) -> None:
        is_session = not hasattr(connection, "get_execution_options")
        self._connection = connection.connection() if is_session else connection
        self.dialect = dialect_of(self._connection.dialect.name)

    @property
    def in_transaction(self) -> bool:
        """The first statement begins one, unless the connection commits by itself."""
        return not _commits_by_itself(self._connection)

    def execute(self, statement: str, values: Values = ()) -> list[Row]:
        return _rows(self._connection.execute(_text(statement, values)))


class _AsyncSqlalchemySession:
    def __init__(self, connection: Any) -> None:
        self._is_session = not hasattr(connection, "get_raw_connection")
        self._connection = connection
        self._bind = connection.get_bind() if self._is_session else connection.sync_connection
        if self._bind is None:
            raise ConfigurationError("the connection is not open yet: await it first")
        self.dialect = dialect_of(self._bind.dialect.name)

    @property
    def in_transaction(self) -> bool:
        return not _commits_by_itself(self._bind)

    async def execute(self, statement: str, values: Values = ()) -> list[Row]:
        connection = self._connection
        if self._is_session:
            connection = await connection.connection()
        return _rows(await connection.execute(_text(statement, values)))


def _commits_by_itself(connection: Any) -> bool:
    """As far as SQLAlchemy tells without asking the database."""
    return bool(connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT")


def _text(statement: str, values: Values) -> Any:
    """The statement with its values: SQLAlchemy would take every number for one of 32 bits."""
    sqlalchemy: Any = sys.modules["sqlalchemy"]
    bound = [
        sqlalchemy.bindparam(
            f"v{number}", value, type_=sqlalchemy.BigInteger if isinstance(value, int) else None
        )
        for number, value in enumerate(values, start=1)
    ]
    return sqlalchemy.text(rendered(statement, Placeholders.NAMED)).bindparams(*bound)


def _rows(result: Any) -> list[Row]:
    return [tuple(row) for row in result.fetchall()] if result.returns_rows else []
