"""Writing a job into the outbox, in the caller's transaction."""

from __future__ import annotations

from typing import Any, Final, Unpack

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
from kept.sdk.functions import Function
from kept.sdk.services import Target, target_of_function
from kept.sdk.starting import Start, StartOptions, create_request, named_arguments, start_of

DEFAULT_QUEUE: Final = "default"
_RUNTIME: Final = SystemRuntime()


def enqueue(
    connection: object,
    function: Function[..., Any] | str,
    /,
    *,
    args: dict[str, Any] | None = None,
    order: str | None = None,
    **options: Unpack[StartOptions],
) -> str:
    """Writes a job in the transaction of `connection`, and answers its id: where that commits, the
    relay starts the job, and where it is rolled back, there never was one.

    `connection` is one of sqlite3, psycopg, SQLAlchemy (or its session) or Django, in a transaction.
    `function` is a registered function, or a name, which goes to `queue`, else to the queue that
    workers announce for it. Jobs of the same `order` are started in the order in which they were
    written. The options are those of `app.start`; `timeout` and `delay` count from now. The
    same `id` is the same job.

    Raises `BadRequestError` and `InvalidArgumentsError` for a job that could never be started, and
    `ConfigurationError` where no transaction is open.
    """
    session = session_of(connection)
    id, values = _row(session, function, args, order, start_of(options))
    session.execute(tables.INSERT, values)
    return id


async def enqueue_async(
    connection: object,
    function: Function[..., Any] | str,
    /,
    *,
    args: dict[str, Any] | None = None,
    order: str | None = None,
    **options: Unpack[StartOptions],
) -> str:
    """As `enqueue`, on a connection of asyncpg, or an async one of psycopg or SQLAlchemy (or its
    session)."""
    session = async_session_of(connection)
    id, values = _row(session, function, args, order, start_of(options))
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
    order: str | None,
    start: Start,
) -> tuple[str, Values]:
    if not session.in_transaction:
        raise ConfigurationError(
            "no transaction is open on the connection: the job would be started whatever becomes "
            "of the rest; begin one, and write both in it"
        )
    if isinstance(function, Function):
        target = target_of_function(function, function.queue or DEFAULT_QUEUE)
    else:
        target = Target(function, DEFAULT_QUEUE, Any, {}, None)
    kwargs = named_arguments(args)
    target.check((), kwargs)
    create = create_request(_RUNTIME, target, (), kwargs, start)
    problem = create_problem(create, BASE_SCHEMES)
    if problem is None and order is not None:
        problem = id_problem(order, "order")
    if problem is not None:
        raise BadRequestError(problem)
    if start.queue is None and target.function is None:
        # The relay finds out who runs it.
        create.tags.pop(tag.TARGET)
    job = msgspec.json.encode(create).decode()
    return create.id, (create.id, order, job, _RUNTIME.now_ms())
