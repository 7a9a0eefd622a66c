"""The inbox: marks an event as handled, in the consumer's own database transaction.

with database:  # a transaction of sqlite3
    if kept.inbox.mark(database, event_id):
        database.execute("UPDATE accounts …")

What it guarantees, and what not, is in docs/guards.md.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from kept.databases.sessions import AsyncSession, Session, async_session_of, session_of
from kept.databases.statements import Values, dialect_of
from kept.errors import BadRequestError, ConfigurationError
from kept.runtime import SystemRuntime

__all__ = [
    "clean",
    "clean_async",
    "create_table",
    "create_table_async",
    "mark",
    "mark_async",
    "statements",
]

# Rows that one call of `clean` removes at most.
MAX_CLEANED: Final = 10_000
_TABLE: Final = "kept_inbox"
_RUNTIME: Final = SystemRuntime()
# A row comes back only where there was none.
_MARK: Final = f"""\
INSERT INTO {_TABLE} (consumer, event_id, handled_at) VALUES (?, ?, ?)
ON CONFLICT (consumer, event_id) DO NOTHING RETURNING handled_at"""
_CLEAN: Final = f"""\
DELETE FROM {_TABLE} WHERE (consumer, event_id) IN
(SELECT consumer, event_id FROM {_TABLE} WHERE handled_at < ? ORDER BY handled_at LIMIT ?)
RETURNING handled_at"""


def mark(connection: object, event_id: str, *, consumer: str = "") -> bool:
    """Marks an event as handled by `consumer` in the transaction of `connection`; whether it is new.

    False means that a transaction which marked it has committed: do nothing. Where this transaction
    is rolled back, nothing was marked. `connection` is one of sqlite3, psycopg, SQLAlchemy (or its
    session) or Django. Raises `BadRequestError` for an empty id, and `ConfigurationError` where no
    transaction is open.
    """
    session = session_of(connection)
    return bool(session.execute(_MARK, _event(session, event_id, consumer)))


async def mark_async(connection: object, event_id: str, *, consumer: str = "") -> bool:
    """As `mark`, on a connection of asyncpg, or an async one of psycopg or SQLAlchemy (or its
    session)."""
    session = async_session_of(connection)
    return bool(await session.execute(_MARK, _event(session, event_id, consumer)))


def clean(connection: object, older_than: timedelta, *, limit: int = MAX_CLEANED) -> int:
    """Forgets events that were handled longer ago than that, at most `limit` at a time; how many.

    An event that is delivered again after that is new. The caller commits.
    """
    return len(session_of(connection).execute(_CLEAN, _age(older_than, limit)))


async def clean_async(
    connection: object, older_than: timedelta, *, limit: int = MAX_CLEANED
) -> int:
    """As `clean`, on an async connection."""
    return len(await async_session_of(connection).execute(_CLEAN, _age(older_than, limit)))


def create_table(connection: object) -> None:
    """Creates the inbox's table where it is not there yet. `statements` has the SQL."""
    session = session_of(connection)
    for statement in statements(session.dialect):
        session.execute(statement)


async def create_table_async(connection: object) -> None:
    """As `create_table`, on an async connection."""
    session = async_session_of(connection)
    for statement in statements(session.dialect):
        await session.execute(statement)


def statements(dialect: str) -> list[str]:
    """What creates the table where it is not there yet, for a migration; `dialect` is "sqlite" or
    "postgresql". Raises `ConfigurationError` for another."""
    dialect_of(dialect)
    return [
        f"CREATE TABLE IF NOT EXISTS {_TABLE} (consumer TEXT NOT NULL, event_id TEXT NOT NULL, "
        "handled_at BIGINT NOT NULL, PRIMARY KEY (consumer, event_id))",
        f"CREATE INDEX IF NOT EXISTS {_TABLE}_handled ON {_TABLE} (handled_at)",
    ]


def _event(session: Session | AsyncSession, event_id: str, consumer: str) -> Values:
    if not event_id:
        raise BadRequestError("event_id: must not be empty")
    if not session.in_transaction:
        raise ConfigurationError(
            "no transaction is open on the connection: the event would be marked whatever becomes "
            "of its effects; begin one, and do both in it"
        )
    return (consumer, event_id, _RUNTIME.now_ms())


def _age(older_than: timedelta, limit: int) -> Values:
    return (_RUNTIME.now_ms() - int(older_than.total_seconds() * 1_000), limit)
