"""A task that this worker holds."""

from __future__ import annotations

from kept.protocol.records import PromiseRecord
from kept.protocol.responses import AcquiredTask


class Lease:
    """The right to work on a task: valid only for its version."""

    __slots__ = ("attempt", "promise", "version")

    def __init__(self, acquired: AcquiredTask) -> None:
        self.promise: PromiseRecord = acquired.promise
        self.version = acquired.task.version
        self.attempt = acquired.attempt or 1

    @property
    def id(self) -> str:
        return self.promise.id
