"""kept: durable execution for Python. Promises, kept.

app = kept.App()

@app.function
async def checkout(ctx: kept.Context, order: str) -> str: ...

async with app:
    handle = await app.start(checkout, "42", id="order-42")
    print(await handle)
"""

import typing

from kept.errors import (
    BadRequestError,
    CommitUnknownError,
    ConfigurationError,
    ConflictError,
    ConnectionFailedError,
    ForbiddenError,
    GuardError,
    InternalError,
    InvalidArgumentsError,
    KeptError,
    LeaseLostError,
    LockHeldError,
    LockLostError,
    NondeterminismError,
    NotDurableError,
    NotFoundError,
    PromiseCanceledError,
    PromiseError,
    PromiseRejectedError,
    PromiseTimedOutError,
    RateLimitedError,
    RequestError,
    ResultGoneError,
    ShedError,
    StaleRevisionError,
    StoreBusyError,
    StoreError,
    StoreFailedError,
    StoreVersionError,
    TooLargeError,
    UnauthenticatedError,
    UnavailableError,
    UnprocessableError,
    UnregisteredError,
    WebhookSignatureError,
)

if typing.TYPE_CHECKING:
    from kept import inbox as inbox
    from kept import outbox as outbox
    from kept.client.webhooks import verify_webhook as verify_webhook
    from kept.sdk.app import App as App
    from kept.sdk.audit import Audit as Audit
    from kept.sdk.audit import Job as Job
    from kept.sdk.audit import JobFields as JobFields
    from kept.sdk.audit import current_job as current_job
    from kept.sdk.audit import dedupe_key as dedupe_key
    from kept.sdk.context import Context as Context
    from kept.sdk.duplicates import Debounce as Debounce
    from kept.sdk.duplicates import Singleton as Singleton
    from kept.sdk.functions import Function as Function
    from kept.sdk.handle import Handle as Handle
    from kept.sdk.handle import WorkState as WorkState
    from kept.sdk.queues import Lane as Lane
    from kept.sdk.queues import Rate as Rate
    from kept.sdk.retry import Constant as Constant
    from kept.sdk.retry import Exponential as Exponential
    from kept.sdk.retry import Linear as Linear
    from kept.sdk.retry import Never as Never
    from kept.sdk.retry import Retry as Retry
    from kept.sdk.verdicts import JobVerdict as JobVerdict
    from kept.sdk.verdicts import RejectJob as RejectJob
    from kept.sdk.verdicts import RetryJob as RetryJob
    from kept.sdk.verdicts import Snooze as Snooze

__version__ = "0.1.0"

# Loaded when first used, so that a command or a server pays for nothing that it does not need.
_LATER = {
    "App": "kept.sdk.app",
    "Audit": "kept.sdk.audit",
    "Constant": "kept.sdk.retry",
    "Context": "kept.sdk.context",
    "Debounce": "kept.sdk.duplicates",
    "Exponential": "kept.sdk.retry",
    "Function": "kept.sdk.functions",
    "Handle": "kept.sdk.handle",
    "Job": "kept.sdk.audit",
    "JobFields": "kept.sdk.audit",
    "JobVerdict": "kept.sdk.verdicts",
    "Lane": "kept.sdk.queues",
    "Linear": "kept.sdk.retry",
    "Never": "kept.sdk.retry",
    "Rate": "kept.sdk.queues",
    "RejectJob": "kept.sdk.verdicts",
    "Retry": "kept.sdk.retry",
    "RetryJob": "kept.sdk.verdicts",
    "WorkState": "kept.sdk.handle",
    "Singleton": "kept.sdk.duplicates",
    "Snooze": "kept.sdk.verdicts",
    "current_job": "kept.sdk.audit",
    "dedupe_key": "kept.sdk.audit",
    "verify_webhook": "kept.client.webhooks",
}

_ROOMS = frozenset({"inbox", "outbox"})

__all__ = [
    "App",
    "Audit",
    "BadRequestError",
    "CommitUnknownError",
    "ConfigurationError",
    "ConflictError",
    "ConnectionFailedError",
    "Constant",
    "Context",
    "Debounce",
    "Exponential",
    "ForbiddenError",
    "Function",
    "GuardError",
    "Handle",
    "InternalError",
    "InvalidArgumentsError",
    "Job",
    "JobFields",
    "JobVerdict",
    "KeptError",
    "Lane",
    "LeaseLostError",
    "Linear",
    "LockHeldError",
    "LockLostError",
    "Never",
    "NondeterminismError",
    "NotDurableError",
    "NotFoundError",
    "PromiseCanceledError",
    "PromiseError",
    "PromiseRejectedError",
    "PromiseTimedOutError",
    "Rate",
    "RateLimitedError",
    "RejectJob",
    "RequestError",
    "ResultGoneError",
    "Retry",
    "RetryJob",
    "ShedError",
    "Singleton",
    "Snooze",
    "StaleRevisionError",
    "StoreBusyError",
    "StoreError",
    "StoreFailedError",
    "StoreVersionError",
    "TooLargeError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnprocessableError",
    "UnregisteredError",
    "WebhookSignatureError",
    "WorkState",
    "__version__",
    "current_job",
    "dedupe_key",
    "inbox",
    "outbox",
    "verify_webhook",
]


def __getattr__(name: str) -> typing.Any:
    """What is offered under this name."""
    from importlib import import_module

    if name in _ROOMS:
        return import_module(f"kept.{name}")
    if name not in _LATER:
        raise AttributeError(f"module 'kept' has no attribute {name!r}")
    found = getattr(import_module(_LATER[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
