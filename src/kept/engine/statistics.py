"""What the engine counts about itself; whoever shows metrics reads it."""

from __future__ import annotations

from collections import Counter
from typing import Final

COMMIT_BUCKETS_SECONDS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
)  # fmt: skip


class Statistics:
    """Counters since the start; plain numbers, cheap to raise."""

    def __init__(self) -> None:
        # By (kind, status).
        self.requests: Counter[tuple[str, int]] = Counter()
        self.batches = 0
        self.batch_requests = 0
        self.failed_batches = 0
        self.background_steps = 0
        self.commits = 0
        self.commit_seconds = 0.0
        # How many commits took at most as long as each of COMMIT_BUCKETS_SECONDS.
        self.commit_buckets = [0] * len(COMMIT_BUCKETS_SECONDS)
        self.queued = 0
        self.waiting = 0
        self.wakeups = 0
        self.messages_sent = 0
        self.messages_failed = 0

    def committed(self, seconds: float) -> None:
        """One commit took so long, from its first load to its end."""
        self.commits += 1
        self.commit_seconds += seconds
        for index, bound in enumerate(COMMIT_BUCKETS_SECONDS):
            if seconds <= bound:
                self.commit_buckets[index] += 1
