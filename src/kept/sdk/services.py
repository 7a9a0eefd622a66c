"""What a worker offers to the runs of its functions: its connection, its threads, its registry."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import sys
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from kept.client.connection import Connection
from kept.errors import LeaseLostError, error_for
from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.limits import MAX_ATTEMPTS
from kept.protocol.records import PromiseState, Value
from kept.protocol.responses import BAD_REQUEST, CONFLICT, NOT_FOUND, TOO_LARGE, Response
from kept.runtime import Runtime
from kept.sdk import payload
from kept.sdk.announcing import Routes
from kept.sdk.batches import Batches, Motion
from kept.sdk.functions import Function, Registry
from kept.sdk.lease import Lease
from kept.sdk.loop import NUMBERING
from kept.sdk.options import NO_OPTIONS, JobOptions
from kept.sdk.releases import Releases
from kept.sdk.retry import next_wait
from kept.sdk.verdicts import RetryJob

# The task that the running code works for; tasks of asyncio inherit it.
HOLDER: Final = contextvars.ContextVar[str]("kept-holder", default="")

# Steps and jobs that run at one time in one worker.
MAX_RUNNING: Final = 1_000
# Plain functions whose signatures are remembered.
MAX_REMEMBERED: Final = 1_000
# Losses of a lease, such as crashes, that work survives without any progress: beyond the failures
# that its retry policy allows a job, and altogether for durable code, which then is halted.
MAX_JOB_LOSSES: Final = 10
MAX_DURABLE_LOSSES: Final = 100
# A workflow whose worker died goes on elsewhere soon after the lease; only one that makes workers die
# again and again waits longer.
DURABLE_BACKOFF: Final = "full_jitter:200:10000"

_RETRY_TAGS: Final = (tag.ATTEMPTS, tag.BACKOFF)

# How the engine refuses a payload for good.
NOT_STORABLE: Final = (BAD_REQUEST, TOO_LARGE)


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

    def with_options(self, said: JobOptions) -> Target:
        """As one use of it says, where that says something. Raises `InvalidArgumentsError`."""
        if said == NO_OPTIONS:
            return self
        is_durable = self.function is not None and self.function.durable
        tags = said.tags(durable=is_durable)
        kept = self.tags
        if said.retry is not None:
            # One that never gives up must not inherit when the function's own does.
            kept = {name: text for name, text in kept.items() if name not in _RETRY_TAGS}
        return self._replace(queue=said.queue or self.queue, tags={**kept, **tags})

    @property
    def all_tags(self) -> dict[str, str]:
        """The tags of a promise that calls it."""
        return {
            tag.TARGET: f"queue://{self.queue}",
            tag.FUNCTION: self.reference,
            **self.tags,
        }


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
        self.routes = Routes(connection, runtime)
        self._room = asyncio.Semaphore(MAX_RUNNING)
        self.motion = Motion()
        self._batches = Batches(runtime, self.motion, self.call)
        self._in_threads: set[tuple[str, object]] = set()
        self._plain: dict[Callable[..., Any], Function[..., Any]] = {}

    def as_function(self, function: Callable[..., Any]) -> Function[..., Any]:
        """A registered function as it is; any other callable as a function of its name."""
        if isinstance(function, Function):
            return function
        known = self._plain.get(function)
        if known is None:
            if len(self._plain) >= MAX_REMEMBERED:
                # Functions made anew for each call, such as lambdas, must not gather here.
                self._plain.clear()
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
        return target_of_function(found, found.queue or self.queue)

    async def routed(self, target: Target) -> Target:
        """A name that is not known here goes to the queue that is announced for it, if one is."""
        if target.function is not None:
            return target
        queue = await self.routes.queue_of(target.reference)
        return target if queue is None else target._replace(queue=queue)

    async def outcome_of(
        self, function: Function[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[PromiseState, Value]:
        """Calls a step's function, again as its policy says, and gives what to record."""
        failures = 0
        while True:
            try:
                result = await self.call(function, args, kwargs)
                return PromiseState.RESOLVED, payload.encode(result)
            except Exception as error:  # noqa: BLE001 - whatever the step raised is its outcome
                if isinstance(error, RetryJob) and not error.counted:
                    await self.runtime.sleep(error.delay_ms / 1_000)
                    continue
                failures += 1
                wait = next_wait(function.retry, failures, error, self.runtime.entropy)
                if wait is None:
                    return PromiseState.REJECTED, payload.encode_error(error)
            await self.runtime.sleep(wait)

    async def call(
        self, function: Function[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """As `call_now`, once there is room; of a batched function together with others."""
        if function.batch is not None:
            (item,) = function.bound(args, kwargs)
            return await self._batches.add(function, function.batch, item)
        async with self._room:
            return await self.call_now(function, args, kwargs)

    async def call_now(
        self, function: Function[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Calls a plain function: on the worker's loop, or in a thread if it is not `async`.

        Raises what it raises; `RuntimeError` where it tries to end the process or its own task.
        """
        try:
            if function.asynchronous:
                return await function.plain(*args, **kwargs)
            result = await self._call_in_thread(function, args, kwargs)
            return await result if inspect.isawaitable(result) else result
        except SystemExit as error:
            raise RuntimeError(f"{function.name} called sys.exit({error.code!r})") from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise RuntimeError(f"{function.name} was cancelled from within") from error
        except (Exception, KeyboardInterrupt):
            raise
        except BaseException as error:
            # Not recorded, it would be tried for ever.
            raise RuntimeError(f"{function.name} raised {type(error).__name__}: {error}") from error

    async def _call_in_thread(
        self, function: Function[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        context = contextvars.copy_context()
        token = (HOLDER.get(), object())

        def called() -> Any:
            try:
                return context.run(_called, function, args, kwargs)
            finally:
                # A cancelled await leaves the thread running: only here it has ended.
                self._in_threads.discard(token)

        self._in_threads.add(token)
        return await self.runtime.run_code(called)

    def is_in_thread(self, id: str) -> bool:
        """Whether code that works for a task still runs in a thread, which nothing can stop."""
        return any(holder == id for holder, _ in tuple(self._in_threads))

    async def fulfill(
        self, lease: Lease, state: PromiseState, value: Value, releases: Releases
    ) -> None:
        """Settles a task's promise. A result that cannot be stored is its failure."""
        lease.ending = True
        response = await self._fulfilled(lease, state, value, releases)
        if response.status in NOT_STORABLE:
            failure = payload.encode_error(error_for(response.status, str(response.data)))
            response = await self._fulfilled(lease, PromiseState.REJECTED, failure, releases)
        if response.status in (CONFLICT, NOT_FOUND):
            raise LeaseLostError(f"{lease.id}: {response.data}")
        if not response.ok:
            raise error_for(response.status, str(response.data))

    async def _fulfilled(
        self, lease: Lease, state: PromiseState, value: Value, releases: Releases
    ) -> Response:
        settle = r.SettleAction(r.PromiseSettle(lease.id, state, value))
        return await releases.carried(
            lambda released: self.connection.send(
                r.TaskFulfill(lease.id, lease.version, settle, released)
            )
        )


def target_of_function(function: Function[..., Any], queue: str) -> Target:
    """A function that is known here, in a queue."""
    limits = _limits_of(function) if function.job_options.retry is None else {}
    tags = {**limits, **function.option_tags}
    return Target(function.reference, queue, function.returns, tags, function)


def _called(function: Function[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return function.plain(*args, **kwargs)
    except StopIteration as error:
        # A future cannot carry it: whoever waits for the thread would wait for ever.
        raise RuntimeError(f"{function.name} raised StopIteration") from error


def _limits_of(function: Function[..., Any]) -> dict[str, str]:
    """After how many failures the engine gives up by itself, such as when workers die of it."""
    if function.durable:
        return {
            tag.ATTEMPTS: str(MAX_DURABLE_LOSSES),
            tag.EXHAUSTED: "halt",
            tag.BACKOFF: DURABLE_BACKOFF,
        }
    attempts = function.retry.attempts
    if attempts is None:
        return {}
    return {tag.ATTEMPTS: str(min(attempts + MAX_JOB_LOSSES, MAX_ATTEMPTS))}
