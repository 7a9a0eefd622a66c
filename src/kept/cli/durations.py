"""Durations and instants as people write and read them."""

from __future__ import annotations

import argparse
import re
from typing import Final

from kept.protocol.limits import MAX_INTEGER, NEVER_MS
from kept.protocol.spoken import LONGEST_DATE_MS, UNITS_MS, spoken

_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")


def duration(text: str) -> int:
    """Milliseconds from `500ms`, `10s`, `1h30m`, `2d`; for argparse."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration; write 500ms, 10s, 1h30m, 2d")
    total = round(sum(float(number) * UNITS_MS[unit] for number, unit in parts))
    if total > MAX_INTEGER:
        raise argparse.ArgumentTypeError(f"{text!r} is too long")
    return total


def deadline(text: str) -> int | None:
    """Like `duration`, and None for `never`; for argparse."""
    return None if text == "never" else duration(text)


def instant_after(now_ms: int, length_ms: int | None) -> int:
    """The instant `length_ms` from now; the protocol's "none" for None (B6)."""
    return NEVER_MS if length_ms is None else min(now_ms + length_ms, NEVER_MS)


def relative(instant_ms: int, now_ms: int) -> str:
    """An instant as seen from now: `3m ago`, `in 2h`, `never`."""
    if instant_ms > LONGEST_DATE_MS:
        return "never"
    if instant_ms <= now_ms:
        return f"{spoken(now_ms - instant_ms)} ago"
    return f"in {spoken(instant_ms - now_ms)}"
