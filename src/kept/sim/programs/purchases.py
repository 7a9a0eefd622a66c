"""A tree of durable functions that is canceled while it works, and cleans up after itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from random import Random
from typing import Any, Final

from kept.protocol.limits import CANCEL_GRACE_MS
from kept.protocol.records import Promise, PromiseState
from kept.sdk.app import App
from kept.sdk.context import Context
from kept.sdk.functions import Function
from kept.sim.ledger import Boundary
from kept.sim.programs.program import Drawn, Program
from kept.sim.programs.steps import Steps

NAME: Final = "purchase"
SECONDS: Final = 6.0


def register(app: App, steps: Steps) -> list[Function[..., Any]]:
    """The functions of this theme."""
    step = steps.step

    @app.function
    async def refund(ctx: Context, purchase_id: str) -> None:
        await ctx.sleep(0.1)
        await ctx.run(step, f"{purchase_id}/refunded")

    @app.function(name=NAME)
    async def purchase(ctx: Context, depth: int) -> str:
        async with ctx.saga() as saga:
            saga.undo_by_call(refund, ctx.id)
            await ctx.run(step, f"{ctx.id}/charged")
            parts = [ctx.call(NAME, depth - 1) for _ in range(2 if depth else 0)]
            await asyncio.gather(ctx.sleep(SECONDS), *parts)
        return "bought"

    return [refund, purchase]


def _purchase(random: Random) -> Program:
    depth = random.choice((0, 1, 1, 2))
    return Program(NAME, (depth,), ("bought",), canceled=True)


CHOICES: Final[tuple[Drawn, ...]] = (_purchase, _purchase)


def problem_of(promises: Mapping[str, Promise], boundary: Boundary) -> str | None:
    """Which purchase did not clean up, though its code had the time for it, or did so in vain."""
    for id, promise in promises.items():
        if not (promise.function or "").startswith(f"{NAME}@"):
            continue
        refunded = boundary.applied(f"{id}/refunded")
        if promise.state is PromiseState.RESOLVED and refunded:
            return f"{id} was refunded and resolved"
        if (
            _ended_by_itself(promises, promise)
            and boundary.applied(f"{id}/charged")
            and not refunded
        ):
            return f"{id} was canceled and not refunded"
    return None


def _ended_by_itself(promises: Mapping[str, Promise], promise: Promise) -> bool:
    """Whether code that heard of its cancellation ended before any grace did, its own or that of
    what it works for."""
    if promise.cancel_requested_at is None or promise.settled_at is None:
        return False
    ends_at = promise.cancel_requested_at + CANCEL_GRACE_MS
    above = promises.get(promise.parent or "")
    while above is not None:
        if above.cancel_requested_at is not None:
            ends_at = min(ends_at, above.cancel_requested_at + CANCEL_GRACE_MS)
        above = promises.get(above.parent or "")
    return promise.state is PromiseState.REJECTED_CANCELED and promise.settled_at < ends_at
