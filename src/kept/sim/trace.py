"""The trace of a run: every event, in order, as one hash and the last lines in words."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

KEPT_LINES: Final = 400


class Trace:
    """What happened. `now` gives virtual seconds. The hash covers every line from the first."""

    def __init__(self, now: Callable[[], float], kept_lines: int = KEPT_LINES) -> None:
        self._now = now
        self._hash = hashlib.sha256()
        self.lines: deque[str] = deque(maxlen=kept_lines)
        self.counts: Counter[str] = Counter()

    def note(self, what: str, who: str, text: str = "", body: bytes = b"") -> None:
        """One event: its kind, whose it is, the rest in words; `body` is hashed, and not shown."""
        line = f"{self._now():.6f} {what} {who} {text}"
        self._hash.update(b"%b%b\n" % (line.encode(), body))
        self.lines.append(line)
        self.counts[what] += 1

    @property
    def events(self) -> int:
        return self.counts.total()

    def digest(self) -> str:
        """The SHA-256 of everything so far, in hex."""
        return self._hash.hexdigest()
