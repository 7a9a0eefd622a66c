"""What goes wrong with a disk: which operation fails, and with which of SQLite's errors.

An operation is what a store does at one time: begin, load, save, commit, scan, and `other` for what
only an outage stops. Both stores of the simulation fail by what is drawn here.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

OUTAGE: Final = "outage"
FULL: Final = "full"
BUSY: Final = "busy"

BEGIN: Final = "begin"
LOAD: Final = "load"
SAVE: Final = "save"
COMMIT: Final = "commit"
SCAN: Final = "scan"
OTHER: Final = "other"

# After a commit whose outcome is unclear the disk cannot be read so often, for so long: a store gives
# up looking for the outcome after five seconds.
SHARE_OF_UNREADABLE: Final = 0.4
UNREADABLE_SECONDS: Final = (0.0, 8.0)

_ERRORS: Final = {OUTAGE: "SQLITE_IOERR", FULL: "SQLITE_FULL", BUSY: "SQLITE_BUSY"}
_STOPPED: Final = {
    OUTAGE: frozenset((BEGIN, LOAD, SAVE, COMMIT, SCAN, OTHER)),
    FULL: frozenset((SAVE, COMMIT)),
    BUSY: frozenset((BEGIN,)),
}


class StorageFaults:
    """`strikes` draws whether a fault of the mix strikes, `now` gives virtual seconds."""

    def __init__(
        self, random: Random, now: Callable[[], float], strikes: Callable[[str], bool]
    ) -> None:
        self._random = random
        self._now = now
        self._strikes = strikes
        # Virtual seconds at which each condition ends.
        self._until: dict[str, float] = {}

    def begin(self, condition: str, seconds: float) -> None:
        """From now on the disk is out of order, full, or held by another program."""
        until = self._now() + seconds
        self._until[condition] = max(until, self._until.get(condition, until))

    def end_all(self) -> None:
        """The disk is well again."""
        self._until.clear()

    def lasts(self, condition: str) -> bool:
        """Whether the disk is in this condition now."""
        return self._now() < self._until.get(condition, 0.0)

    def failing(self, operation: str) -> str | None:
        """SQLite's name of the error with which an operation fails now; None when it works."""
        for condition in self._until:
            if operation in _STOPPED[condition] and self.lasts(condition):
                return _ERRORS[condition]
        if operation != OTHER and self._strikes(f"{operation}_fails"):
            return _ERRORS[OUTAGE]
        return None

    def unclear(self) -> bool | None:
        """None: a commit reports what came of it. Otherwise it reports a failure, and this is
        whether it happened all the same."""
        if not self._strikes("commit_unclear"):
            return None
        if self._random.random() < SHARE_OF_UNREADABLE:
            self.begin(OUTAGE, self._random.uniform(*UNREADABLE_SECONDS))
        return self._random.random() < 0.5
