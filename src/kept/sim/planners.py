"""Clients that put, change, pause and delete schedules which they share, and do what those fire (B10).

What must come of it is in `timetable.py`, which looks at every step. Here is what answers must say.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from typing import TYPE_CHECKING, Final

from kept.client.connection import Connection
from kept.errors import ConnectionFailedError
from kept.protocol import requests as r
from kept.protocol import schedule_requests as s
from kept.protocol import tags as tag
from kept.protocol.records import Catchup, Overlap, PromiseState, Value
from kept.protocol.responses import AcquiredTask, ClaimResult, PromiseResult, ScheduleResult
from kept.sim.process import Process
from kept.sim.runtime import SimulatedRuntime
from kept.sim.timetable import ONCE

if TYPE_CHECKING:
    from kept.sim.world import World

Action = Callable[[], Awaitable[None]]

# The kinds of which a run that is long enough must see each succeed, where there are planners.
PLANNED_KINDS: Final = tuple(request.kind for request in s.SCHEDULE_REQUESTS)
PLANS: Final = ("plan-1", "plan-2")
QUEUE: Final = "plans"
# Of each plan the usual one, which most changes leave as it is, and others. Every (ms), cron, zone.
RHYTHMS: Final[tuple[tuple[int | None, str | None, str | None], ...]] = (
    (3_000, None, None),
    (None, "*/4 * * * * *", "Europe/Berlin"),
    (None, "*/10 * * * * *", None),
    (7_000, None, None),
)
# In a run that is longer than others, so that what it fires is not most of it.
SLOW_RHYTHMS: Final[tuple[tuple[int | None, str | None, str | None], ...]] = (
    (37_000, None, None),
    (None, "*/30 * * * * *", "Europe/Berlin"),
    (None, "* * * * *", None),
    (71_000, None, None),
)
SHARE_OF_SAME: Final = 0.7
TIMEOUTS_MS: Final = (4_000, 15_000)
JITTERS_MS: Final = (0, 0, 900)
BACKFILL_MS: Final = (8_000, 20_000)
PAUSE_SECONDS: Final = 1.6
SHARE_OF_NEW: Final = 0.3
# Some runs are longer than what is between two instants.
LONGEST_RUN_SECONDS: Final = 8.0
SHARE_OF_LONG_RUNS: Final = 0.3
LEASE_MS: Final = 10_000
WAIT_MS: Final = 5_000
# In a run that is longer than others, so that what comes to nothing is not most of it.
LONG_WAIT_MS: Final = 20_000
AGAIN_SECONDS: Final = 0.5
# When no client begins anything any more: so seldom that what waits in line is done with.
IN_THE_END_MS: Final = 600_000


class Planner:
    """One of those who plan in a client's process."""

    def __init__(
        self, world: World, process: Process, runtime: SimulatedRuntime, connection: Connection
    ) -> None:
        self._world = world
        self._process = process
        self._runtime = runtime
        self._connection = connection
        self._random: Random = world.random(f"plans {process}")
        self._pid = f"plans-{process.name}-{process.incarnation}"
        self._revision = 0
        self._actions = (
            *[self._put] * 7,
            *[self._pause] * 2,
            *[self._resume] * 2,
            *[self._trigger] * 2,
            self._backfill,
            self._delete,
        )
        self._kinds: dict[str, Action] = {
            s.SchedulePut.kind: self._put,
            s.SchedulePause.kind: self._pause,
            s.ScheduleResume.kind: self._resume,
            s.ScheduleTrigger.kind: self._trigger,
            s.ScheduleBackfill.kind: self._backfill,
        }

    async def plan(self) -> None:
        """Plans while the world is busy; in the end what waits in line may go on, at leisure."""
        await self._tried(self._put)
        while self._world.busy:
            pause = PAUSE_SECONDS * self._world.pace
            await self._runtime.sleep(self._random.expovariate(1 / pause))
            await self._tried(self._next_action())
        for id in PLANS:
            put = s.SchedulePut(id, "{{.id}}-{{.timestamp}}", 1_000, every=IN_THE_END_MS)
            put.overlap, put.paused = Overlap.QUEUE, False
            while not (await self._answer(put)):
                await self._runtime.sleep(AGAIN_SECONDS)

    def _next_action(self) -> Action:
        """Any, or one that has not succeeded yet: there are few in a long run."""
        done = self._world.ledger.succeeded
        new = [action for kind, action in self._kinds.items() if not done[kind]]
        if new and self._random.random() < SHARE_OF_NEW:
            return self._random.choice(new)
        return self._random.choice(self._actions)

    async def _tried(self, action: Action) -> None:
        try:
            await action()
        except ConnectionFailedError:
            self._world.trace.note("failed", self._process.name, "plan")

    async def _answer(self, request: r.Request) -> bool:
        """Whether it succeeded."""
        try:
            return (await self._connection.send(request)).ok
        except ConnectionFailedError:
            return False

    def _id(self) -> str:
        return self._random.choice(PLANS)

    async def _put(self) -> None:
        """A deploy: it may change everything, and mostly keeps the rhythm."""
        id = self._id()
        rhythms = RHYTHMS if self._world.pace == 1 else SLOW_RHYTHMS
        usual = rhythms[PLANS.index(id)]
        is_same = self._random.random() < SHARE_OF_SAME
        every, cron, zone = usual if is_same else self._random.choice(rhythms)
        self._revision += 1
        tags = {tag.TARGET: f"queue://{QUEUE}"}
        jitter = self._random.choice(JITTERS_MS)
        if self._random.random() < 0.2:
            tags, jitter = {tag.EXTERNAL: "true"}, 0
        put = s.SchedulePut(
            id,
            "{{.id}}-{{.timestamp}}",
            self._random.choice(TIMEOUTS_MS),
            cron=cron,
            every=every,
            zone=zone,
            jitter=jitter,
            overlap=self._random.choice(list(Overlap)),
            catchup=self._random.choice(list(Catchup)),
            paused=self._random.choice((None, None, False, False, True)),
            promise_param=Value(data=f"{self._pid}-{self._revision}"),
            promise_tags=tags,
        )
        found = (await self._connection.send(put)).data
        if isinstance(found, ScheduleResult):
            record = found.schedule
            kept = (record.cron or None, record.every, record.promise_param, record.overlap)
            if kept != (cron, every, put.promise_param, put.overlap):
                self._world.ledger.break_off("schedules are as put", f"{put} made {record}")

    async def _pause(self) -> None:
        await self._connection.send(s.SchedulePause(self._id()))

    async def _resume(self) -> None:
        await self._connection.send(s.ScheduleResume(self._id()))

    async def _delete(self) -> None:
        await self._connection.send(r.ScheduleDelete(self._id()))

    async def _trigger(self) -> None:
        """The same key fires once, whoever asks."""
        key = self._random.choice((None, f"key-{self._random.randrange(50)}"))
        trigger = s.ScheduleTrigger(self._id(), key)
        first = (await self._connection.send(trigger)).data
        again = (await self._connection.send(trigger)).data if key else None
        if not isinstance(first, PromiseResult) or not isinstance(again, PromiseResult):
            return
        if first.promise.id != again.promise.id:
            why = f"{trigger}: {first.promise.id}, then {again.promise.id}"
            self._world.ledger.break_off(ONCE, why)

    async def _backfill(self) -> None:
        until = self._runtime.now_ms()
        since = until - self._random.choice(BACKFILL_MS)
        await self._connection.send(s.ScheduleBackfill(self._id(), since, until))

    # -- what is fired

    async def work(self) -> None:
        """Does what is fired; in the end the rest may pass its deadline."""
        while self._world.busy:
            wait = WAIT_MS if self._world.pace == 1 else LONG_WAIT_MS
            claim = r.TaskClaim([QUEUE], self._pid, LEASE_MS, limit=4, wait=wait)
            try:
                claimed = (await self._connection.send(claim)).data
            except ConnectionFailedError:
                claimed = None
            if not isinstance(claimed, ClaimResult):
                await self._runtime.sleep(AGAIN_SECONDS)
                continue
            for each in claimed.tasks:
                self._runtime.spawn(self._done(each), "plan-work")

    async def _done(self, taken: AcquiredTask) -> None:
        id = taken.task.id
        if self._random.random() < SHARE_OF_LONG_RUNS:
            await self._runtime.sleep(self._random.uniform(0, LONGEST_RUN_SECONDS))
        # What is fired says what was put then, whoever does it.
        self._world.boundary.apply(f"{id}/done", taken.promise.param.data or "")
        settle = r.SettleAction(r.PromiseSettle(id, PromiseState.RESOLVED))
        await self._answer(r.TaskFulfill(id, taken.task.version, settle))


def plan(world: World, process: Process, runtime: SimulatedRuntime, connection: Connection) -> None:
    """Begins a client's part in it, where the world has planners."""
    if world.mix.plans:
        planner = Planner(world, process, runtime, connection)
        runtime.spawn(planner.plan(), "plans")
        runtime.spawn(planner.work(), "plan-work")
