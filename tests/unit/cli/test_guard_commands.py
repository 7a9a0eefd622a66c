"""`kept lock`, `kept slot`, `kept guard`: what an operator sees and does."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import kept
from kept.cli.main import main
from kept.client.connect import connect
from kept.client.connection import call
from kept.protocol.guard_requests import GuardAdvance, LockAcquire, SlotAcquire
from kept.protocol.requests import Request
from kept.runtime import SystemRuntime

Command = Callable[..., tuple[int, str]]
TTL = 3_600_000


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'kept.db'}"


@pytest.fixture
def command(url: str, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command on the file, and answers its code and what it printed."""

    def run(*argv: str) -> tuple[int, str]:
        code = main(["--url", url, *argv])
        return code, capsys.readouterr().out

    return run


def ask(url: str, *requests: Request) -> None:
    """What programs have asked for before."""

    async def asked() -> None:
        connection = await connect(url, SystemRuntime())
        for request in requests:
            await call(connection, request)
        await connection.close()

    asyncio.run(asked())


def test_locks_are_listed_shown_and_taken_away(url: str, command: Command) -> None:
    """By name, with holder and fence; a released lock is free, and releasing it again exits with 1."""
    ask(url, *(LockAcquire(name, "worker-1", TTL) for name in ("a", "b1", "b2")))
    assert command("lock", "list", "--prefix", "b", "-q") == (0, "b1\nb2\n")
    code, out = command("lock", "list", "--limit", "1")
    assert (code, out.split("\t")[:2]) == (0, ["a", "worker-1"])
    code, out = command("lock", "show", "a", "--json")
    lock = json.loads(out)
    assert (lock["resource"], lock["holder"]) == ("a", "worker-1")
    assert "held" in command("lock", "show", "a")[1]
    assert command("lock", "release", "a") == (0, "a released, worker-1 had it\n")
    code, out = command("lock", "show", "a", "--json")
    assert json.loads(out) == {"resource": "a", "fence": lock["fence"]}
    assert command("lock", "release", "a") == (1, "")
    assert command("lock", "show", "unknown") == (1, "")


def test_slots_are_shown_and_taken_away(url: str, command: Command) -> None:
    """Who holds one, and that it is free afterwards."""
    ask(url, *(SlotAcquire("api", 2, holder, TTL) for holder in ("one", "two")))
    code, out = command("slot", "show", "api")
    assert code == 0
    assert out.splitlines()[:2] == ["key      api", "held     2"]
    assert "one, until" in out
    assert command("slot", "release", "api", "one") == (0, "api: one has no slot now\n")
    code, out = command("slot", "show", "api", "--json")
    assert [each["holder"] for each in json.loads(out)["holders"]] == ["two"]


def test_guards_are_listed_shown_and_forgotten(url: str, command: Command) -> None:
    """With their revision; a forgotten one is unknown."""
    ask(url, *(GuardAdvance(f"customer-{n}", n) for n in (7, 8)), GuardAdvance("other", 1))
    assert command("guard", "list", "--prefix", "customer", "-q") == (0, "customer-7\ncustomer-8\n")
    _, out = command("guard", "list")
    assert [line.split("\t")[1] for line in out.splitlines()] == ["7", "8", "1"]
    _, out = command("guard", "show", "customer-7")
    assert out.splitlines()[:2] == ["entity     customer-7", "revision   7"]
    assert command("guard", "forget", "customer-7") == (0, "customer-7 forgotten\n")
    assert command("guard", "show", "customer-7") == (1, "")
    assert command("guard", "forget", "customer-7") == (1, "")


def test_what_was_done_once_is_listed_and_shown(url: str, command: Command) -> None:
    """With its result, or that it has none yet."""

    async def work() -> None:
        def fails() -> None:
            raise ValueError

        async with kept.App(url, worker=False) as app:
            await app.once("charge-42", lambda: "receipt")
            with contextlib.suppress(ValueError):
                await app.once("charge-43", fails)

    asyncio.run(work())
    assert command("once", "list", "-q") == (0, "charge-42\ncharge-43\n")
    assert command("once", "list", "--pending", "-q") == (0, "charge-43\n")
    assert [line.split("\t")[:2] for line in command("once", "list")[1].splitlines()] == [
        ["charge-42", "resolved"],
        ["charge-43", "pending"],
    ]
    code, out = command("once", "show", "charge-42")
    assert code == 0
    assert 'result           "receipt"' in out
    _, out = command("once", "show", "charge-43")
    assert out.splitlines()[-2:] == ["running          no", "runs so far      1"]
    assert json.loads(command("once", "show", "charge-42", "--json")[1])["state"] == "resolved"
    assert command("once", "show", "unknown") == (1, "")
