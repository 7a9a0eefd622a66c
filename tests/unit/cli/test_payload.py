"""Params and values from the command line."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from kept.cli.failure import UsageError
from kept.cli.payload import payload, readable
from kept.protocol.limits import MAX_PAYLOAD_BYTES
from kept.protocol.records import EMPTY, Value

HEADERS = {"kept-format": "1"}


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ("17", "17"),
        ("yes", '"yes"'),
        ("", '""'),
        ("@@home", '"@home"'),
        ("[" * 5_000, '"' + "[" * 5_000 + '"'),
    ],
)
def test_json_stays_and_text_becomes_json(text: str, data: str) -> None:
    """Any text is a value in our own format: JSON as it is, everything else as a JSON string."""
    assert payload(text, raw=False) == Value(HEADERS, data)


def test_raw_text_is_untouched() -> None:
    """For workers with a format of their own."""
    assert payload("eyJ9", raw=True) == Value(data="eyJ9")
    assert payload(None, raw=False) == EMPTY


def test_files_and_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`@FILE` and `-` read the text from there."""
    file = tmp_path / "value.json"
    file.write_text('{"é": 1}')
    assert payload(f"@{file}", raw=False) == Value(HEADERS, '{"é": 1}')
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"[1]")))
    assert payload("-", raw=False) == Value(HEADERS, "[1]")


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    """A file that is missing, too large or not text is an error that says which and why."""
    with pytest.raises(UsageError, match=r"cannot read .*missing"):
        payload(f"@{tmp_path}/missing", raw=False)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8"):
        payload(f"@{tmp_path}/binary", raw=False)
    (tmp_path / "large").write_bytes(b"x" * (MAX_PAYLOAD_BYTES + 1))
    with pytest.raises(UsageError, match="larger than"):
        payload(f"@{tmp_path}/large", raw=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (EMPTY, ""),
        (Value(HEADERS, "MTIz"), "MTIz"),
        (Value(data="eyJmdW5jIjogImYifQ=="), '{"func": "f"}'),
        (Value(data="not base64!"), "not base64!"),
        (Value(data="//79"), "//79"),
    ],
)
def test_values_are_readable(value: Value, text: str) -> None:
    """Our own format as it is, base64 of text as that text, everything else untouched."""
    assert readable(value) == text
