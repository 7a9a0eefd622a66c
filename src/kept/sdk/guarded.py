"""`app.once`, `app.lock`, `app.slot`, `app.bucket`, `app.guard`: what an app offers against doing too
much, twice or too late (protocol B5)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar, overload

from kept.client.connection import Connection
from kept.errors import StaleRevisionError, error_for
from kept.protocol import guard_requests as g
from kept.protocol.responses import CONFLICT, GuardAdvanceResult
from kept.runtime import Runtime
from kept.sdk import payload
from kept.sdk.buckets import Bucket
from kept.sdk.held import Held
from kept.sdk.ledger import DEFAULT_WINDOW_SECONDS, Asked, Ledger
from kept.sdk.loop import refuse_in_durable_code
from kept.sdk.services import Services

T = TypeVar("T")

_ADVICE = "use it inside a step"


class Revision(NamedTuple):
    """Where an entity is after an event that was not late. `repeated`: it was there before."""

    current: int
    repeated: bool


class Guarded:
    """The part of `App` that has to do with guards. Not for durable code: what is true of the world
    now is not true of a replay. Steps and jobs may use all of it."""

    def _open_services(self) -> Services:
        raise NotImplementedError

    @overload
    async def once(
        self,
        key: str,
        function: Callable[..., Awaitable[T]],
        /,
        *args: Any,
        window: timedelta | float = ...,
        ttl: timedelta | float = ...,
        **kwargs: Any,
    ) -> T: ...
    @overload
    async def once(
        self,
        key: str,
        function: Callable[..., T],
        /,
        *args: Any,
        window: timedelta | float = ...,
        ttl: timedelta | float = ...,
        **kwargs: Any,
    ) -> T: ...
    async def once(
        self,
        key: str,
        function: Callable[..., Any],
        /,
        *args: Any,
        window: timedelta | float = DEFAULT_WINDOW_SECONDS,
        ttl: timedelta | float = 30.0,
        **kwargs: Any,
    ) -> Any:
        """Calls `function` once for `key`, whoever asks, in this process or another: one at a time,
        until there is a result. That is recorded, and what everybody gets who asks within `window`
        (a timedelta or seconds; 7 days) of the first call, without another run.

        What the function raises is raised here and not recorded: the next call runs it again, or the
        one that waits already. After a crash another call does so once `ttl` (a timedelta or seconds)
        has passed. It may have had its effect already, so it gets the same idempotency key, if it
        has a parameter `idempotency_key`. The key alone says what is the same: arguments are not
        compared. The result is JSON, as a step's is (docs/guards.md).

        Raises `InvalidArgumentsError` where the arguments do not fit, `TypeError` for a result that
        cannot be stored, `PromiseCanceledError` where an operator canceled it.
        """
        refuse_in_durable_code("app.once()", "await ctx.run() instead, or use it inside a step")
        services = self._open_services()
        callee = services.as_function(function)
        asked = Asked(key, callee, args, kwargs, _milliseconds(window), _milliseconds(ttl))
        return await Ledger(services, asked).result()

    def lock(
        self,
        resource: str,
        *,
        ttl: timedelta | float = 30.0,
        wait: timedelta | float | None = None,
    ) -> Held:
        """`async with app.lock("ledger") as lease:` one holder at a time, of all processes.

        `ttl` (a timedelta or seconds) is how long it stays held after a crash; it is renewed while
        the block runs. `wait` is how long to wait for it, in line: as long as it takes by default, 0
        not at all. Raises `LockHeldError`; the block raises `LockLostError` where the lease ended
        before it did, and its task is cancelled as soon as that is known. Pass `lease.fence` on
        (docs/guards.md).
        """
        refuse_in_durable_code("app.lock()", _ADVICE)
        acquire = g.LockAcquire(resource, "", _milliseconds(ttl))
        return Held(resource, self._opened, acquire, _wait(wait))

    def slot(
        self,
        key: str,
        *,
        limit: int,
        ttl: timedelta | float = 30.0,
        wait: timedelta | float | None = None,
    ) -> Held:
        """`async with app.slot("api", limit=5):` at most `limit` holders at a time, of all processes.
        All else is as with `lock`, except that slots have no fence."""
        refuse_in_durable_code("app.slot()", _ADVICE)
        acquire = g.SlotAcquire(key, limit, "", _milliseconds(ttl))
        return Held(key, self._opened, acquire, _wait(wait))

    def bucket(
        self, key: str, *, limit: int, period: timedelta | float = 1.0, burst: int | None = None
    ) -> Bucket:
        """`await app.bucket("api", limit=10).take()`: at most `limit` in each `period` (a timedelta
        or seconds), of all processes. `burst` is how many may be saved up (default: `limit`)."""
        refuse_in_durable_code("app.bucket()", _ADVICE)
        take = g.BucketTake(key, limit, _milliseconds(period), 1, burst)
        return Bucket(self._opened, take)

    async def guard(
        self, entity: str, revision: int, *, retention: timedelta | float | None = None
    ) -> Revision:
        """Notes that `entity` is at `revision`, unless it is beyond. Raises `StaleRevisionError` for
        a late event. A repeated one is told as such: it was seen, which does not mean that its
        effects are complete. `retention` (default: 7 days) is how long that is known."""
        services = self._open_services()
        length = None if retention is None else _milliseconds(retention)
        response = await services.connection.send(g.GuardAdvance(entity, revision, length))
        if isinstance(response.data, GuardAdvanceResult):
            return Revision(response.data.current, response.data.repeated)
        current = (response.detail or {}).get("current")
        if response.status == CONFLICT and isinstance(current, int):
            raise StaleRevisionError(entity, str(response.data), current)
        raise error_for(response.status, str(response.data), response.detail)

    def _opened(self) -> tuple[Connection, Runtime]:
        services = self._open_services()
        return services.connection, services.runtime


def _milliseconds(length: timedelta | float) -> int:
    return round(payload.as_seconds(length) * 1_000)


def _wait(length: timedelta | float | None) -> int | None:
    return None if length is None else max(0, _milliseconds(length))
