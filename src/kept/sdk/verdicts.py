"""What a job or step raises to say how it goes on, whatever its retry policy says (protocol B2)."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from kept.errors import KeptError
from kept.sdk import checks


class JobVerdict(KeptError):
    """How the work goes on; see `RejectJob` and `RetryJob`."""

    code: ClassVar[str] = "job_verdict"


class RejectJob(JobVerdict):
    """No further try: the promise is rejected with `message`, and a dead letter is filed whose reason
    is `reason`, a name of your own (protocol B4). Durable code may raise it too. From a step it is
    the step's failure, which the workflow sees."""

    code: ClassVar[str] = "reject_job"

    def __init__(self, message: str = "the job was rejected", *, reason: str = "rejected") -> None:
        super().__init__(message)
        self.reason = checks.name("reason", reason)


class RetryJob(JobVerdict):
    """Another try after `delay` (a timedelta or seconds), which is no failure and uses up no attempt,
    unless it is `counted`. Meanwhile a job waits in its queue, and a step in its worker."""

    code: ClassVar[str] = "retry_job"

    def __init__(
        self,
        message: str = "the job is to be tried again later",
        *,
        delay: timedelta | float = 1.0,
        counted: bool = False,
    ) -> None:
        self.delay_ms = checks.milliseconds("delay", delay)
        super().__init__(message)
        self.counted = counted


class Snooze(RetryJob):
    """The job is not ready for its work: another try after `delay` (a timedelta or seconds), which
    uses up no attempt. `raise kept.Snooze(60)`."""

    code: ClassVar[str] = "snooze"

    def __init__(
        self, delay: timedelta | float, *, message: str = "the job is not ready for its work"
    ) -> None:
        super().__init__(message, delay=delay)
