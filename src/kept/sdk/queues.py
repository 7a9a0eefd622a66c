"""`app.queues`: settings of queues, and how they stand (protocol B2)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, NamedTuple, TypedDict, TypeVar, Unpack

from kept.client.connection import call
from kept.errors import ConnectionFailedError, InvalidArgumentsError
from kept.protocol import requests as r
from kept.protocol import responses as a
from kept.protocol.entries import LaneLimits, RateLimit
from kept.protocol.limits import (
    MAX_INTEGER,
    MAX_LANE_WEIGHT,
    MAX_RATE_PERIOD_MS,
    MAX_SEARCH_ROWS,
    MIN_RETENTION_MS,
)
from kept.sdk import checks
from kept.sdk.checks import Span
from kept.sdk.options import checked_queue
from kept.sdk.services import Services

R = TypeVar("R", bound=a.Result)


class Rate(NamedTuple):
    """At most `limit` starts in each period of `per` (a timedelta or seconds)."""

    limit: int
    per: Span = 1.0


class Lane(NamedTuple):
    """What holds for a lane: how many of its jobs run at one time, how often they start, and how
    many turns it gets in each round (default 1)."""

    concurrency: int | None = None
    rate: Rate | None = None
    weight: int | None = None


class QueueOptions(TypedDict, total=False):
    """Settings of a queue; None takes one back.

    `concurrency` is how many of its jobs run at one time, `rate` how many start in a period. `lane`
    says the same of each of its lanes, `lanes` of some by name. `max_depth` is how many may wait
    before new ones are refused, `aging` what wait is worth one step of priority (default 60 s).
    `retention` is how long settled work and its results stay (default 7 days), and `keep_ids`
    whether ids are known for ever, so that nothing of it runs again. Times are timedeltas or seconds.
    """

    concurrency: int | None
    rate: Rate | None
    lane: Lane | None
    lanes: Mapping[str, Lane] | None
    max_depth: int | None
    aging: Span | None
    paused: bool | None
    retention: Span | None
    keep_ids: bool | None


class Queues:
    """The queues of an engine. All of it is at any time, for any process."""

    def __init__(self, services: Callable[[], Services]) -> None:
        self._services = services

    async def put(self, name: str, **settings: Unpack[QueueOptions]) -> a.QueueRecord:
        """Sets what is named, and answers with all settings; what is not named stays as it is.

        Raises `InvalidArgumentsError`, and `TypeError` for a setting that there is not.
        """
        given = {setting: _checked(setting, value) for setting, value in settings.items()}
        return (await self._ask(r.QueuePut(checked_queue(name), **given), a.QueueResult)).queue

    async def get(self, name: str) -> a.QueueRecord:
        """The settings. Raises `NotFoundError` for a queue that has none."""
        return (await self._ask(r.QueueGet(name), a.QueueResult)).queue

    async def list(self) -> AsyncIterator[a.QueueRecord]:
        """Those that have settings, by name: `async for queue in app.queues.list()`."""
        cursor: str | None = None
        while True:
            page = await self._ask(r.QueueList(MAX_SEARCH_ROWS, cursor), a.QueuePage)
            for queue in page.queues:
                yield queue
            cursor = page.cursor
            if cursor is None:
                return

    async def delete(self, name: str) -> None:
        """Forgets the settings; the jobs stay. Raises `NotFoundError`."""
        await self._ask(r.QueueDelete(name), a.Nothing)

    async def pause(self, name: str) -> a.QueueRecord:
        """Lets nothing start; what runs goes on, and new jobs may come."""
        return (await self._ask(r.QueuePause(checked_queue(name)), a.QueueResult)).queue

    async def resume(self, name: str) -> a.QueueRecord:
        """Undoes a pause."""
        return (await self._ask(r.QueueResume(checked_queue(name)), a.QueueResult)).queue

    async def stats(self, name: str) -> a.QueueNumbers:
        """How many of its tasks are in which state; a moment old, perhaps."""
        return (await self._ask(r.QueueStats(name), a.QueueStatsResult)).stats

    async def _ask(self, request: r.Request, result: type[R]) -> R:
        data = (await call(self._services().connection, request)).data
        if not isinstance(data, result):
            raise ConnectionFailedError(f"the answer to {request.kind} is not of this protocol")
        return data


def _checked(setting: str, value: Any) -> Any:
    """A setting as the request says it."""
    check = _CHECKS.get(setting)
    if check is None:
        raise TypeError(f"there is no setting {setting!r}; there are {', '.join(_CHECKS)}")
    return None if value is None else check(setting, value)


def _count(setting: str, value: Any) -> int:
    return checks.whole(setting, value, 1, MAX_INTEGER)


def _truth(setting: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidArgumentsError(f"{setting}: must be True or False, not {value!r}")
    return value


def _retention(setting: str, value: Any) -> int:
    length = checks.milliseconds(setting, value)
    if length < MIN_RETENTION_MS:
        raise InvalidArgumentsError(f"{setting}: must be at least {MIN_RETENTION_MS / 1_000:g} s")
    return length


def _rate(setting: str, value: Any) -> RateLimit:
    if not isinstance(value, Rate):
        raise InvalidArgumentsError(f"{setting}: must be a kept.Rate(limit, per), not {value!r}")
    period = checks.milliseconds(f"{setting}: per", value.per)
    if not 1 <= period <= MAX_RATE_PERIOD_MS:
        raise InvalidArgumentsError(f"{setting}: per must be from a millisecond to 31 days")
    return RateLimit(_count(f"{setting}: limit", value.limit), period)


def _lane(setting: str, value: Any) -> LaneLimits:
    if not isinstance(value, Lane):
        raise InvalidArgumentsError(f"{setting}: must be a kept.Lane(…), not {value!r}")
    concurrency, rate, weight = value
    return LaneLimits(
        None if concurrency is None else _count(f"{setting}: concurrency", concurrency),
        None if rate is None else _rate(f"{setting}: rate", rate),
        None if weight is None else checks.whole(f"{setting}: weight", weight, 1, MAX_LANE_WEIGHT),
    )


def _lanes(setting: str, value: Any) -> dict[str, LaneLimits]:
    if not isinstance(value, Mapping):
        raise InvalidArgumentsError(f"{setting}: must be a dict of lanes by name, not {value!r}")
    return {
        checks.name(setting, name): _lane(f"{setting}: {name}", each)
        for name, each in value.items()
    }


_CHECKS: Final[dict[str, Callable[[str, Any], Any]]] = {
    "concurrency": _count,
    "rate": _rate,
    "lane": _lane,
    "lanes": _lanes,
    "max_depth": _count,
    "aging": checks.milliseconds,
    "paused": _truth,
    "retention": _retention,
    "keep_ids": _truth,
}
