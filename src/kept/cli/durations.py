"""Durations and instants as people write and read them."""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime
from typing import Final

from kept.protocol.limits import MAX_INTEGER, NEVER_MS

_UNITS_MS: Final = {
    "ms": 1,
    "s": 1_000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_LONGEST_DATE_MS: Final = 253_402_300_799_000


def duration(text: str) -> int:
    """Milliseconds from `500ms`, `10s`, `1h30m`, `2d`; for argparse."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration; write 500ms, 10s, 1h30m, 2d")
    total = round(sum(float(number) * _UNITS_MS[unit] for number, unit in parts))
    if total > MAX_INTEGER:
        raise argparse.ArgumentTypeError(f"{text!r} is too long")
    return total


def deadline(text: str) -> int | None:
    """Like `duration`, and None for `never`; for argparse."""
    return None if text == "never" else duration(text)


def instant_after(now_ms: int, length_ms: int | None) -> int:
    """The instant `length_ms` from now; the protocol's "none" for None (B6)."""
    return NEVER_MS if length_ms is None else min(now_ms + length_ms, NEVER_MS)


def spoken(length_ms: int) -> str:
    """A duration in its two largest units: `3m 20s`."""
    if length_ms < 0:
        return f"-{spoken(-length_ms)}"
    if length_ms < 1_000:
        return f"{length_ms}ms"
    if length_ms < 10_000:
        return f"{length_ms / 1_000:.1f}s"
    units = [(unit, size) for unit, size in reversed(_UNITS_MS.items()) if unit not in ("ms", "w")]
    for position, (unit, size) in enumerate(units):
        if length_ms >= size:
            count, rest = divmod(length_ms, size)
            text = f"{count}{unit}"
            if position + 1 < len(units):
                next_unit, next_size = units[position + 1]
                if rest >= next_size:
                    text += f" {rest // next_size}{next_unit}"
            return text
    raise AssertionError("a second is the smallest unit here")


def timestamp(instant_ms: int) -> str:
    """An instant in ISO 8601, UTC, to the millisecond; `never` for the protocol's "none"."""
    if instant_ms > _LONGEST_DATE_MS:
        return "never"
    seconds, rest = divmod(instant_ms, 1_000)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:03d}Z"


def relative(instant_ms: int, now_ms: int) -> str:
    """An instant as seen from now: `3m ago`, `in 2h`, `never`."""
    if instant_ms > _LONGEST_DATE_MS:
        return "never"
    if instant_ms <= now_ms:
        return f"{spoken(now_ms - instant_ms)} ago"
    return f"in {spoken(instant_ms - now_ms)}"
