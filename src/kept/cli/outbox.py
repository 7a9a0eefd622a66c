"""The outbox in a database of yours: relay it into kept, and look at it.

kept outbox relay sqlite:///shop.db
kept outbox status postgresql://shop@localhost/shop
kept outbox retry sqlite:///shop.db
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from kept.cli.failure import EXIT_OK, EXIT_REFUSED
from kept.cli.output import Output
from kept.cli.session import refuse_missing_file
from kept.cli.worker import work_until_signal
from kept.databases.opened import Database, check_url, open_database
from kept.errors import KeptError, StoreFailedError
from kept.outbox import tables
from kept.outbox.relay import DEFAULT_BATCH, DEFAULT_INTERVAL_SECONDS, Relay
from kept.runtime import SystemRuntime
from kept.sdk.app import App
from kept.server.logs import configure_logs

T = TypeVar("T")
# What `status` shows of the jobs that are refused.
_SHOWN: Final = 20


def add_arguments(parser: argparse.ArgumentParser, everywhere: argparse.ArgumentParser) -> None:
    """The verbs of `kept outbox`."""
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    relay = verbs.add_parser("relay", help="move its jobs into kept", parents=[everywhere])
    relay.add_argument("--once", action="store_true", help="what waits now, instead of for ever")
    relay.add_argument(
        "--batch", type=int, default=DEFAULT_BATCH, metavar="N", help=f"rows ({DEFAULT_BATCH})"
    )
    relay.add_argument(
        "--interval",
        type=float,
        default=DEFAULT_INTERVAL_SECONDS,
        metavar="SECONDS",
        help=f"between looks ({DEFAULT_INTERVAL_SECONDS})",
    )
    relay.set_defaults(run=_relay)
    status = verbs.add_parser("status", help="how many jobs wait in it", parents=[everywhere])
    status.set_defaults(run=_status)
    retry = verbs.add_parser(
        "retry", help="try jobs again that kept has refused for good", parents=[everywhere]
    )
    retry.set_defaults(run=_retry)
    create = verbs.add_parser("create", help="create its table", parents=[everywhere])
    create.set_defaults(run=_create)
    for verb in (relay, status, retry, create):
        verb.add_argument("database", metavar="DATABASE", help="sqlite:///FILE or postgresql://…")


def _relay(arguments: argparse.Namespace) -> int:
    check_url(arguments.database)
    refuse_missing_file(arguments.url)
    app = App(arguments.url, token=arguments.token, worker=False)
    options = {"batch": arguments.batch, "interval": arguments.interval}
    relay = Relay(arguments.database, app, **options)
    if arguments.once:
        return asyncio.run(_once(app, relay, arguments))
    configure_logs()

    async def work(stop: asyncio.Event) -> None:
        async with app, relay:
            await stop.wait()

    return asyncio.run(work_until_signal(work))


async def _once(app: App, relay: Relay, arguments: argparse.Namespace) -> int:
    async with app:
        passed = await _explained(relay.drain(), arguments.database)
    output = _output(arguments)
    if output.json:
        output.document(passed._asdict())
    elif not output.quiet:
        output.line(f"{passed.moved} moved, {passed.refused} refused, {passed.left} left")
    return EXIT_REFUSED if passed.left or passed.refused else EXIT_OK


def _status(arguments: argparse.Namespace) -> int:
    async def look(database: Database) -> tuple[int, int, int | None, list[tuple[str, str]]]:
        [(waiting, refused, oldest)] = await database.execute(tables.COUNTS)
        rows = await database.execute(tables.REFUSED, (_SHOWN,))
        age = None if oldest is None else int(oldest)
        return int(waiting or 0), int(refused or 0), age, [(str(i), str(why)) for i, _, why in rows]

    output = _output(arguments)
    waiting, refused, oldest, reasons = asyncio.run(_on_database(arguments.database, look))
    if output.json:
        document = {"waiting": waiting, "refused": refused, "oldest": oldest}
        output.document({**document, "reasons": dict(reasons)})
    elif not output.quiet:
        pairs = [("waiting", str(waiting)), ("refused", str(refused))]
        if oldest is not None:
            pairs.append(("oldest", output.exact(oldest)))
        output.details([*pairs, *(("refused job", f"{id}: {why}") for id, why in reasons)])
    return EXIT_OK


def _retry(arguments: argparse.Namespace) -> int:
    async def retry(database: Database) -> int:
        return len(await database.execute(tables.RETRY))

    tried = asyncio.run(_on_database(arguments.database, retry))
    _done(arguments, f"{tried} will be tried again", {"retried": tried})
    return EXIT_OK


def _create(arguments: argparse.Namespace) -> int:
    dialect = "sqlite" if arguments.database.startswith("sqlite") else "postgresql"

    async def create(database: Database) -> None:
        for statement in tables.statements(dialect):
            await database.execute(statement)

    asyncio.run(_on_database(arguments.database, create))
    _done(arguments, f"{tables.TABLE} is there", {"created": True})
    return EXIT_OK


async def _on_database(url: str, do: Callable[[Database], Awaitable[T]]) -> T:
    async def opened() -> T:
        database = await open_database(url, SystemRuntime())
        try:
            return await do(database)
        finally:
            await database.close()

    return await _explained(opened(), url)


async def _explained(work: Awaitable[T], url: str) -> T:
    try:
        return await work
    except KeptError:
        raise
    except Exception as error:
        # Drivers have no common root.
        raise StoreFailedError(f"{url}: {error}") from error


def _output(arguments: argparse.Namespace) -> Output:
    return Output(SystemRuntime().now_ms(), json=arguments.json, quiet=arguments.quiet)


def _done(arguments: argparse.Namespace, text: str, record: dict[str, int | bool]) -> None:
    output = _output(arguments)
    if output.json:
        output.document(record)
    elif not output.quiet:
        output.line(text)
