"""What a worker offers to the runs of its functions: its connection, its threads, its registry."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from kept.client.connection import Connection
from kept.errors import LeaseLostError, error_for
from kept.protocol import requests as r
from kept.protocol.records import PromiseState, Value
from kept.protocol.responses import BAD_REQUEST, CONFLICT, NOT_FOUND
from kept.runtime import Runtime
from kept.sdk import payload
from kept.sdk.functions import Function, Registry
from kept.sdk.lease import Lease
from kept.sdk.loop import NUMBERING
from kept.sdk.retry import next_wait

# Steps and jobs that run at one time in one worker.
MAX_RUNNING: Final = 1_000


class Target(NamedTuple):
    """Whom a call by name or function reaches."""

    reference: str
    queue: str
    returns: Any
    tags: dict[str, str]
    function: Function[..., Any] | None

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raises `InvalidArgumentsError` where the function is known and they do not fit."""
        if self.function is not None:
            self.function.check(args, kwargs)


class Services:
    """Shared by all executions of a worker, and by the app that starts work."""

    root_headers: Final = {
        payload.NUMBERING_HEADER: str(NUMBERING),
        payload.PYTHON_HEADER: f"{sys.version_info[0]}.{sys.version_info[1]}",
    }

    def __init__(
        self, connection: Connection, runtime: Runtime, registry: Registry, queue: str
    ) -> None:
        self.connection = connection
        self.runtime = runtime
        self.registry = registry
        self.queue = queue
        self._room = asyncio.Semaphore(MAX_RUNNING)
        self._plain: dict[Callable[..., Any], Function[..., Any]] = {}

    def as_function(self, function: Callable[..., Any]) -> Function[..., Any]:
        """A registered function as it is; any other callable as a function of its name."""
        if isinstance(function, Function):
            return function
        known = self._plain.get(function)
        if known is None:
            known = self._plain[function] = Function(function)
        return known

    def target_of(self, function: Callable[..., Any] | str) -> Target:
        """Whom to call: a registered function, or a name that some worker knows."""
        if isinstance(function, str):
            found = self.registry.find(function)
            if found is None:
                return Target(function, self.queue, Any, {}, None)
        else:
            found = self.as_function(function)
        return Target(found.reference, found.queue or self.queue, found.returns, {}, found)

    async def outcome_of(
        self, function: Function[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[PromiseState, Value]:
        """Calls a step's function, again as its policy says, and gives what to record."""
        failures = 0
        while True:
            try:
                result = await self.call(function, args, kwargs)
                return PromiseState.RESOLVED, payload.encode(result)
            except Exception as error:
                failures += 1
                wait = next_wait(function.retry, failures, error)
                if wait is None:
                    return PromiseState.REJECTED, payload.encode_error(error)
                await self.runtime.sleep(wait)

    async def call(
        self, function: Function[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Calls a plain function: on the worker's loop, or in a thread if it is not `async`."""
        async with self._room:
            if function.asynchronous:
                return await function.plain(*args, **kwargs)
            return await self.runtime.run_code(lambda: function.plain(*args, **kwargs))

    async def fulfill(
        self, lease: Lease, state: PromiseState, value: Value, released: list[str]
    ) -> None:
        """Settles a task's promise. A result that cannot be stored is its failure."""
        response = await self.connection.send(_fulfill(lease, state, value, released))
        if response.status == BAD_REQUEST:
            failure = payload.encode_error(error_for(response.status, str(response.data)))
            request = _fulfill(lease, PromiseState.REJECTED, failure, released)
            response = await self.connection.send(request)
        if response.status in (CONFLICT, NOT_FOUND):
            raise LeaseLostError(f"{lease.id}: {response.data}")
        if not response.ok:
            raise error_for(response.status, str(response.data))


def _fulfill(
    lease: Lease, state: PromiseState, value: Value, released: list[str]
) -> r.TaskFulfill:
    settle = r.SettleAction(r.PromiseSettle(lease.id, state, value))
    return r.TaskFulfill(lease.id, lease.version, settle, released)
