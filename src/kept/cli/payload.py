"""Params and values on the command line (protocol A9): in as text, out as something readable."""

from __future__ import annotations

import argparse
import base64
import binascii
import sys
from pathlib import Path

import msgspec

from kept.cli.failure import UsageError
from kept.protocol.codec import encode_json
from kept.protocol.limits import MAX_PAYLOAD_BYTES
from kept.protocol.records import EMPTY, Value
from kept.sdk.payload import FORMAT, FORMAT_HEADER


def add_payload(parser: argparse.ArgumentParser, name: str) -> None:
    """The options `--param` or `--value`, and `--raw`."""
    parser.add_argument(
        f"--{name}",
        metavar="TEXT",
        help="JSON, or any text, which then is a JSON string; @FILE reads a file, - standard input",
    )
    parser.add_argument("--raw", action="store_true", help=f"send the --{name} as it is, unwrapped")


def payload(text: str | None, *, raw: bool) -> Value:
    """The payload that an option's text means. Raises `UsageError` for what cannot be read."""
    if text is None:
        return EMPTY
    content = content_of(text)
    if raw:
        return Value(data=content)
    try:
        msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError):
        content = encode_json(content).decode()
    return Value({FORMAT_HEADER: FORMAT}, content)


def readable(value: Value) -> str:
    """A payload as a person reads it: JSON as it is, base64 of text as that text."""
    if value.data is None:
        return ""
    if value.headers and FORMAT_HEADER in value.headers:
        return value.data
    try:
        return base64.b64decode(value.data, validate=True).decode() if value.data else '""'
    except (binascii.Error, ValueError):
        return value.data


def content_of(text: str) -> str:
    """What an option says: the text itself, that of a file, or standard input."""
    if text == "-":
        return _decoded(sys.stdin.buffer.read(MAX_PAYLOAD_BYTES + 1), "standard input")
    if text.startswith("@@"):
        return text[1:]
    if not text.startswith("@"):
        return text
    path = Path(text[1:])
    try:
        with path.open("rb") as file:
            return _decoded(file.read(MAX_PAYLOAD_BYTES + 1), str(path))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def _decoded(content: bytes, source: str) -> str:
    if len(content) > MAX_PAYLOAD_BYTES:
        raise UsageError(
            f"{source} is larger than {MAX_PAYLOAD_BYTES} bytes; store a reference to it instead"
        )
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{source} is not UTF-8 text; encode it, for instance as base64"
        ) from error
