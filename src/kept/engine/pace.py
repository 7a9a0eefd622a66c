"""How fast the lanes of queues have been taken from lately, for estimates."""

from __future__ import annotations

from typing import Final

# Starts are counted by slice of time; the last whole one is looked back on too.
SLICE_MS: Final = 30_000
MAX_LANES: Final = 10_000


class _Lane:
    """Starts in the slice that began at `since` (ms), and in the one before."""

    __slots__ = ("before", "since", "starts")

    def __init__(self, since: int) -> None:
        self.since = since
        self.starts = 0
        self.before = 0

    def move_to(self, since: int) -> None:
        self.before = self.starts if since - self.since == SLICE_MS else 0
        self.starts = 0
        self.since = since


class Pace:
    """Starts by tenant, queue and lane. Of too many lanes, those known for longest are forgotten."""

    def __init__(self) -> None:
        self._lanes: dict[tuple[str, str, str | None], _Lane] = {}

    def note(self, tenant: str, queue: str, lane: str | None, now: int) -> None:
        """A task of the lane started."""
        self._lane(tenant, queue, lane, now).starts += 1

    def per_second(self, tenant: str, queue: str, lane: str | None, now: int) -> float | None:
        """How many of a lane started per second lately; None where nothing did."""
        if (tenant, queue, lane) not in self._lanes:
            return None
        known = self._lane(tenant, queue, lane, now)
        starts = known.starts + known.before
        span_ms = now - known.since + (SLICE_MS if known.before else 0)
        return starts / (max(span_ms, 1_000) / 1_000) if starts else None

    def _lane(self, tenant: str, queue: str, lane: str | None, now: int) -> _Lane:
        key = (tenant, queue, lane)
        since = now - now % SLICE_MS
        known = self._lanes.get(key)
        if known is None:
            known = self._lanes[key] = _Lane(since)
            if len(self._lanes) > MAX_LANES:
                del self._lanes[next(iter(self._lanes))]
        elif since > known.since:
            known.move_to(since)
        return known
