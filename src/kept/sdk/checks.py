"""Checks of what a caller says: an error at the call, with the name of the option in it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, TypeAlias, get_args

from kept.errors import InvalidArgumentsError
from kept.protocol.limits import MAX_ID_BYTES, MAX_INTEGER
from kept.protocol.texts import id_problem
from kept.sdk import payload

Span: TypeAlias = timedelta | float


def name(option: str, value: Any, limit: int = MAX_ID_BYTES) -> str:
    """A text of at most `limit` bytes that can be stored. Raises `InvalidArgumentsError`, as all of
    these do."""
    if not isinstance(value, str) or not value:
        raise InvalidArgumentsError(f"{option}: must be a text that is not empty, not {value!r}")
    if problem := id_problem(value, option, limit):
        raise InvalidArgumentsError(problem)
    return value


def choice(name: str, value: Any, choices: Any) -> str:
    """One of the texts of a `Literal`."""
    allowed = get_args(choices)
    if value not in allowed:
        raise InvalidArgumentsError(f"{name}: must be one of {', '.join(allowed)}, not {value!r}")
    return str(value)


def whole(name: str, value: Any, low: int, high: int) -> int:
    """A whole number of a range."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidArgumentsError(
            f"{name}: must be a whole number from {low} to {high}, not {value!r}"
        )
    return value


def seconds(name: str, span: Any) -> float:
    """The length of a timedelta or a number of seconds."""
    try:
        return payload.as_seconds(span)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentsError(f"{name}: {error}") from None


def milliseconds(name: str, span: Any) -> int:
    """The same in ms, and not longer than can be stored."""
    length = seconds(name, span) * 1_000
    if length > MAX_INTEGER:
        raise InvalidArgumentsError(f"{name}: {span!r} is too long")
    return int(length)


def instant(name: str, moment: Any) -> int:
    """The instant (ms since the epoch) of a datetime that says its time zone."""
    if not isinstance(moment, datetime):
        raise InvalidArgumentsError(f"{name}: must be a datetime, not {moment!r}")
    if moment.utcoffset() is None:
        raise InvalidArgumentsError(
            f"{name}: {moment} has no time zone; write datetime.now(UTC) or {moment}+00:00"
        )
    return max(0, int(moment.timestamp() * 1_000))
