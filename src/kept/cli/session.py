"""One command's connection, and the ways commands use it."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from kept.cli.failure import EXIT_OK, UsageError
from kept.cli.output import Output, Row
from kept.client.connect import connect
from kept.client.connection import Connection, call
from kept.client.retry import RetryPolicy
from kept.errors import ConnectionFailedError, StoreFailedError
from kept.protocol.limits import DEFAULT_SEARCH_ROWS, MAX_SEARCH_ROWS
from kept.protocol.requests import Request
from kept.protocol.responses import Result
from kept.runtime import SystemRuntime

R = TypeVar("R", bound=Result)
Command = Callable[["Session", argparse.Namespace], Awaitable[int | None]]

# A person waits: a server that restarts is worth a moment, one that is not there is not.
RETRY: Final = RetryPolicy(attempts=4, longest_seconds=0.5, longest_retry_after_seconds=5.0)


class Session:
    """An open connection and where the results go."""

    def __init__(self, connection: Connection, runtime: SystemRuntime, output: Output) -> None:
        self.connection = connection
        self.runtime = runtime
        self.output = output

    @property
    def now_ms(self) -> int:
        return self.output.now_ms

    def ago(self, length_ms: int | None) -> int | None:
        """The instant (ms) so long ago."""
        return None if length_ms is None else max(0, self.now_ms - length_ms)

    async def ask(self, request: Request, result: type[R]) -> R:
        """The answer as a `result`; raises the matching `RequestError` where the engine refused."""
        data = (await call(self.connection, request)).data
        if not isinstance(data, result):
            raise ConnectionFailedError(f"the answer to {request.kind} is not of this protocol")
        return data

    def show(self, record: Any, pairs: Sequence[tuple[str, str]]) -> None:
        """One record, in the form that was asked for."""
        if self.output.json:
            self.output.document(record)
        elif not self.output.quiet:
            self.output.details(pairs)

    def done(self, text: str, record: Any) -> None:
        """That something was done: a line for people, the record for programs."""
        if self.output.json:
            self.output.document(record)
        elif not self.output.quiet:
            self.output.line(text)

    async def listing(
        self,
        arguments: argparse.Namespace,
        pages: Callable[[int, str | None], Awaitable[tuple[Sequence[Any], str | None]]],
        header: Row,
        row: Callable[[Any], Row],
        name: Callable[[Any], str] = lambda record: record.id,
    ) -> None:
        """Pages of records up to the limit; the cursor of what remains goes to standard error.
        `name` is what is printed of each where nothing else is wanted."""
        left: int | None = None if arguments.all else arguments.limit
        cursor: str | None = arguments.cursor
        found = False
        while left is None or left > 0:
            rows = MAX_SEARCH_ROWS if left is None else min(left, MAX_SEARCH_ROWS)
            records, cursor = await pages(rows, cursor)
            if records:
                found = True
                self._print(records, header, row, name)
            if left is not None:
                left -= len(records)
            if cursor is None:
                break
        if cursor is not None:
            self.output.note(f"there is more: --cursor {cursor}, or --all")
        elif not found and self.output.terminal:
            self.output.note("nothing found")

    def _print(
        self,
        records: Sequence[Any],
        header: Row,
        row: Callable[[Any], Row],
        name: Callable[[Any], str],
    ) -> None:
        if self.output.quiet:
            for record in records:
                self.output.line(name(record))
        elif self.output.json:
            for record in records:
                self.output.document(record)
        else:
            self.output.rows(header, [row(record) for record in records])


def in_session(command: Command) -> Callable[[argparse.Namespace], int]:
    """A command that needs a connection, as one that opens it, runs, and closes it."""

    def run(arguments: argparse.Namespace) -> int:
        return asyncio.run(_in_session(command, arguments))

    return run


async def _in_session(command: Command, arguments: argparse.Namespace) -> int:
    refuse_missing_file(arguments.url)
    runtime = SystemRuntime()
    output = Output(runtime.now_ms(), json=arguments.json, quiet=arguments.quiet)
    connection = await connect(arguments.url, runtime, arguments.token, retry=RETRY)
    try:
        code = await command(Session(connection, runtime, output), arguments)
        return EXIT_OK if code is None else code
    finally:
        await connection.close()


def refuse_missing_file(url: str) -> None:
    """A look at a file that is not there must not create it: the name is probably mistyped."""
    path = url.removeprefix("sqlite:///")
    if path != url and path and not Path(path).exists():
        raise StoreFailedError(f"{url}: there is no such file; `kept serve` or an app creates it")


async def every_page(
    ask: Callable[[str | None], Awaitable[tuple[Sequence[Any], str | None]]],
) -> AsyncIterator[Any]:
    """All records of a search, page after page."""
    cursor: str | None = None
    while True:
        records, cursor = await ask(cursor)
        for record in records:
            yield record
        if cursor is None:
            return


def add_listing(parser: argparse.ArgumentParser) -> None:
    """The options of every list."""
    parser.add_argument(
        "--limit", type=_count, default=DEFAULT_SEARCH_ROWS, metavar="N", help="at most N (100)"
    )
    parser.add_argument("--cursor", metavar="CURSOR", help="where an earlier listing ended")
    parser.add_argument("--all", action="store_true", help="everything, page after page")


def tag_pairs(texts: Sequence[str]) -> dict[str, str]:
    """Tags from `NAME=TEXT` arguments."""
    tags: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"--tag {text}: write NAME=TEXT")
        tags[name] = value
    return tags


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)
