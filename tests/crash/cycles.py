"""How often processes are killed: a few times in the suite, KEPT_CRASHES times on demand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

WANTED: Final = int(os.environ.get("KEPT_CRASHES", "0"))
SEED: Final = int(os.environ.get("KEPT_CRASH_SEED", "1"))
# A run has a file and a history of its own. Beyond so many kills another one begins, so that judging
# it stays fast.
KILLS_PER_RUN: Final = 20


def cycles(in_suite: int, share: float = 1.0) -> int:
    """How many kills a test makes: a fixed number, or its share of what is wanted."""
    return max(1, round(WANTED * share)) if WANTED else in_suite


def runs(kills: int) -> Iterator[int]:
    """Kills, spread over runs."""
    while kills > 0:
        yield min(kills, KILLS_PER_RUN)
        kills -= KILLS_PER_RUN


def limit_seconds(in_suite: int, share: float, per_kill: float) -> float:
    """A time limit for a test of so many kills."""
    return 50 + per_kill * cycles(in_suite, share)
