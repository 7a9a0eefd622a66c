"""The public face is chosen, name by name, never an accident."""

from __future__ import annotations

import types

import kept

# Adding a name here is a promise to every user; removing one breaks their code.
PUBLIC = [
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
ROOMS = {
    "inbox": [
        "clean",
        "clean_async",
        "create_table",
        "create_table_async",
        "mark",
        "mark_async",
        "statements",
    ],
    "outbox": [
        "Passed",
        "Relay",
        "create_table",
        "create_table_async",
        "enqueue",
        "enqueue_async",
        "statements",
    ],
}


def test_the_exports_are_exactly_these() -> None:
    """`kept.__all__` holds the pinned names, sorted, each once."""
    assert sorted(kept.__all__) == sorted(PUBLIC)
    assert len(set(PUBLIC)) == len(PUBLIC)


def test_the_rooms_export_exactly_these() -> None:
    """So do `kept.inbox` and `kept.outbox`."""
    for room, names in ROOMS.items():
        assert getattr(kept, room).__all__ == names
        assert [name for name in names if not hasattr(getattr(kept, room), name)] == []


def test_every_export_is_there() -> None:
    """`from kept import *` works: each exported name exists."""
    assert [name for name in PUBLIC if not hasattr(kept, name)] == []


def test_nothing_else_is_public() -> None:
    """A name that is not exported starts with an underscore, unless it is a room of the house."""
    accidents = [
        name
        for name, value in vars(kept).items()
        if not name.startswith("_")
        and name not in PUBLIC
        and not isinstance(value, types.ModuleType)
        and getattr(value, "__module__", None) != "__future__"
        and name != "annotations"
    ]
    assert accidents == []
