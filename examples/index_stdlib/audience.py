"""What the demo shows while it runs, and what it has seen in the end."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

BAR_WIDTH = 32


class Audience:
    """Reads the log of what workers did: which steps ran, where, and which ran twice."""

    def __init__(self, log: Path, expected: int) -> None:
        self._log = log
        self._position = 0
        self._rest = b""
        self.expected = expected
        self.begun: Counter[str] = Counter()
        self.ended: set[str] = set()
        # The workers that began a step, in order.
        self.begun_by: dict[str, list[int]] = {}

    def look(self) -> None:
        """Reads what was noted since the last look."""
        if not self._log.exists():
            return
        with self._log.open("rb") as log:
            log.seek(self._position)
            fresh = log.read()
        self._position += len(fresh)
        *lines, self._rest = (self._rest + fresh).split(b"\n")
        for line in lines:
            event, worker, name = line.decode().split(" ", 2)
            if event == "begin":
                self.begun[name] += 1
                self.begun_by.setdefault(name, []).append(int(worker))
            else:
                self.ended.add(name)

    def ran_twice(self) -> list[str]:
        """Steps that began more than once."""
        return [name for name, times in self.begun.items() if times > 1]

    def unexplained(self, killed: set[int]) -> list[str]:
        """Steps that were begun again although no earlier run of them was killed."""
        return [
            name
            for name, workers in self.begun_by.items()
            if any(worker not in killed for worker in workers[:-1])
        ]

    def draw(self, note: str = "") -> None:
        """The progress bar; on a terminal in place, elsewhere only the notes."""
        done = len(self.ended)
        if sys.stdout.isatty():
            filled = BAR_WIDTH * done // max(self.expected, 1)
            bar = "█" * filled + "░" * (BAR_WIDTH - filled)
            if note:
                print(f"\r\x1b[K{note}")
            print(f"\r\x1b[K  {bar}  {done}/{self.expected} files", end="", flush=True)
        elif note:
            print(f"{note}  ({done}/{self.expected} files)", flush=True)
