"""`ctx.saga()`: effects that are undone, in reverse, when what they belong to does not come to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from kept.sdk.context import Context

P = ParamSpec("P")
T = TypeVar("T")


class Saga:
    """A block of durable code with compensations:

    async with ctx.saga() as saga:
        saga.undo(cancel_flight, trip)
        await ctx.run(book_flight, trip)

    A compensation is named before its effect, since a crash may leave the effect without its record: so
    it must do no harm where there is nothing to undo. When the block ends with an error, or the work is
    canceled (protocol B3), the compensations run as durable steps, the last one first, each with the
    retries of its policy; then the error goes on. A block that ends well undoes nothing.
    """

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._undos: list[Callable[[], Awaitable[Any]]] = []

    def undo(self, function: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Names a compensation: a function that `ctx.run` would take, and its arguments."""
        self._undos.append(lambda: self._ctx.run(function, *args, **kwargs))

    def undo_by_call(
        self, function: Callable[..., Any] | str, /, *args: Any, **kwargs: Any
    ) -> None:
        """The same for one that runs elsewhere, as `ctx.call` has it."""
        self._undos.append(lambda: self._ctx.call(function, *args, **kwargs))

    async def __aenter__(self) -> Saga:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Undoes what is to be undone. Compensations that fail stop no others: with an error they are
        raised together, as an `ExceptionGroup`; a cancellation goes on, and they are its notes."""
        undos, self._undos = self._undos, []
        if not isinstance(error, Exception | asyncio.CancelledError):
            # It went well, or the code leaves memory and goes on later.
            return
        failures: list[Exception] = []
        for undo in reversed(undos):
            try:
                await undo()
            except Exception as failure:  # noqa: BLE001 - told below, after all others had their turn
                failures.append(failure)
        if failures and isinstance(error, Exception):
            raise ExceptionGroup("a saga failed, and not all of it was undone", [error, *failures])
        for each in failures:
            error.add_note(f"not undone: {each!r}")
