"""What a terminal gets, and what a pipe gets."""

from __future__ import annotations

import io

import pytest

from kept.cli.output import Output, clean
from tests.unit.cli.conftest import Terminal

HEADER = ("ID", "STATE")
ROWS = [("a", "pending"), ("longer", "rejected")]


def printed(stream: io.StringIO) -> str:
    Output(0, json=False, quiet=False, stream=stream).rows(HEADER, ROWS)
    return stream.getvalue()


def test_terminal_gets_a_table_in_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    """Aligned columns, a header, and states in their colours."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    first, second, third = printed(Terminal()).splitlines()
    assert "ID      STATE" in first
    assert second.startswith("a       \033[33mpending")
    assert "\033[31mrejected\033[0m" in third


@pytest.mark.parametrize(("name", "text"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colour_can_be_refused(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR and a dumb terminal get the table without escape sequences."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv(name, text)
    assert printed(Terminal()) == "ID      STATE\na       pending\nlonger  rejected\n"


def test_pipe_gets_plain_fields() -> None:
    """One record a line, fields between tabs, no header, no colour."""
    assert printed(io.StringIO()) == "a\tpending\nlonger\trejected\n"


def test_records_cannot_steer_the_terminal() -> None:
    """Control characters are shown, not sent; and a row stays one line."""
    assert clean("\033[2Jid\n\tx\x7f\u202e") == "\\x1b[2Jid\\n\\tx\\x7f\\u202e"
    assert clean("plain é ✓") == "plain é ✓"
