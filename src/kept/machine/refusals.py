"""Why nothing may start: what a limit answers."""

from __future__ import annotations

from typing import Final, NamedTuple

PAUSED: Final = "paused"
CONCURRENCY: Final = "concurrency"
RATE: Final = "rate"


class Refusal(NamedTuple):
    """Why nothing may start now; `retry_at` (ms) is when time alone changes that."""

    reason: str
    retry_at: int | None = None
