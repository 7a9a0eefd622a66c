"""What the engine counts about itself; whoever shows metrics reads it."""

from __future__ import annotations

from collections import Counter
from typing import Final

from kept.engine.counting import WorkCounts
from kept.engine.histogram import Histogram

COMMIT_BUCKETS_SECONDS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
)  # fmt: skip
COMMIT_SIZES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500)


class Statistics:
    """Counters since the start; plain numbers, cheap to raise."""

    def __init__(self) -> None:
        # By (kind, status).
        self.requests: Counter[tuple[str, int]] = Counter()
        self.batches = 0
        self.batch_requests = 0
        self.failed_batches = 0
        self.background_steps = 0
        self.commit_seconds = Histogram(COMMIT_BUCKETS_SECONDS)
        # Requests and background steps of a commit.
        self.commit_sizes = Histogram(COMMIT_SIZES)
        self.work = WorkCounts()
        self.queued = 0
        self.waiting = 0
        self.wakeups = 0
        self.messages_sent = 0
        self.messages_failed = 0

    def committed(self, seconds: float, size: int) -> None:
        """One commit of `size` requests and steps took so long, from its first load to its end."""
        self.commit_seconds.observe(seconds)
        self.commit_sizes.observe(size)
