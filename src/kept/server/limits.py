"""What may come in at once: every bound of the door, and the count of what is inside."""

from __future__ import annotations

from typing import Final

import msgspec

from kept.protocol.limits import MAX_BODY_BYTES

MAX_CONNECTIONS: Final = 10_000
MAX_CONCURRENT_REQUESTS: Final = 10_000
# Of all requests together, counted while they are received and answered.
MAX_BODY_BYTES_IN_FLIGHT: Final = 256 * 1_048_576
# The request line and the headers of one request.
MAX_HEAD_BYTES: Final = 65_536
# All that is read of one request, the part that is thrown away after a 413 included: a client
# that is still writing when the connection closes would never see its answer.
MAX_REQUEST_BYTES: Final = 4 * MAX_BODY_BYTES

# Of one batch, together: past it, what can be asked again is left out of the answer. Less than our
# client accepts by more than any single answer.
MAX_BATCH_ANSWER_BYTES: Final = 32 * 1_048_576

HEAD_TIMEOUT_SECONDS: Final = 10.0
BODY_TIMEOUT_SECONDS: Final = 60.0
# Installed clients keep idle connections for 15 s; whoever closes first may lose a request.
IDLE_TIMEOUT_SECONDS: Final = 75
# How long a client may leave what we wrote unread.
WRITE_TIMEOUT_SECONDS: Final = 30.0
CLOSE_TIMEOUT_SECONDS: Final = 5.0
# After this long without acknowledgement the kernel gives a connection up. Shorter than a
# keep-alive of the poll transport, which believes in a connection that has lived through one.
UNACKNOWLEDGED_TIMEOUT_SECONDS: Final = 10.0
READY_TIMEOUT_SECONDS: Final = 2.0
GRACE_SECONDS: Final = 20.0

RETRY_AFTER_SECONDS: Final = 1


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds that an operator may change; times in seconds."""

    connections: int = MAX_CONNECTIONS
    concurrent_requests: int = MAX_CONCURRENT_REQUESTS
    body_bytes: int = MAX_BODY_BYTES
    body_bytes_in_flight: int = MAX_BODY_BYTES_IN_FLIGHT
    head_timeout: float = HEAD_TIMEOUT_SECONDS
    body_timeout: float = BODY_TIMEOUT_SECONDS
    idle_timeout: int = IDLE_TIMEOUT_SECONDS
    write_timeout: float = WRITE_TIMEOUT_SECONDS
    grace: float = GRACE_SECONDS


class Admission:
    """Counts the requests inside and the bytes of their bodies."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.requests = 0
        self.body_bytes = 0
        # How many requests were refused, for metrics.
        self.shed = 0

    def enter(self) -> bool:
        """Takes a place; False, and none taken, where all are."""
        if self.requests >= self.limits.concurrent_requests:
            self.shed += 1
            return False
        self.requests += 1
        return True

    def leave(self, body_bytes: int) -> None:
        """Gives the place and the body's bytes back."""
        self.requests -= 1
        self.body_bytes -= body_bytes

    def hold(self, body_bytes: int) -> bool:
        """Counts further bytes of a body, which `leave` gives back; False where that is too many."""
        self.body_bytes += body_bytes
        if self.body_bytes > self.limits.body_bytes_in_flight:
            self.shed += 1
            return False
        return True
