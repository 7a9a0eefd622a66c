"""Whether the files of a store are still those that it opened.

What is written to a file that was removed would be acknowledged and gone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

from kept.errors import StoreFailedError
from kept.stores.sqlite.connection import identity_of

# The log, which holds the newest commits, and its index, through which processes see each other's.
LOG_SUFFIXES: Final = ("-wal", "-shm")


class Identity:
    """The database, its log and the log's index, as they were when they were opened.

    `identify` tells a file from another one at its place; it raises OSError where there is none.
    """

    def __init__(self, path: str, identify: Callable[[str], tuple[int, int]] = identity_of) -> None:
        self._path = path
        self._identify = identify
        self._database = identify(path)
        self._log: dict[str, tuple[int, int]] = {}
        self.log_opened()

    def log_opened(self) -> None:
        """A writer has the log open, which nobody may remove from now on."""
        self._log.clear()
        for suffix in LOG_SUFFIXES:
            with contextlib.suppress(OSError):
                self._log[suffix] = self._identify(f"{self._path}{suffix}")

    def log_closed(self) -> None:
        """SQLite may remove the log, and make another one for the next writer."""
        self._log.clear()

    def check(self) -> None:
        """Raises `StoreFailedError` where a file is not at its place any more."""
        if not self._is_at_its_place("", self._database):
            raise StoreFailedError(
                f"{self._path} was removed or replaced while it was open; put it back or start again"
            )
        for suffix, identity in self._log.items():
            if not self._is_at_its_place(suffix, identity):
                raise StoreFailedError(
                    f"{self._path}{suffix} was removed or replaced while it was in use; put it back, "
                    "or stop every process on the database with SIGTERM, which brings what it held "
                    "into the database, and start again"
                )

    def _is_at_its_place(self, suffix: str, identity: tuple[int, int]) -> bool:
        try:
            return self._identify(f"{self._path}{suffix}") == identity
        except OSError:
            return False
