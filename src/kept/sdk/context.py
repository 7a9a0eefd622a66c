"""`Context`: how durable code reaches the world."""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from random import Random
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from kept.errors import ConfigurationError
from kept.sdk.audit import Audit
from kept.sdk.durable_values import Draws, Info, instant_of
from kept.sdk.saga import Saga

P = ParamSpec("P")
T = TypeVar("T")


class ContextHost(Protocol):
    """What stands behind a Context: the run of a durable function under its lease."""

    id: str
    draws: Draws

    def now(self) -> float:
        """Logical time, in seconds since the epoch."""

    @property
    def info(self) -> Info:
        """What is known of this work."""

    @property
    def step_key(self) -> str:
        """The id that the next step of the current branch will have."""

    @property
    def attempt(self) -> int:
        """Failures so far, plus one."""

    @property
    def audit(self) -> Audit:
        """Where the work comes from."""

    def ask_run(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> asyncio.Future[Any]:
        """A step, here."""

    def ask_call(
        self,
        function: Callable[..., Any] | str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        detached: bool = False,
    ) -> asyncio.Future[Any]:
        """A call, on whichever worker owns the name; of a detached one the future gives the id."""

    def ask_promise(self, name: str, timeout: float | None, expected: Any) -> asyncio.Future[Any]:
        """A promise that somebody outside settles."""

    def patched(self, name: str) -> bool:
        """Whether the run takes a change of the code."""

    def ask_until(self, instant: int) -> asyncio.Future[Any]:
        """A timer that is due at an instant in ms since the epoch."""

    async def receive(self, name: str, expected: Any) -> Any:
        """The next message of a mailbox."""

    def annotate(
        self, values: dict[str, str | float | bool | None], progress: float | None
    ) -> None:
        """Attributes and progress of this work, for anyone to read."""


class Context:
    """The first argument of a durable function.

    Whatever touches the world goes through it, and is done once: `run` for steps in this process,
    `call` for work on other workers, `sleep`, `promise` and `receive` for waiting without a process. What
    they return starts at once and is awaited when its result is needed; asyncio's `gather`,
    `TaskGroup`, `wait` and `timeout` work as always.
    """

    def __init__(self, host: ContextHost) -> None:
        self._host = host

    @property
    def id(self) -> str:
        """The id of the promise that this code keeps."""
        return self._host.id

    @property
    def attempt(self) -> int:
        """How many times this work failed before, plus one. It differs between replays."""
        return self._host.attempt

    @property
    def audit(self) -> Audit:
        """Where this work comes from, as its start said; what it calls has the same."""
        return self._host.audit

    @property
    def info(self) -> Info:
        """This work's id, attempt, parent, root, deadline and `traceparent`."""
        return self._host.info

    @property
    def step_key(self) -> str:
        """An idempotency key for the next step that is asked for here: the id which that will have.
        It is the same however often the step is tried or replayed, and no other step has it:

        await ctx.run(charge, order, key=ctx.step_key)
        """
        return self._host.step_key

    def now(self) -> datetime:
        """The time (UTC) as this code knows it, the same in every replay: when the latest result that
        it was given came about, at first when it was started. It stands still in between."""
        return instant_of(self._host.now() * 1_000)

    def random(self) -> Random:
        """A generator whose draws are the same in every replay: `ctx.random().choice(…)`. Its seed
        follows from the id and the creation of this work, so it is no source of secrets."""
        return self._host.draws.random

    def uuid(self) -> uuid.UUID:
        """A new UUID, the same in every replay. As guessable as `random` is."""
        return self._host.draws.uuid()

    @overload
    def run(
        self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Awaitable[T]: ...
    @overload
    def run(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Awaitable[T]: ...
    def run(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        """A durable step: calls the function in this process; its result is recorded once.

        A crash between the effect and its record runs it again, so an effect outside needs an
        idempotency key. Awaiting raises `PromiseRejectedError` when the step failed, after the
        retries of its policy. Protocol B1 (`task.record`).
        """
        return self._host.ask_run(function, args, kwargs)

    @overload
    def call(
        self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Awaitable[T]: ...
    @overload
    def call(self, function: str, /, *args: Any, **kwargs: Any) -> Awaitable[Any]: ...
    def call(
        self, function: Callable[..., Any] | str, /, *args: Any, **kwargs: Any
    ) -> Awaitable[Any]:
        """A durable call: a promise of its own, on whichever worker claims it.

        `function` is a registered one, or a name. No process waits for the result. Awaiting
        raises `PromiseRejectedError`, `PromiseCanceledError` or `PromiseTimedOutError`.
        """
        return self._host.ask_call(function, args, kwargs)

    def detached(
        self, function: Callable[..., Any] | str, /, *args: Any, **kwargs: Any
    ) -> Awaitable[str]:
        """A durable call that this work does not wait for: it goes on when this work has ended, and
        is not canceled with it (protocol B3). Awaiting gives its id as soon as it is there for good;
        `app.handle(id)` has the result. `function` as for `call`.
        """
        return self._host.ask_call(function, args, kwargs, detached=True)

    async def sleep_until(self, instant: datetime) -> None:
        """Waits, durably, until a datetime with a time zone; not at all for one that has passed.
        Raises `ConfigurationError` for one without a time zone."""
        if instant.tzinfo is None:
            raise ConfigurationError("sleep_until: the instant needs a time zone, such as UTC")
        await self._host.ask_until(math.ceil(instant.timestamp() * 1_000))

    async def sleep(self, duration: timedelta | float) -> None:
        """Waits, durably: no process waits. `duration` is a timedelta or seconds."""
        seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
        await asyncio.sleep(seconds)

    def promise(
        self, name: str, *, timeout: timedelta | float | None = None, type: Any = Any
    ) -> Awaitable[Any]:
        """A promise that somebody outside settles, under the id `<this id>.<name>`.

        `timeout` (a timedelta or seconds) is its deadline, after which awaiting it raises
        `PromiseTimedOutError`; `type` is what its value must be.
        """
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        return self._host.ask_promise(name, seconds, type)

    def saga(self) -> Saga:
        """A block whose effects are undone when it fails or is canceled; see `Saga`."""
        return Saga(self)

    def patched(self, name: str) -> bool:
        """Whether this run takes a change of the code: yes for work that comes here for the first
        time, no for work that was here before the change, and the same in every replay.

        Put it right before the step that changes, under a name that no other change has:

        if ctx.patched("two-receipts"):
            await ctx.run(send_receipt, order)

        When no work is left that was begun before the change, only the new way is needed. Raises
        `ConfigurationError` for what is no name.
        """
        if not name or not isinstance(name, str):
            raise ConfigurationError(f"patched: a change has a name, not {name!r}")
        return self._host.patched(name)

    def set_state(self, **values: str | float | bool | None) -> None:
        """Says something of this work that anyone may read while it runs and afterwards, and search
        by: `app.state(id)`, `kept promise search --attribute`. Protocol B8 (`task.annotate`).

        Numbers and booleans are stored as JSON, None takes an attribute back. At most 64, each of 1
        KiB with its name. It is no part of the result, and no step: a replay says it again. Raises
        `ConfigurationError` for what cannot be stored.
        """
        self._host.annotate(values, None)

    def progress(self, fraction: float) -> None:
        """Says how far this work is, from 0 to 1; read as `set_state` is."""
        self._host.annotate({}, fraction)

    async def receive(
        self, name: str, *, timeout: timedelta | float | None = None, type: Any = Any
    ) -> Any:
        """The next message that was sent to this work's mailbox `name`, before or after it is asked
        for (protocol B8).

        Messages come in the order of their sending, each to one `receive`; several that wait on one
        name are served in the order of asking. After `timeout` (a timedelta or seconds) it raises
        `TimeoutError`. A receive that times out or is cancelled takes no message. `type` is what the
        value must be; one that is not raises `InvalidArgumentsError`, and counts as received.
        """
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        async with asyncio.timeout(seconds):
            return await self._host.receive(name, type)
