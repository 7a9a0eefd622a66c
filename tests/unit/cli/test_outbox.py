"""`kept outbox`: what an operator sees and does with the outbox in another database."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from kept import outbox
from kept.cli.main import main

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command on a file of kept's, and answers its code and what it printed."""
    url = f"sqlite:///{tmp_path / 'kept.db'}"
    (tmp_path / "kept.db").touch()

    def run(*argv: str) -> tuple[int, str, str]:
        code = main(["--url", url, *argv])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_an_outbox_is_relayed_and_shown(command: Command, tmp_path: Path) -> None:
    """Once by hand; what is refused is told with its reason, and tried again on demand."""
    path = tmp_path / "shop.db"
    with contextlib.closing(sqlite3.connect(path)) as shop, shop:
        shop.execute("PRAGMA journal_mode = WAL")
    database = f"sqlite:///{path}"
    assert command("outbox", "create", database)[:2] == (0, "kept_outbox is there\n")
    assert command("outbox", "status", database)[1].split() == ["waiting", "0", "refused", "0"]
    with contextlib.closing(sqlite3.connect(path)) as shop, shop:
        outbox.enqueue(shop, "pack", id="a")
        outbox.enqueue(shop, "other", id="b")
    assert json.loads(command("outbox", "status", database, "--json")[1])["waiting"] == 2
    assert "oldest" in command("outbox", "status", database)[1]
    command("promise", "create", "b")
    assert command("outbox", "relay", database, "--once")[:2] == (
        1,
        "1 moved, 1 refused, 0 left\n",
    )
    assert "kept:function=pack" in command("promise", "get", "a")[1]
    assert "refused job  b: b is the work" in command("outbox", "status", database)[1]
    assert command("outbox", "retry", database)[1] == "1 will be tried again\n"
    code, out, _ = command("outbox", "relay", database, "--once", "--json")
    assert (code, json.loads(out)) == (1, {"moved": 0, "refused": 1, "left": 0})


def test_what_is_wrong_with_it_is_said(command: Command, tmp_path: Path) -> None:
    """A file that is not there, one without the table, a URL of another kind."""
    code, _, errors = command("outbox", "status", f"sqlite:///{tmp_path / 'none.db'}")
    assert code != 0
    assert "none.db" in errors
    (tmp_path / "empty.db").touch()
    for verb in (["status"], ["retry"], ["relay", "--once"]):
        code, _, errors = command("outbox", *verb, f"sqlite:///{tmp_path / 'empty.db'}")
        assert code != 0
        assert "no such table" in errors
    code, _, errors = command("outbox", "relay", "mysql://host/name")
    assert code != 0
    assert "postgresql://" in errors
