"""Durations and instants as people read them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

UNITS_MS: Final = {
    "ms": 1,
    "s": 1_000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
}
LONGEST_DATE_MS: Final = 253_402_300_799_000


def spoken(length_ms: int) -> str:
    """A duration in its two largest units: `3m 20s`."""
    if length_ms < 0:
        return f"-{spoken(-length_ms)}"
    if length_ms < 1_000:
        return f"{length_ms}ms"
    if length_ms < 10_000:
        return f"{length_ms / 1_000:.1f}s"
    units = [(unit, size) for unit, size in reversed(UNITS_MS.items()) if unit not in ("ms", "w")]
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
    if instant_ms > LONGEST_DATE_MS:
        return "never"
    seconds, rest = divmod(instant_ms, 1_000)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:03d}Z"
