"""`App`: the functions of a program, and a way to an engine that keeps their promises."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

from kept.client.connect import connect
from kept.client.connection import Connection, call
from kept.errors import ConfigurationError, ConflictError
from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.limits import MAX_INTEGER, NEVER_MS
from kept.protocol.responses import PromiseResult
from kept.runtime import Runtime, SystemRuntime
from kept.sdk import payload
from kept.sdk.context import Context
from kept.sdk.functions import Function, Registry
from kept.sdk.handle import Handle
from kept.sdk.retry import Retry
from kept.sdk.services import Services, Target
from kept.sdk.worker import Worker

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_URL = "sqlite:///kept.db"
DEFAULT_QUEUE = "default"


class App:
    """The functions of a program, run durably.

    `url` is where promises are kept: `sqlite:///kept.db` (the default, or the environment's
    KEPT_URL) runs an engine in this process on that file, which several processes may share;
    `http://host:8420` talks to a server. `queue` is where its work waits. `worker=False` starts
    work and reads results only. `ttl` is how many seconds a crashed worker's work waits before
    another goes on with it; `concurrency` is how many tasks a worker holds at one time.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        queue: str = DEFAULT_QUEUE,
        token: str | None = None,
        worker: bool = True,
        ttl: float = 30.0,
        concurrency: int = 100,
        runtime: Runtime | None = None,
    ) -> None:
        self.url = url or os.environ.get("KEPT_URL") or DEFAULT_URL
        self.queue = queue
        self._token = token or os.environ.get("KEPT_TOKEN")
        self._works = worker
        self._ttl = ttl
        self._concurrency = concurrency
        self._runtime = runtime or SystemRuntime()
        self._registry = Registry()
        self._services: Services | None = None
        self._worker: Worker | None = None

    # -- functions -------------------------------------------------------------------------------

    @overload
    def function(
        self, plain: Callable[Concatenate[Context, P], Awaitable[T]], /
    ) -> Function[P, Awaitable[T]]: ...
    @overload
    def function(self, plain: Callable[P, T], /) -> Function[P, T]: ...
    @overload
    def function(
        self,
        plain: None = None,
        /,
        *,
        name: str | None = None,
        version: int = 1,
        retry: Retry | None = None,
        queue: str | None = None,
    ) -> Callable[[Callable[..., Any]], Function[..., Any]]: ...
    def function(
        self,
        plain: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        version: int = 1,
        retry: Retry | None = None,
        queue: str | None = None,
    ) -> Any:
        """Registers a function: `@app.function`, or with options `@app.function(retry=…)`.

        One that takes a `Context` first is durable code; any other is a step or a job. `name`
        (default: the function's) and `version` are what it is known by to other processes; work
        that was started under a version is finished by that version. `retry` says how often a
        failed step or job is tried. `queue` is where its work waits (default: the app's).
        """

        def register(function: Any) -> Function[..., Any]:
            registered: Function[..., Any] = Function(
                function, name=name, version=version, retry=retry, queue=queue
            )
            self._registry.add(registered)
            return registered

        return register if plain is None else register(plain)

    # -- life ------------------------------------------------------------------------------------

    async def __aenter__(self) -> App:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Connects, and starts the worker. Raises `StoreError`, `ConfigurationError`."""
        if self._services is not None:
            raise ConfigurationError("the app is open already")
        connection = await connect(self.url, self._runtime, self._token)
        self._services = Services(connection, self._runtime, self._registry, self.queue)
        if self._works:
            self._worker = Worker(
                self._services,
                queues=self._queues(),
                ttl=self._ttl,
                concurrency=self._concurrency,
            )
            self._worker.start()

    async def close(self) -> None:
        """Stops the worker, hands back what it holds, and closes the connection; idempotent."""
        services, worker = self._services, self._worker
        self._services = self._worker = None
        if worker is not None:
            await worker.stop()
        if services is not None:
            await services.connection.close()

    async def work(self, stop: asyncio.Event | None = None) -> None:
        """Works until `stop` is set, or for ever: what `kept worker` runs."""
        async with self:
            await (stop or asyncio.Event()).wait()

    def _queues(self) -> tuple[str, ...]:
        named = [f.queue for f in self._registry.all() if f.queue is not None]
        return tuple(dict.fromkeys([self.queue, *named]))

    @property
    def connection(self) -> Connection:
        """The connection, for requests of the protocol itself. The app must be open."""
        return self._open_services().connection

    def _open_services(self) -> Services:
        if self._services is None:
            raise ConfigurationError("the app is not open: use it inside 'async with app:'")
        return self._services

    # -- starting work ---------------------------------------------------------------------------

    @overload
    async def start(
        self,
        function: Function[P, Awaitable[T]],
        /,
        *args: Any,
        id: str | None = None,
        timeout: timedelta | float | None = None,
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
        **kwargs: Any,
    ) -> Handle[T]: ...
    async def start(
        self,
        function: Function[..., Any],
        /,
        *args: Any,
        id: str | None = None,
        timeout: timedelta | float | None = None,
        **kwargs: Any,
    ) -> Handle[Any]:
        """Starts a registered function once: the same `id` is the same work.

        `timeout` (a timedelta or seconds) is the deadline of its promise; none by default. Raises
        `InvalidArgumentsError` where the arguments do not fit, and `ConflictError` where the id
        belongs to work of another function.
        """
        services = self._open_services()
        target = services.target_of(function)
        target.check(args, kwargs)
        create = self._create(services, target, args, kwargs, id, timeout)
        return await self._started(services, create, target)

    async def run(
        self,
        function: Function[..., Any],
        /,
        *args: Any,
        id: str | None = None,
        timeout: timedelta | float | None = None,
        **kwargs: Any,
    ) -> Any:
        """Starts a function and gives its result: `await (await app.start(…))`."""
        handle: Handle[Any] = await self.start(function, *args, id=id, timeout=timeout, **kwargs)
        return await handle

    async def enqueue(
        self,
        name: str,
        *,
        args: dict[str, Any] | None = None,
        id: str | None = None,
        queue: str | None = None,
        timeout: timedelta | float | None = None,
    ) -> Handle[Any]:
        """Starts a function by its name (or `name@version`), without importing its code."""
        services = self._open_services()
        target = services.target_of(name)
        kwargs = args or {}
        target.check((), kwargs)
        if queue is not None:
            target = target._replace(queue=queue)
        create = self._create(services, target, (), kwargs, id, timeout)
        return await self._started(services, create, target)

    async def start_many(
        self, function: Function[..., Any], calls: Iterable[tuple[Any, ...]]
    ) -> list[Handle[Any]]:
        """Starts a function once for each tuple of arguments, in as few commits as possible."""
        starts = [self.start(function, *args) for args in calls]
        return list(await asyncio.gather(*starts))

    def handle(self, id: str, type: Any = Any) -> Handle[Any]:
        """A handle to work that was started elsewhere; `type` is what its result must be."""
        services = self._open_services()
        return Handle(id, services.connection, self._runtime, type)

    def _create(
        self,
        services: Services,
        target: Target,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        id: str | None,
        timeout: timedelta | float | None,
    ) -> r.PromiseCreate:
        deadline = NEVER_MS
        if timeout is not None:
            span_ms = int(payload.as_seconds(timeout) * 1_000)
            deadline = min(self._runtime.now_ms() + span_ms, MAX_INTEGER - 1)
        return r.PromiseCreate(
            self._runtime.entropy(16).hex() if id is None else id,
            deadline,
            payload.encode_arguments(args, kwargs, services.root_headers),
            {tag.TARGET: f"queue://{target.queue}", tag.FUNCTION: target.reference, **target.tags},
        )

    async def _started(
        self, services: Services, create: r.PromiseCreate, target: Target
    ) -> Handle[Any]:
        response = await call(services.connection, create)
        assert isinstance(response.data, PromiseResult)
        owner = response.data.promise.tags.get(tag.FUNCTION)
        if owner != target.reference:
            raise ConflictError(f"{create.id} is already the work of {owner or 'something else'}")
        return Handle(create.id, services.connection, self._runtime, target.returns)
