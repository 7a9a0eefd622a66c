"""`app.schedule`: functions that are started again and again (protocol B10)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Literal, NamedTuple, TypeVar

from kept.client.connection import call
from kept.errors import ConfigurationError
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import Catchup, Overlap
from kept.protocol.schedule_requests import SchedulePut
from kept.sdk import payload
from kept.sdk.functions import Function
from kept.sdk.services import Services

FunctionT = TypeVar("FunctionT", bound=Function[..., Any])

OverlapName = Literal["allow", "skip", "queue"]
CatchupName = Literal["all", "last", "none"]


class Plan(NamedTuple):
    """A schedule as the program says it; `promise_timeout` and the times are ms."""

    key: str
    function: Function[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    cron: str | None
    every: int | None
    zone: str | None
    jitter: int
    overlap: Overlap
    catchup: Catchup
    timeout: int

    def request(self, services: Services) -> SchedulePut:
        """What puts it, on the function's own queue."""
        target = services.target_of(self.function)
        return SchedulePut(
            self.key,
            "{{.id}}.{{.timestamp}}",
            self.timeout,
            cron=self.cron,
            every=self.every,
            zone=self.zone,
            jitter=self.jitter,
            overlap=self.overlap,
            catchup=self.catchup,
            promise_param=payload.encode_arguments(self.args, self.kwargs, services.root_headers),
            promise_tags=target.all_tags,
        )


class Scheduled:
    """The part of `App` that has to do with schedules."""

    _plans: dict[str, Plan]

    def schedule(
        self,
        *,
        cron: str | None = None,
        every: timedelta | float | None = None,
        zone: str | None = None,
        jitter: timedelta | float = 0,
        overlap: OverlapName = "allow",
        catchup: CatchupName = "all",
        timeout: timedelta | float | None = None,
        key: str | None = None,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Callable[[FunctionT], FunctionT]:
        """Starts a registered function again and again: above `@app.function`, as often as wanted.

        `cron` has five fields, or six with seconds first, on the clocks of `zone` (such as
        "Europe/Berlin"; default UTC); or `every` is a timedelta or seconds, at least one. `jitter`
        is up to how long each start is put off. `overlap` is what happens while the last one runs:
        it is started all the same, skipped, or started afterwards. `catchup` is which instants are
        made up for after a standstill or a pause. `timeout` is the deadline of each. `key` is the
        schedule's name (default: the function's); a function with several needs one for each.
        `args` and `kwargs` are what it is called with.

        The schedule is put when the app is opened; a new version of the program changes it, and it
        keeps its clock. One that is taken out of the program goes on: `kept schedule delete`.
        Raises `ConfigurationError`, and `InvalidArgumentsError` where the arguments do not fit.
        """
        if (cron is None) is (every is None):
            raise ConfigurationError("schedule: say either cron or every")

        def declare(function: FunctionT) -> FunctionT:
            if not isinstance(function, Function):
                raise ConfigurationError(
                    f"{function!r} is not registered: @app.schedule stands above @app.function"
                )
            function.check(args, kwargs or {})
            name = key or function.name
            if name in self._plans:
                raise ConfigurationError(
                    f"there is a schedule {name!r} already; give one of them another key"
                )
            self._plans[name] = Plan(
                name,
                function,
                args,
                kwargs or {},
                cron,
                None if every is None else _milliseconds(every),
                zone,
                _milliseconds(jitter),
                Overlap(overlap),
                Catchup(catchup),
                NEVER_MS if timeout is None else _milliseconds(timeout),
            )
            return function

        return declare

    async def _put_schedules(self, services: Services) -> None:
        for plan in self._plans.values():
            await call(services.connection, plan.request(services))


def _milliseconds(span: timedelta | float) -> int:
    return int(payload.as_seconds(span) * 1_000)
