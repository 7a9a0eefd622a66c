"""What a page tells besides a history: processes, steps of the machine, what broke, and how to repeat it.

Instants are milliseconds on the clock of the history's recorder, unless something else is said.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """One incarnation of a process, until it ended (None: it did not) in some way."""

    process: str
    incarnation: int
    at: float
    until: float | None = None
    end: str = ""


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened in a process at one instant: a step of the machine, a commit."""

    at: float
    process: str
    what: str
    text: str


_WORD: Final = re.compile(r"[\w./~-]{4,}")


class Breakage(msgspec.Struct, frozen=True, kw_only=True):
    """What must be true (`oracle`) and is not, and why. `at` (seconds since the beginning of the run)
    and `process` are when and where it was noticed, `ids` the records that the oracle names. Where a
    step of the machine did it, `step` is that, and `records` what it found and made, by id, as
    `{"before": …, "after": …}`."""

    oracle: str
    why: str
    at: float
    process: str = ""
    ids: tuple[str, ...] = ()
    step: str = ""
    records: dict[str, Any] = {}

    def __str__(self) -> str:
        return f"{self.oracle}: {self.why}"

    @property
    def named(self) -> set[str]:
        """The ids that it is about, as far as that can be told: those of records, or what looks
        like one in the text."""
        if self.ids or self.records:
            return {*self.ids, *self.records}
        words = _WORD.findall(self.why)
        return {word for word in words if any(map(str.isdigit, word)) and not word.isdigit()}


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """A run. `plan` says in names and texts what it follows from, `command` repeats it, `lines` are the
    last of its trace, `left_out` counts marks that are not here."""

    breakage: Breakage | None
    command: str
    plan: list[tuple[str, str]]
    lives: list[Life]
    marks: list[Mark]
    lines: list[str]
    left_out: int = 0
