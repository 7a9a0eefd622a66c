"""kept: durable execution for Python. Promises, kept.

    app = kept.App()

    @app.function
    async def checkout(ctx: kept.Context, order: str) -> str: ...

    async with app:
        handle = await app.start(checkout, "42", id="order-42")
        print(await handle)
"""

from kept.errors import (
    BadRequestError,
    ConfigurationError,
    ConflictError,
    ConnectionFailedError,
    ForbiddenError,
    InternalError,
    InvalidArgumentsError,
    KeptError,
    LeaseLostError,
    NondeterminismError,
    NotDurableError,
    NotFoundError,
    PromiseCanceledError,
    PromiseError,
    PromiseRejectedError,
    PromiseTimedOutError,
    RequestError,
    ShedError,
    StoreBusyError,
    StoreError,
    StoreFailedError,
    StoreVersionError,
    TooLargeError,
    UnauthenticatedError,
    UnavailableError,
    UnprocessableError,
    UnregisteredError,
)
from kept.sdk.app import App
from kept.sdk.context import Context
from kept.sdk.functions import Function
from kept.sdk.handle import Handle
from kept.sdk.retry import Constant, Exponential, Linear, Never, Retry

__version__ = "0.1.0"

__all__ = [
    "App",
    "BadRequestError",
    "ConfigurationError",
    "ConflictError",
    "ConnectionFailedError",
    "Constant",
    "Context",
    "Exponential",
    "ForbiddenError",
    "Function",
    "Handle",
    "InternalError",
    "InvalidArgumentsError",
    "KeptError",
    "LeaseLostError",
    "Linear",
    "Never",
    "NondeterminismError",
    "NotDurableError",
    "NotFoundError",
    "PromiseCanceledError",
    "PromiseError",
    "PromiseRejectedError",
    "PromiseTimedOutError",
    "RequestError",
    "Retry",
    "ShedError",
    "StoreBusyError",
    "StoreError",
    "StoreFailedError",
    "StoreVersionError",
    "TooLargeError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnprocessableError",
    "UnregisteredError",
    "__version__",
]
