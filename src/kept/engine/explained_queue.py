"""Why a job does not start: its time, what holds its queue or lane, who could run it, who is before it.

What a claim looks at is asked here too, one record each; what would have to be counted among very many
is counted up to a bound.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from kept.engine.lookup import Lookup
from kept.engine.pace import Pace
from kept.engine.workers import announced_workers
from kept.machine.limits import limits_of, next_window, rate_key, settings_key
from kept.protocol.entries import QueueSettings, RateLimit
from kept.protocol.inquiries import Holding, Reason
from kept.protocol.records import Task
from kept.protocol.responses import WorkerRecord
from kept.protocol.spoken import spoken, timestamp
from kept.protocol.storage import DEFAULT_TENANT, Slots

# Jobs before this one are counted so far.
MAX_BEFORE: Final = 10_000
MAX_HOLDERS_SHOWN: Final = 10
# Beyond this many a concurrency is not looked at.
MAX_HOLDERS_COUNTED: Final = 10_000
_HIDDEN: Final = "(another's)"


class Line(NamedTuple):
    """Where a job stands: how many are before it, how long those take, who could run it."""

    before: int | None
    at_least: bool
    estimate_ms: int | None
    workers: int


class QueueCase:
    """The question of one job that is pending in a queue."""

    def __init__(self, lookup: Lookup, pace: Pace, now: int, prefix: str) -> None:
        self._lookup = lookup
        self._pace = pace
        self._now = now
        self._prefix = prefix

    async def explain(self, task: Task) -> tuple[list[Reason], Line]:
        """All that keeps it from starting, the most certain first; and where it stands."""
        assert task.queue is not None
        reasons = _time(task, self._now)
        reasons += await self._limits(task, task.queue)
        workers = await self._workers(task, task.queue)
        if not workers:
            what = task.function if task.function is not None else "work without a function"
            text = f"No worker announces that it runs {what} from queue {task.queue}."
            reasons.append(Reason("no_worker", text))
        line = await self._line(task, task.queue, workers)
        reasons.append(_place(task, task.queue, line, is_free=not reasons))
        return reasons, line

    async def _limits(self, task: Task, queue: str) -> list[Reason]:
        data = await self._lookup.entry(settings_key(queue))
        if not isinstance(data, QueueSettings):
            return []
        reasons: list[Reason] = []
        if data.paused:
            text = f"Queue {queue} is paused; `kept queue resume {queue}` ends that."
            reasons.append(Reason("paused", text))
        lane = limits_of(data, task.lane)
        of_lane = f"lane {task.lane} of queue {queue}"
        for slots, concurrency, rate, name in (
            (Slots(queue), data.concurrency, data.rate, f"queue {queue}"),
            (Slots(queue, task.lane), lane.concurrency, lane.rate, of_lane),
        ):
            kind = "" if slots.lane is None else "lane_"
            found = await self._concurrency(slots, concurrency, name, kind)
            reasons += [*found, *await self._rate(slots, rate, name, kind)]
        return reasons

    async def _concurrency(
        self, slots: Slots, limit: int | None, name: str, kind: str
    ) -> list[Reason]:
        if limit is None or limit > MAX_HOLDERS_COUNTED:
            return []
        lookup = self._lookup
        found = await lookup.store.holders(lookup.tenant, slots, limit)
        if len(found) < limit:
            return []
        holders = [
            Holding(holder.id if holder.id.startswith(self._prefix) else _HIDDEN, *holder[1:])
            for holder in found[:MAX_HOLDERS_SHOWN]
        ]
        names = ", ".join(f"{holder.id} on {holder.pid}" for holder in holders)
        more = f" and {limit - len(holders)} more" if limit > len(holders) else ""
        text = f"All {limit} slots of {name} are taken: by {names}{more}."
        if limit == 1:
            text = f"The one slot of {name} is taken: by {names}."
        return [Reason(f"{kind}concurrency", text, limit=limit, holders=list(holders))]

    async def _rate(
        self, slots: Slots, rate: RateLimit | None, name: str, kind: str
    ) -> list[Reason]:
        if rate is None:
            return []
        opens_at = next_window(await self._lookup.entry(rate_key(slots)), rate, self._now)
        if opens_at is None:
            return []
        text = (
            f"{rate.limit} of {name} have started in this period of {spoken(rate.period)}, "
            f"as many as may; the next begins at {timestamp(opens_at)}."
        )
        return [Reason(f"{kind}rate", text, opens_at, rate.limit)]

    async def _workers(self, task: Task, queue: str) -> list[WorkerRecord]:
        lookup = self._lookup
        announced = await announced_workers(lookup.store, self._now, lookup.tenant, self._prefix)
        return [worker for worker in announced if _runs(worker, queue, task.function)]

    async def _line(self, task: Task, queue: str, workers: list[WorkerRecord]) -> Line:
        if not task.ready:
            # It is not among those that a claim finds by their rank.
            return Line(None, False, None, len(workers))
        lookup = self._lookup
        before = await lookup.store.count_before(lookup.tenant, task.id, MAX_BEFORE)
        pace = self._pace.per_second(lookup.tenant, queue, task.lane, self._now)
        estimate = None if pace is None else round((before + 1) / pace * 1_000)
        return Line(before, before >= MAX_BEFORE, estimate, len(workers))


def _runs(worker: WorkerRecord, queue: str, function: str | None) -> bool:
    """Whether a worker claims from a queue, and has the function."""
    queues = {*worker.queues, *(each.queue for each in worker.functions)}
    names = {name for f in worker.functions for name in (f.name, f"{f.name}@{f.version}")}
    return queue in queues and (function is None or function in names)


def _time(task: Task, now: int) -> list[Reason]:
    assert task.retry_at is not None
    if task.retry_at <= now:
        return []
    when = timestamp(task.retry_at)
    if task.failures:
        times = "once" if task.failures == 1 else f"{task.failures} times"
        text = f"It failed {times}, and is tried again at {when}."
        return [Reason("backoff", text, task.retry_at)]
    if task.version:
        text = f"A worker handed it back, and it is due again at {when}."
        return [Reason("handed_back", text, task.retry_at)]
    return [Reason("delayed", f"It must not start before {when}.", task.retry_at)]


def _place(task: Task, queue: str, line: Line, *, is_free: bool) -> Reason:
    if line.before is None:
        return Reason("line", "Its place in line is known when it is due.")
    name = f"queue {queue}"
    if task.lane not in (None, DEFAULT_TENANT):
        name = f"lane {task.lane} of {name}"
    if line.before == 0:
        text = f"It is the first in {name}"
        if is_free:
            text += f", and {line.workers} worker{'' if line.workers == 1 else 's'} could take it"
    else:
        count = f"{'At least ' if line.at_least else ''}{line.before:,}"
        text = f"{count} job{'' if line.before == 1 else 's'} of {name} come before it"
    if line.estimate_ms is None:
        return Reason("line", f"{text}; nothing started there lately, so nobody knows how long.")
    return Reason(
        "line", f"{text}; at the pace of late that takes about {spoken(line.estimate_ms)}."
    )
