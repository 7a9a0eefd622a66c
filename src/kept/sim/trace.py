"""The trace of a run: every event, in order, as one hash, and the last ones, or all, in words."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable
from typing import Final, NamedTuple

KEPT_EVENTS: Final = 5_000
# Of the events that are shown, one in so many is one of the very last.
LAST_SHARE: Final = 4
FAULT: Final = "fault "
BROKEN: Final = "broken"


class Event(NamedTuple):
    """Something that happened at virtual second `at`: its kind, whose it is, the rest in words."""

    at: float
    what: str
    who: str
    text: str

    def __str__(self) -> str:
        return f"{self.at:.6f} {self.what} {self.who} {self.text}"


class Trace:
    """What happened. `now` gives virtual seconds. The hash covers every event from the first; of the
    events themselves the last `kept` are there, or all of them where that is None."""

    def __init__(self, now: Callable[[], float], kept: int | None = KEPT_EVENTS) -> None:
        self._now = now
        self._hash = hashlib.sha256()
        self.events: deque[Event] = deque(maxlen=kept)
        self.counts: Counter[str] = Counter()
        # The event that says that something broke: when and where it was noticed.
        self.broken: Event | None = None

    def note(self, what: str, who: str, text: str = "", body: bytes = b"") -> None:
        """One event; `body` is hashed, and not shown."""
        event = Event(self._now(), what, who, text)
        self._hash.update(b"%b%b\n" % (str(event).encode(), body))
        self.events.append(event)
        self.counts[what] += 1
        if what == BROKEN and self.broken is None:
            self.broken = event

    def digest(self) -> str:
        """The SHA-256 of everything so far, in hex."""
        return self._hash.hexdigest()


def telling(events: Iterable[Event], about: Collection[str], most: int) -> list[Event]:
    """Of the events at most so many: the last of those that name one of `about`, and the very last,
    which are a quarter of them, or all where nothing is named."""
    every = list(events)
    rest = most // LAST_SHARE
    named = [event for event in every[:-rest] if any(name in event.text for name in about)]
    if not named:
        return every[-most:]
    return named[rest - most :] + every[-rest:]
