"""Writing a job into the outbox, in the caller's transaction."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import msgspec

from kept.databases.sessions import AsyncSession, Session, async_session_of, session_of
from kept.databases.statements import Values
from kept.errors import BadRequestError, ConfigurationError
from kept.outbox import tables
from kept.protocol import tags as tag
from kept.protocol.addresses import BASE_SCHEMES
from kept.protocol.texts import id_problem
from kept.protocol.validation import create_problem
from kept.runtime import SystemRuntime
from kept.sdk.audit import Audit
from kept.sdk.duplicates import Debounce, Duplicates, Singleton, SingletonMode
from kept.sdk.functions import Function
from kept.sdk.services import Target, target_of_function
from kept.sdk.starting import create_request

DEFAULT_QUEUE: Final = "default"
_RUNTIME: Final = SystemRuntime()


def enqueue(
    connection: object,
    function: Function[..., Any] | str,
    /,
    *,
    args: dict[str, Any] | None = None,
    id: str | None = None,
    order: str | None = None,
    queue: str | None = None,
    timeout: timedelta | float | None = None,
    dedupe: str | None = None,
    dedupe_window: timedelta | float | None = None,
    debounce: Debounce | None = None,
    singleton: SingletonMode | Singleton | None = None,
    audit: Audit | None = None,
) -> str:
    """Writes a job in the transaction of `connection`, and answers its id: where that commits, the
    relay starts the job, and where it is rolled back, there never was one.

    `connection` is one of sqlite3, psycopg, SQLAlchemy (or its session) or Django, in a transaction.
    `function` is a registered function, or a name, which goes to `queue`, else to the queue that
    workers announce for it. Jobs of the same `order` are started in the order in which they were
    written. All else is as for `app.enqueue`; `timeout` counts from now. The same `id` is the same
    job.

    Raises `BadRequestError` and `InvalidArgumentsError` for a job that could never be started, and
    `ConfigurationError` where no transaction is open.
    """
    session = session_of(connection)
    said = Duplicates(dedupe, dedupe_window, debounce, singleton)
    id, values = _row(session, function, args, id, order, queue, timeout, said, audit)
    session.execute(tables.INSERT, values)
    return id


async def enqueue_async(
    connection: object,
    function: Function[..., Any] | str,
    /,
    *,
    args: dict[str, Any] | None = None,
    id: str | None = None,
    order: str | None = None,
    queue: str | None = None,
    timeout: timedelta | float | None = None,
    dedupe: str | None = None,
    dedupe_window: timedelta | float | None = None,
    debounce: Debounce | None = None,
    singleton: SingletonMode | Singleton | None = None,
    audit: Audit | None = None,
) -> str:
    """As `enqueue`, on a connection of asyncpg, or an async one of psycopg or SQLAlchemy (or its
    session)."""
    session = async_session_of(connection)
    said = Duplicates(dedupe, dedupe_window, debounce, singleton)
    id, values = _row(session, function, args, id, order, queue, timeout, said, audit)
    await session.execute(tables.INSERT, values)
    return id


def create_table(connection: object) -> None:
    """Creates the outbox's table where it is not there yet. `outbox.statements` has the SQL."""
    session = session_of(connection)
    for statement in tables.statements(session.dialect):
        session.execute(statement)


async def create_table_async(connection: object) -> None:
    """As `create_table`, on an async connection."""
    session = async_session_of(connection)
    for statement in tables.statements(session.dialect):
        await session.execute(statement)


def _row(
    session: Session | AsyncSession,
    function: Function[..., Any] | str,
    args: dict[str, Any] | None,
    id: str | None,
    order: str | None,
    queue: str | None,
    timeout: timedelta | float | None,
    said: Duplicates,
    audit: Audit | None,
) -> tuple[str, Values]:
    if not session.in_transaction:
        raise ConfigurationError(
            "no transaction is open on the connection: the job would be started whatever becomes "
            "of the rest; begin one, and write both in it"
        )
    if isinstance(function, Function):
        target = target_of_function(function, queue or function.queue or DEFAULT_QUEUE)
    else:
        target = Target(function, queue or DEFAULT_QUEUE, Any, {}, None)
    kwargs = args or {}
    target.check((), kwargs)
    create = create_request(_RUNTIME, target, (), kwargs, id, timeout, said, audit)
    problem = create_problem(create, BASE_SCHEMES)
    if problem is None and order is not None:
        problem = id_problem(order, "order")
    if problem is not None:
        raise BadRequestError(problem)
    if queue is None and target.function is None:
        # The relay finds out who runs it.
        create.tags.pop(tag.TARGET)
    job = msgspec.json.encode(create).decode()
    return create.id, (create.id, order, job, _RUNTIME.now_ms())
