"""Ranges of an index: all texts that begin alike lie between two."""

from __future__ import annotations

from typing import Final

_LAST_CHARACTER: Final = 0x10FFFF
_SURROGATES: Final = range(0xD800, 0xE000)


def text_after(prefix: str) -> str | None:
    """The first text that comes after all those with this prefix; None where there is no end."""
    for position in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[position]) + 1
        if code in _SURROGATES:
            code = _SURROGATES.stop
        if code <= _LAST_CHARACTER:
            return prefix[:position] + chr(code)
    return None
