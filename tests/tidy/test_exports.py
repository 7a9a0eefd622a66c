"""The public face is chosen, name by name, never an accident."""

from __future__ import annotations

import types

import kept

# Adding a name here is a promise to every user; removing one breaks their code.
PUBLIC = [
    "App",
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
    "KeptError",
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
    "RateLimitedError",
    "RequestError",
    "Retry",
    "ShedError",
    "Singleton",
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
    "verify_webhook",
]


def test_the_exports_are_exactly_these() -> None:
    """`kept.__all__` holds the pinned names, sorted, each once."""
    assert sorted(kept.__all__) == sorted(PUBLIC)
    assert len(set(PUBLIC)) == len(PUBLIC)


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
