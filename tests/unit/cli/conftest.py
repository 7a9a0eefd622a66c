"""The command line in this process, over an engine on a store that lives as long as the test."""

from __future__ import annotations

import io
from collections.abc import Callable

import msgspec
import pytest

from kept.cli import session
from kept.cli.main import main
from kept.client.connection import Connection
from kept.client.local import LocalConnection
from kept.client.retry import RetryPolicy
from kept.engine.engine import Engine
from kept.runtime import Runtime, SystemRuntime
from kept.stores.memory import MemoryStore


class Ran(msgspec.Struct):
    """What a command did."""

    code: int
    out: str
    errors: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Kept = Callable[..., Ran]


@pytest.fixture
def store() -> MemoryStore:
    """What the commands of a test work on."""
    return MemoryStore(SystemRuntime())


@pytest.fixture
def kept(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Kept:
    """`kept("promise", "get", "x")` runs that command; all of a test's see the same records."""

    async def connect(
        url: str, runtime: Runtime, token: str | None, *, retry: RetryPolicy
    ) -> Connection:
        engine = Engine(store, runtime)
        await engine.start()
        return LocalConnection(engine, runtime, owns=True, retry=retry)

    monkeypatch.setattr(session, "connect", connect)

    def run(*argv: str) -> Ran:
        capsys.readouterr()
        try:
            code = main(argv)
        except SystemExit as ended:
            code = int(ended.code or 0)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True
