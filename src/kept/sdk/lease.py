"""A task that this worker holds."""

from __future__ import annotations

from collections.abc import Callable

from kept.protocol.records import PromiseRecord
from kept.protocol.responses import AcquiredTask


class Lease:
    """The right to work on a task: valid only for its version.

    `ending` says that its holder stops its work already, or is giving it up by a request that is
    under way, so that a heartbeat which crosses it and finds the lease gone means nothing: unless
    that request does not give it up, and the work is to go on. So `lost` notes why it is over.
    `confirmed_at` is when, on the monotonic clock in seconds, it was last known to hold.
    `cancel_requested_at` (ms) is since when its work is asked to stop, as far as that was known
    when it was taken (B3).
    """

    __slots__ = (
        "attempt",
        "cancel_requested_at",
        "confirmed_at",
        "ending",
        "lost",
        "on_cancel",
        "pid",
        "promise",
        "version",
    )

    def __init__(self, acquired: AcquiredTask, confirmed_at: float = 0.0) -> None:
        self.promise: PromiseRecord = acquired.promise
        self.version = acquired.task.version
        self.attempt = acquired.attempt or 1
        self.confirmed_at = confirmed_at
        self.ending = False
        self.lost: str | None = None
        self.pid = acquired.task.pid or ""
        self.cancel_requested_at = acquired.cancel_requested_at
        # What makes the work stop by itself, while it can.
        self.on_cancel: Callable[[], object] | None = None

    @property
    def id(self) -> str:
        return self.promise.id
