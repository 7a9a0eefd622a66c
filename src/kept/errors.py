"""The exceptions of kept, as a tree. Each has a stable `code`, says what happened and what to do.

KeptError
├── RequestError              the engine said no
│   ├── BadRequestError       400  the request itself is wrong
│   ├── UnauthenticatedError  401  no valid token
│   ├── ForbiddenError        403  the token does not allow it
│   ├── NotFoundError         404  there is no such record
│   ├── ConflictError         409  the record is not in a state that allows it, or the lease is lost
│   ├── TooLargeError         413  the body is larger than the limit
│   ├── UnprocessableError    422  the records named do not allow it
│   ├── ShedError             429  refused for now by a limit; retry later
│   ├── InternalError         500  a fault of the engine
│   └── UnavailableError      503  nothing was applied; retry
├── ConnectionFailedError     no answer: the outcome is unknown unless the request is repeatable
├── StoreError                the store cannot be used
│   ├── StoreVersionError     it was written by a newer kept
│   ├── StoreBusyError        it stays locked by another process
│   ├── StoreFailedError      reading, writing or committing failed, and nothing was applied
│   └── CommitUnknownError    a commit may or may not have happened
├── ConfigurationError        a setting or an argument is wrong, or an extra is missing
├── NotDurableError           durable code tried what cannot be replayed; it belongs in a step
├── NondeterminismError       a replay asked for something else than was recorded
├── UnregisteredError         no function of that name and version here
├── InvalidArgumentsError     arguments do not fit the function's annotations
├── LeaseLostError            another worker may hold the task now; stop
├── GuardError                a lock, slot, bucket or guard said no
│   ├── LockHeldError         another holds the lock, or all slots are held
│   ├── LockLostError         the lease of a lock or slot ended while its block ran
│   ├── RateLimitedError      the bucket has not enough tokens
│   └── StaleRevisionError    the entity is at a higher revision already
├── PromiseError              what awaiting a promise raises
│   ├── PromiseRejectedError  it was rejected; carries the error's type, message and details
│   ├── PromiseCanceledError  it was canceled
│   ├── PromiseTimedOutError  its deadline passed
│   └── ResultGoneError       it is settled, and its result has left after its retention
└── JobVerdict                what a job or step raises to say how it goes on (sdk/verdicts.py)
    ├── RejectJob             it is given up on now: a dead letter
    └── RetryJob              it is tried again later
"""

from __future__ import annotations

from typing import Any, ClassVar


class KeptError(Exception):
    """The root of every exception that kept raises on purpose."""

    code: ClassVar[str] = "kept"


class RequestError(KeptError):
    """The engine refused a request; `status` is the protocol's (A1), `detail` what it said to
    programs beside its text (B5)."""

    code: ClassVar[str] = "request"
    status: int = 500

    def __init__(
        self, text: str, status: int | None = None, detail: dict[str, str | int] | None = None
    ) -> None:
        super().__init__(text)
        self.detail = detail or {}
        if status is not None:
            self.status = status


class BadRequestError(RequestError):
    code: ClassVar[str] = "bad_request"
    status = 400


class UnauthenticatedError(RequestError):
    code: ClassVar[str] = "unauthenticated"
    status = 401


class ForbiddenError(RequestError):
    code: ClassVar[str] = "forbidden"
    status = 403


class NotFoundError(RequestError):
    code: ClassVar[str] = "not_found"
    status = 404


class ConflictError(RequestError):
    code: ClassVar[str] = "conflict"
    status = 409


class TooLargeError(RequestError):
    code: ClassVar[str] = "too_large"
    status = 413


class UnprocessableError(RequestError):
    code: ClassVar[str] = "unprocessable"
    status = 422


class ShedError(RequestError):
    code: ClassVar[str] = "shed"
    status = 429


class InternalError(RequestError):
    code: ClassVar[str] = "internal"
    status = 500


class UnavailableError(RequestError):
    code: ClassVar[str] = "unavailable"
    status = 503


class ConnectionFailedError(KeptError):
    code: ClassVar[str] = "connection_failed"


class StoreError(KeptError):
    code: ClassVar[str] = "store"


class StoreVersionError(StoreError):
    code: ClassVar[str] = "store_version"


class StoreBusyError(StoreError):
    code: ClassVar[str] = "store_busy"


class StoreFailedError(StoreError):
    code: ClassVar[str] = "store_failed"


class CommitUnknownError(StoreError):
    code: ClassVar[str] = "commit_unknown"


class ConfigurationError(KeptError):
    code: ClassVar[str] = "configuration"


class NotDurableError(KeptError):
    code: ClassVar[str] = "not_durable"


class NondeterminismError(KeptError):
    code: ClassVar[str] = "nondeterministic"


class UnregisteredError(KeptError):
    code: ClassVar[str] = "unregistered"


class InvalidArgumentsError(KeptError):
    code: ClassVar[str] = "invalid_arguments"


class LeaseLostError(KeptError):
    code: ClassVar[str] = "lease_lost"


class GuardError(KeptError):
    """A lock, slot, bucket or revision guard said no; `key` is what was asked for."""

    code: ClassVar[str] = "guard"

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


class LockHeldError(GuardError):
    """The lock was not free in time, or no slot was. `holder` has it (None for slots, and where it is
    kept for one that waits) until `expires_at` (ms since the epoch), unless it is renewed."""

    code: ClassVar[str] = "lock_held"

    def __init__(
        self, key: str, text: str, holder: str | None = None, expires_at: int | None = None
    ) -> None:
        super().__init__(key, text)
        self.holder = holder
        self.expires_at = expires_at


class LockLostError(GuardError):
    """The lease ended while the block ran: others may have worked beside it."""

    code: ClassVar[str] = "lock_lost"


class RateLimitedError(GuardError):
    """The bucket has not enough tokens; it will have them `retry_after` seconds from now, unless
    others take them."""

    code: ClassVar[str] = "rate_limited"

    def __init__(self, key: str, text: str, retry_after: float) -> None:
        super().__init__(key, text)
        self.retry_after = retry_after


class StaleRevisionError(GuardError):
    """A late event: the entity is at revision `current` already."""

    code: ClassVar[str] = "stale_revision"

    def __init__(self, key: str, text: str, current: int) -> None:
        super().__init__(key, text)
        self.current = current


class PromiseError(KeptError):
    """What awaiting a promise raises when it did not resolve; `id` is the promise's."""

    code: ClassVar[str] = "promise"

    def __init__(self, id: str, text: str) -> None:
        super().__init__(text)
        self.id = id


class WebhookSignatureError(KeptError):
    """A request is not a webhook of ours: its signature is missing, wrong or too old."""

    code: ClassVar[str] = "webhook_signature"


class PromiseRejectedError(PromiseError):
    """The promise was rejected. `type` and `message` are the original error's, `details` its extras."""

    code: ClassVar[str] = "rejected"

    def __init__(
        self, id: str, type: str, message: str, details: dict[str, Any] | None = None
    ) -> None:
        super().__init__(id, f"{id} was rejected: {type}: {message}")
        self.type = type
        self.message = message
        self.details = details or {}


class PromiseCanceledError(PromiseError):
    code: ClassVar[str] = "canceled"


class PromiseTimedOutError(PromiseError):
    code: ClassVar[str] = "timed_out"


class ResultGoneError(PromiseError):
    """The work ended, and its result has left the store after the retention of its queue (B6).

    Where the queue keeps ids (`keepIds`), `state` says how it ended and `settled_at` and `left_at`
    (ms since the epoch) when; they are None where only the handle knows that there was work.
    """

    code: ClassVar[str] = "result_gone"

    def __init__(
        self,
        id: str,
        text: str,
        state: str | None = None,
        settled_at: int | None = None,
        left_at: int | None = None,
    ) -> None:
        super().__init__(id, text)
        self.state = state
        self.settled_at = settled_at
        self.left_at = left_at


_BY_STATUS: dict[int, type[RequestError]] = {
    error.status: error
    for error in (
        BadRequestError,
        UnauthenticatedError,
        ForbiddenError,
        NotFoundError,
        ConflictError,
        TooLargeError,
        UnprocessableError,
        ShedError,
        InternalError,
        UnavailableError,
    )
}


def error_for(status: int, text: str, detail: dict[str, str | int] | None = None) -> RequestError:
    """The exception for a refused request's status."""
    return _BY_STATUS.get(status, RequestError)(text, status, detail)
