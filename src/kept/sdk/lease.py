"""A task that this worker holds."""

from __future__ import annotations

from kept.protocol.records import PromiseRecord
from kept.protocol.responses import AcquiredTask


class Lease:
    """The right to work on a task: valid only for its version.

    `ending` says that its holder is giving it up by a request that is under way, so that a
    heartbeat which crosses it and finds the lease gone means nothing. `confirmed_at` is when, on
    the monotonic clock in seconds, it was last known to hold.
    """

    __slots__ = ("attempt", "confirmed_at", "ending", "promise", "version")

    def __init__(self, acquired: AcquiredTask, confirmed_at: float = 0.0) -> None:
        self.promise: PromiseRecord = acquired.promise
        self.version = acquired.task.version
        self.attempt = acquired.attempt or 1
        self.confirmed_at = confirmed_at
        self.ending = False

    @property
    def id(self) -> str:
        return self.promise.id
