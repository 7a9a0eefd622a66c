"""`App`: the functions of a program, and a way to an engine that keeps their promises."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

from kept.client.connect import connect
from kept.client.connection import Connection
from kept.errors import ConfigurationError
from kept.protocol.limits import MAX_CLAIM_TASKS
from kept.runtime import Runtime, SystemRuntime
from kept.sdk import checks
from kept.sdk.batches import (
    DEFAULT_SIZE,
    DEFAULT_WAIT_SECONDS,
    Batch,
    BatchDeclaration,
    one_of,
)
from kept.sdk.context import Context
from kept.sdk.dead import DeadLetters
from kept.sdk.duplicates import Singleton, SingletonMode
from kept.sdk.functions import Declaration, Function, Registry
from kept.sdk.guarded import Guarded
from kept.sdk.handle import Handle, WorkState, send_message, state_of
from kept.sdk.loop import refuse_in_durable_code
from kept.sdk.options import Exhausted, JobOptions, checked_queue
from kept.sdk.promises import Promises
from kept.sdk.queues import Queues
from kept.sdk.retry import Retry
from kept.sdk.schedules import Plan, Scheduled
from kept.sdk.services import Services
from kept.sdk.starts import Starts
from kept.sdk.sync import SyncApp
from kept.sdk.worker import MAX_CACHED, MIN_TTL_SECONDS, STOP_GRACE_SECONDS, Worker

P = ParamSpec("P")
T = TypeVar("T")
X = TypeVar("X")
R = TypeVar("R")

MAX_BATCH_ITEMS = 100_000
DEFAULT_URL = "sqlite:///kept.db"
DEFAULT_QUEUE = "default"


class App(Starts, Guarded, Scheduled):
    """The functions of a program, run durably.

    `url` is where promises are kept: `sqlite:///kept.db` (the default, or the environment's
    KEPT_URL) runs an engine in this process on that file, which several processes may share;
    `http://host:8420` talks to a server. `queue` is where its work waits; its worker takes work from
    there, from its functions' own queues and from `queues`. `worker=False` starts
    work and reads results only. `ttl` is how many seconds a crashed worker's work waits before
    another goes on with it; `concurrency` is how many tasks a worker holds at one time, and `cache`
    how many suspended workflows it keeps in memory, to go on with them without a replay. `grace` is
    how many seconds work may go on when the app is closed; what is left then is handed back.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        queue: str = DEFAULT_QUEUE,
        queues: Iterable[str] = (),
        token: str | None = None,
        worker: bool = True,
        ttl: float = 30.0,
        concurrency: int = 100,
        cache: int = MAX_CACHED,
        grace: float = STOP_GRACE_SECONDS,
        runtime: Runtime | None = None,
    ) -> None:
        if ttl < MIN_TTL_SECONDS:
            raise ConfigurationError(f"ttl: must be at least {MIN_TTL_SECONDS} seconds")
        if not 1 <= concurrency <= MAX_CLAIM_TASKS:
            raise ConfigurationError(f"concurrency: must be from 1 to {MAX_CLAIM_TASKS}")
        if cache < 0:
            raise ConfigurationError("cache: must not be negative")
        self.url = url or os.environ.get("KEPT_URL") or DEFAULT_URL
        self.queue = checked_queue(queue)
        if isinstance(queues, str):
            raise ConfigurationError(f"queues: must be several names, such as [{queues!r}]")
        self._more_queues = tuple(checked_queue(each) for each in queues)
        self._token = token or os.environ.get("KEPT_TOKEN")
        self._works = worker
        self._ttl = ttl
        self._concurrency = concurrency
        self._cache = cache
        self._grace = grace
        self._runtime = runtime or SystemRuntime()
        self._own_runtime = runtime is None
        self._registry = Registry()
        self._plans: dict[str, Plan] = {}
        self._services: Services | None = None
        self._worker: Worker | None = None
        self._opening = False
        self._process = 0
        self._sync = SyncApp(self)
        # Of the processes that this one was forked from: kept, because nobody may close it here.
        self._inherited: list[Services] = []

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
        priority: int | None = None,
        lane: str | None = None,
        exhausted: Exhausted | None = None,
        singleton: SingletonMode | Singleton | None = None,
    ) -> Declaration: ...
    def function(
        self,
        plain: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        version: int = 1,
        retry: Retry | None = None,
        queue: str | None = None,
        priority: int | None = None,
        lane: str | None = None,
        exhausted: Exhausted | None = None,
        singleton: SingletonMode | Singleton | None = None,
    ) -> Any:
        """Registers a function: `@app.function`, or with options `@app.function(retry=…)`.

        One that takes a `Context` first is durable code; any other is a step or a job. `name`
        (default: the function's) and `version` are what it is known by to other processes; work
        that was started under a version is finished by that version. `retry` says how often a
        failed step or job is tried. `queue` is where its work waits (default: the app's), with
        `priority` (0 to 9, higher first) and in `lane`, as for `start`. `exhausted` is what
        becomes of work that is given up on: "reject", or "halt", so that whoever waits goes on
        waiting until an operator replays it; durable code is halted when its workers die of it.
        `singleton` says what a start of it comes to while another one is under way.

        Raises `ConfigurationError` and `InvalidArgumentsError`.
        """
        options = JobOptions(queue, priority, lane, exhausted=exhausted)

        def register(function: Any) -> Function[..., Any]:
            registered: Function[..., Any] = Function(
                function,
                name=name,
                version=version,
                retry=retry,
                options=options,
                singleton=singleton,
            )
            self._registry.add(registered)
            return registered

        return register if plain is None else register(plain)

    @overload
    def batched(
        self, handler: Callable[[list[X]], Awaitable[list[R]]], /
    ) -> Function[[X], Awaitable[R]]: ...
    @overload
    def batched(self, handler: Callable[[list[X]], list[R]], /) -> Function[[X], Awaitable[R]]: ...
    @overload
    def batched(self, handler: Callable[[list[X]], Any], /) -> Function[[X], Awaitable[Any]]: ...
    @overload
    def batched(
        self,
        handler: None = None,
        /,
        *,
        max_size: int = DEFAULT_SIZE,
        max_wait: float = DEFAULT_WAIT_SECONDS,
        name: str | None = None,
        version: int = 1,
        retry: Retry | None = None,
        queue: str | None = None,
    ) -> BatchDeclaration: ...
    def batched(
        self,
        handler: Callable[..., Any] | None = None,
        /,
        *,
        max_size: int = DEFAULT_SIZE,
        max_wait: float = DEFAULT_WAIT_SECONDS,
        name: str | None = None,
        version: int = 1,
        retry: Retry | None = None,
        queue: str | None = None,
    ) -> Any:
        """Registers a function over a list as a step, or a job, of one item:

        @app.batched(max_size=500)
        async def insert(rows: list[Row]) -> list[int]: ...

        key = await ctx.run(insert, row)

        What workflows and jobs of this worker ask for at the same time is done by one call, of at
        most `max_size` items; each has a durable result of its own. A batch begins when it is full,
        when nothing else on the worker can make progress, or `max_wait` seconds after its first item
        came. The handler returns a list with one result for each item, or one value for all; an
        exception in the list, or raised, is the failure of that item, or of all, and `retry` counts
        for each. All else is as for `function`.

        Raises `ConfigurationError` and `InvalidArgumentsError`.
        """
        checks.whole("max_size", max_size, 1, MAX_BATCH_ITEMS)
        wait = checks.seconds("max_wait", max_wait)

        def register(handler: Callable[..., Any]) -> Function[..., Any]:
            registered: Function[..., Any] = Function(
                one_of(handler),
                name=name,
                version=version,
                retry=retry,
                options=JobOptions(queue),
            )
            registered.batch = Batch(Function(handler, name=registered.name), max_size, wait)
            self._registry.add(registered)
            return registered

        return register if handler is None else register(handler)

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
        """Connects, and starts the worker. Raises `StoreError`, `ConfigurationError`; and where
        schedules are declared and cannot be put now, `ConnectionFailedError` or `RequestError`."""
        if self._opening or (self._services is not None and self._process == os.getpid()):
            raise ConfigurationError("the app is open already")
        if self._services is not None:
            self._leave_to_parent(self._services)
        self._opening = True
        try:
            connection = await self._connect()
            services = Services(connection, self._runtime, self._registry, self.queue)
            if self._works:
                try:
                    await self._put_schedules(services)
                except BaseException:
                    await connection.close()
                    raise
        finally:
            self._opening = False
        self._process = os.getpid()
        self._services = services
        if self._works:
            self._worker = Worker(
                self._services,
                queues=self._queues(),
                ttl=self._ttl,
                concurrency=self._concurrency,
                cache=self._cache,
            )
            self._worker.start()

    def _leave_to_parent(self, services: Services) -> None:
        """This process was forked: what was open is its parent's, and its threads do not run here."""
        self._inherited.append(services)
        self._services = self._worker = None
        if self._own_runtime:
            self._runtime = SystemRuntime()

    async def _connect(self) -> Connection:
        return await connect(self.url, self._runtime, self._token)

    async def close(self) -> None:
        """Stops the worker, hands back what it holds, and closes the connection; idempotent."""
        services, worker = self._services, self._worker
        self._services = self._worker = None
        if services is None or self._process != os.getpid():
            return
        try:
            if worker is not None:
                await worker.stop(self._grace)
        finally:
            await services.connection.close()

    async def work(self, stop: asyncio.Event | None = None) -> None:
        """Works until `stop` is set, or for ever: what `kept worker` runs.

        Then it claims no more, finishes what it can soon, and hands back the rest.
        """
        async with self:
            await (stop or asyncio.Event()).wait()

    def _queues(self) -> tuple[str, ...]:
        named = [f.queue for f in self._registry.all() if f.queue is not None]
        return tuple(dict.fromkeys([self.queue, *named, *self._more_queues]))

    @property
    def sync(self) -> SyncApp:
        """The app for code that does not await: `app.sync.run(checkout, order)`."""
        return self._sync

    @property
    def promises(self) -> Promises:
        """Promises that somebody outside settles: `await app.promises.resolve("review-7.approval", True)`."""
        return Promises(self._open_services)

    @property
    def dead(self) -> DeadLetters:
        """Work that was given up on. The app must be open."""
        return DeadLetters(self._open_services)

    @property
    def queues(self) -> Queues:
        """Settings of queues, and how they stand. The app must be open."""
        return Queues(self._open_services)

    @property
    def connection(self) -> Connection:
        """The connection, for requests of the protocol itself. The app must be open."""
        return self._open_services().connection

    @property
    def runtime(self) -> Runtime:
        """The clock, timers and threads that the app uses."""
        return self._runtime

    def _open_services(self) -> Services:
        refuse_in_durable_code("using the app", "durable code starts work with ctx.call()")
        if self._services is None:
            raise ConfigurationError("the app is not open: use it inside 'async with app:'")
        if self._process != os.getpid():
            raise ConfigurationError(
                "the app was opened before this process was forked; open it in the child instead"
            )
        return self._services

    # -- work that was started ---------------------------------------------------------------------

    def handle(self, id: str, type: Any = Any) -> Handle[Any]:
        """A handle to work that was started elsewhere; `type` is what its result must be."""
        services = self._open_services()
        return Handle(id, services.connection, self._runtime, type)

    async def send(self, id: str, name: str, value: Any = None, *, key: str | None = None) -> int:
        """Sends a message to the mailbox `name` of work that is under way; answers its number.

        The work gets it from `ctx.receive(name)`, now or later. The same `key` is the same message,
        for a week. Raises `NotFoundError` where there is no such work, `ConflictError` where it has
        ended, `BadRequestError` for a name that is not `[a-z0-9_-]{1,64}`. Protocol B8.
        """
        connection = self._open_services().connection
        return await send_message(connection, self._runtime, id, name, value, key)

    async def state(self, id: str) -> WorkState:
        """What work says of itself with `ctx.set_state` and `ctx.progress`, also after its end.

        Raises `NotFoundError` where there is no such work. Protocol B8.
        """
        return await state_of(self._open_services().connection, id)
