"""`app.promises`: promises that somebody outside settles, such as approvals (protocol A4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kept.client.connection import call
from kept.errors import ConflictError, ConnectionFailedError
from kept.protocol.records import PromiseState, Value
from kept.protocol.requests import PromiseSettle
from kept.protocol.responses import PromiseResult
from kept.sdk import payload
from kept.sdk.loop import refuse_in_durable_code
from kept.sdk.services import Services


class Promises:
    """The promises of an engine, by id: that of `ctx.promise("approval")` in work `review-7` is
    `review-7.approval`."""

    def __init__(self, services: Callable[[], Services]) -> None:
        self._services = services

    async def resolve(self, id: str, value: Any = None) -> None:
        """Whoever awaits it gets this value. Saying the same again changes nothing.

        Raises `NotFoundError` where nobody asked for it yet, `ConflictError` where it was settled
        otherwise, also by its deadline, and `TypeError` for a value that is not JSON. Durable code
        has no use for it: what it settles belongs in a step.
        """
        await self._settle(id, PromiseState.RESOLVED, payload.encode(value))

    async def reject(self, id: str, error: BaseException | str) -> None:
        """Whoever awaits it gets `PromiseRejectedError` with this error. Raises as `resolve` does."""
        failure = error if isinstance(error, BaseException) else RuntimeError(error)
        await self._settle(id, PromiseState.REJECTED, payload.encode_error(failure))

    async def _settle(self, id: str, state: PromiseState, value: Value) -> None:
        refuse_in_durable_code("settling a promise", "do it in a step, with ctx.run()")
        request = PromiseSettle(id, state, value)
        data = (await call(self._services().connection, request)).data
        if not isinstance(data, PromiseResult):
            raise ConnectionFailedError(f"the answer to {request.kind} is not of this protocol")
        found = data.promise
        if found.state is not state or found.value.normal() != value.normal():
            raise ConflictError(f"{id} was settled before: it is {found.state}")
