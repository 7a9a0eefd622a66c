"""`app.start`, `app.run`, `app.enqueue`, `app.start_many`: how work begins."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final, ParamSpec, TypeVar, Unpack, overload

from kept.client.connection import call
from kept.errors import ConfigurationError, ConflictError
from kept.protocol import tags as tag
from kept.protocol.responses import PromiseResult
from kept.sdk.audit import Audit
from kept.sdk.duplicates import Debounce, Singleton, SingletonMode
from kept.sdk.functions import Function
from kept.sdk.handle import Handle
from kept.sdk.options import Exhausted
from kept.sdk.retry import Retry
from kept.sdk.services import Services, Target
from kept.sdk.starting import (
    Start,
    StartOptions,
    create_request,
    is_work_of,
    named_arguments,
    start_of,
    taken_start,
)

P = ParamSpec("P")
T = TypeVar("T")

# Starts that `start_many` has under way at one time.
MAX_CONCURRENT_STARTS: Final = 1_000


class Starts:
    """The part of `App` that starts work."""

    def _open_services(self) -> Services:
        raise NotImplementedError

    @overload
    async def start(
        self,
        function: Function[P, Awaitable[T]],
        /,
        *args: Any,
        id: str | None = None,
        timeout: timedelta | float | None = None,
        delay: timedelta | float | None = None,
        at: datetime | None = None,
        priority: int | None = None,
        lane: str | None = None,
        queue: str | None = None,
        retry: Retry | None = None,
        exhausted: Exhausted | None = None,
        dedupe: str | None = None,
        dedupe_window: timedelta | float | None = None,
        debounce: Debounce | None = None,
        singleton: SingletonMode | Singleton | None = None,
        audit: Audit | None = None,
        **kwargs: Any,
    ) -> Handle[T]: ...
    @overload
    async def start(
        self,
        function: Function[P, T],
        /,
        *args: Any,
        id: str | None = None,
        timeout: timedelta | float | None = None,
        delay: timedelta | float | None = None,
        at: datetime | None = None,
        priority: int | None = None,
        lane: str | None = None,
        queue: str | None = None,
        retry: Retry | None = None,
        exhausted: Exhausted | None = None,
        dedupe: str | None = None,
        dedupe_window: timedelta | float | None = None,
        debounce: Debounce | None = None,
        singleton: SingletonMode | Singleton | None = None,
        audit: Audit | None = None,
        **kwargs: Any,
    ) -> Handle[T]: ...
    async def start(
        self, function: Function[..., Any], /, *args: Any, **kwargs: Any
    ) -> Handle[Any]:
        """Starts a registered function once: the same `id` is the same work.

        `timeout` (a timedelta or seconds) is the deadline of its promise; none by default. `delay`
        (a timedelta or seconds) or `at` (a datetime with a time zone) is when it may begin.

        `queue` is where it waits (default: the function's own), `priority` (0 to 9, higher first)
        and `lane` (a customer, say: lanes take turns and have limits) are its place there. `retry`
        is one of kept's policies, kept by the engine in the place of the function's own: then
        failures and lost workers count alike. `exhausted` is what becomes of it when it is given
        up on: "reject", or "halt", so that whoever awaits it waits until an operator replays it.

        Starts with an equal `dedupe` key are one: while the work is unsettled, or `dedupe_window`
        (a timedelta or seconds) has not passed since its start. `debounce` makes one of many starts
        that follow each other, `singleton` says what happens while another one is under way. All
        hold within one queue; the handle is to the work that stands for this start. `audit` says
        where it comes from.

        Raises `InvalidArgumentsError` where arguments or options do not fit, `ShedError` where the
        queue is full, and `ConflictError` where the id belongs to work of another function, where
        the work of the `dedupe` key was started with other arguments, and where a singleton is
        skipped.
        """
        services = self._open_services()
        if not isinstance(function, Function):
            raise ConfigurationError(
                f"{function!r} is not registered: declare it with @app.function, or start it by "
                "its name with app.enqueue()"
            )
        start = taken_start(function, args, kwargs)
        target = services.target_of(function)
        target.check(args, kwargs)
        return await self._started(services, target, args, kwargs, start)

    @overload
    async def run(self, function: Function[P, Awaitable[T]], /, *args: Any, **kwargs: Any) -> T: ...
    @overload
    async def run(self, function: Function[P, T], /, *args: Any, **kwargs: Any) -> T: ...
    async def run(self, function: Function[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Starts a function, with options as for `start`, and gives its result."""
        handle: Handle[Any] = await self.start(function, *args, **kwargs)
        return await handle

    async def enqueue(
        self, name: str, *, args: dict[str, Any] | None = None, **options: Unpack[StartOptions]
    ) -> Handle[Any]:
        """Starts a function by its name (or `name@version`), without importing its code.

        One that is not registered here goes to `queue`, else to the queue that workers announce for
        it, else to the app's own. Protocol B9. All other options are as for `start`.
        """
        services, start = self._open_services(), start_of(options)
        target = services.target_of(name)
        kwargs = named_arguments(args)
        target.check((), kwargs)
        if start.queue is None:
            target = await services.routed(target)
        return await self._started(services, target, (), kwargs, start)

    async def start_many(
        self, function: Function[..., Any], calls: Iterable[tuple[Any, ...]]
    ) -> list[Handle[Any]]:
        """Starts a function once for each tuple of arguments, in as few commits as possible; with
        options: `function.options(…)`."""
        handles: list[Handle[Any]] = []
        remaining = iter(calls)
        while some := list(islice(remaining, MAX_CONCURRENT_STARTS)):
            handles += await asyncio.gather(*(self.start(function, *args) for args in some))
        return handles

    async def _started(
        self,
        services: Services,
        target: Target,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        start: Start,
    ) -> Handle[Any]:
        create = create_request(services.runtime, target, args, kwargs, start)
        response = await call(services.connection, create)
        assert isinstance(response.data, PromiseResult)
        promise = response.data.promise
        owner = promise.tags.get(tag.FUNCTION)
        # Of what has left only the verdict is known (B6).
        has_left = tag.LEFT_HEADER in (promise.value.headers or {})
        if not has_left and not is_work_of(owner, target.reference):
            raise ConflictError(
                f"{promise.id} is the work of {owner or 'something else'} already; "
                f"start {target.reference} under another id"
            )
        return Handle(promise.id, services.connection, services.runtime, target.returns, promise)
