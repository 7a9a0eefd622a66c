"""Any history of requests and background steps keeps every named property, and ends well.

Hypothesis chooses what is asked, fired and delivered, and in which commits; the monitor looks at
every step. At the end of each history all that is enabled is fired, and what must happen in the end
must have happened.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from kept.check.liveness import EnabledStep, check_liveness
from kept.machine import background as b
from kept.protocol import requests as r
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import PromiseState, TaskState, Value
from tests.unit.machine.world import (
    LISTENER,
    PUSHED,
    World,
    create,
    fulfill,
    record,
    suspend,
)

HISTORIES = 300
STEPS_PER_HISTORY = 50

# How often the guard of each property held, in all histories.
# Properties of requests that have random histories of their own.
ELSEWHERE = (
    *("request_wakes_suspended", "reaches_children", "detached_work"),
    *("cancel_request", "cancel_request_is_seen_to", "per_dedupe_key", "per_singleton_key"),
    "key_is_held_by_its_promise",
    # Nothing is old enough here to leave (B6).
    *("tree_of_something_pending", "root_until_the_last"),
)
REACHED: Counter[str] = Counter()

POOL = [f"p{n}" for n in range(6)]
IDS = st.sampled_from(POOL)
ADDRESSES = st.sampled_from([LISTENER, "poll://any@group"])
SETTLED = st.sampled_from(
    [PromiseState.RESOLVED, PromiseState.REJECTED, PromiseState.REJECTED_CANCELED]
)
VALUES = st.sampled_from([Value(), Value(data="1"), Value({"a": "b"}, "2")])
TAGS = st.sampled_from(
    [
        {},
        {"external": "true"},
        {"timer": "true"},
        {"target": PUSHED},
        {"target": PUSHED},
        {"target": PUSHED, "timer": "true"},
        {"queue": "q"},
        {"queue": "q", "attempts": "1"},
        {"queue": "q", "attempts": "2", "exhausted": "halt", "backoff": "fixed:0"},
        {"queue": "q", "function": "f@1", "priority": "3"},
    ]
)
# Relative to now: past, at once, soon, later, never.
DEADLINES = st.sampled_from([-5, 0, 1, 20, 200, 5_000, None, None])
DELAYS = st.sampled_from([None, None, None, 10, 100])
TTLS = st.sampled_from([1, 20, 10_000])
STALE = st.sampled_from([0, 0, 0, 0, 1, -1])
REQUEST_IDS = st.sampled_from([None, None, "u1", "u2"])

_STEPS = {
    "promise.timeout": b.TimeoutPromise,
    "callback": b.DrainEdges,
    "listener": b.DrainEdges,
    "lease.expire": b.ExpireLease,
    "task.retry": b.RetryTask,
    "task.ready": b.ReadyTask,
    "schedule.fire": b.FireSchedule,
}


class MachineRules(RuleBasedStateMachine):
    """The machine over tables in memory, and a clock that a rule moves."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        # Requests that are gathered into the next commit; none: each is one by itself.
        self.gathered: list[tuple[r.Request, str | None]] | None = None

    def ask(self, request: r.Request, request_id: str | None = None) -> None:
        if self.gathered is not None:
            self.gathered.append((request, request_id))
        else:
            assert self.world.ask(request, request_id=request_id).status < 500

    def _version(self, id: str, stale: int) -> int:
        task = self.world.dump.tasks.get(id)
        return max(0, (task.version if task else 0) + stale)

    def _one_of(self, id: str, ids: set[str]) -> str:
        """The id, or one of the ids where it is none of them."""
        return id if id in ids or not ids else sorted(ids)[int(id[1:]) % len(ids)]

    def _held(self, id: str) -> str:
        tasks = self.world.dump.tasks.values()
        return self._one_of(id, {t.id for t in tasks if t.state is TaskState.ACQUIRED})

    def _awaitable(self, id: str) -> str:
        promises = self.world.dump.promises.values()
        waiting = {p.id for p in promises if p.pending and p.is_external}
        return self._one_of(id, waiting & set(POOL))

    def _targeted(self, id: str) -> str:
        tasks = self.world.dump.tasks.values()
        live = {t.id for t in tasks if t.state is not TaskState.FULFILLED}
        return self._one_of(id, live)

    def _delayed(self, delay: int | None) -> dict[str, str]:
        return {} if delay is None else {"delay": str(self.world.now + delay)}

    def _deadline(self, ahead: int | None) -> int:
        return NEVER_MS if ahead is None else self.world.now + ahead

    @initialize(tags=st.lists(TAGS, min_size=3, max_size=3), delay=DELAYS)
    def begin(self, tags: list[dict[str, str]], delay: int | None) -> None:
        self.ask(create("p0", external="true"))
        for id, each in zip(POOL[1:], tags, strict=False):
            self.ask(create(id, **each))
        self.ask(create(POOL[4], queue="q", **self._delayed(delay)))

    def _awaited(self, id: str) -> str:
        return self._one_of(id, {edge.of for edge in self.world.dump.callbacks} & set(POOL))

    # -- commits and time ------------------------------------------------------------------------

    @precondition(lambda self: self.gathered is None)
    @rule()
    def gather(self) -> None:
        self.gathered = []

    @precondition(lambda self: self.gathered is not None)
    @rule()
    def commit(self) -> None:
        gathered, self.gathered = self.gathered or [], None
        answers = self.world.batch(
            [each for each, _ in gathered], request_ids=[id for _, id in gathered]
        )
        assert all(answer.status < 500 for answer in answers)

    @rule(milliseconds=st.sampled_from([0, 1, 19, 20, 200, 5_000]))
    def time_passes(self, milliseconds: int) -> None:
        self.world.pass_time(milliseconds)

    # -- requests --------------------------------------------------------------------------------

    @rule(id=IDS, tags=TAGS, ahead=DEADLINES, delay=DELAYS, parent=IDS, value=VALUES)
    def create(
        self,
        id: str,
        tags: dict[str, str],
        ahead: int | None,
        delay: int | None,
        parent: str,
        value: Value,
    ) -> None:
        tags = {**tags, **self._delayed(delay)}
        self.ask(create(id, timeout_at=self._deadline(ahead), param=value, parent=parent, **tags))

    @rule(id=IDS, tags=TAGS, ahead=DEADLINES, ttl=TTLS)
    def task_create(self, id: str, tags: dict[str, str], ahead: int | None, ttl: int) -> None:
        request = create(id, timeout_at=self._deadline(ahead), **{"target": PUSHED, **tags})
        self.ask(r.TaskCreate("w", ttl, r.CreateAction(request)))

    @rule(id=IDS, state=SETTLED, value=VALUES)
    def settle(self, id: str, state: PromiseState, value: Value) -> None:
        self.ask(r.PromiseSettle(id, state, value))

    @rule(id=IDS, state=SETTLED)
    def settle_what_is_awaited(self, id: str, state: PromiseState) -> None:
        self.ask(r.PromiseSettle(self._awaited(id), state))

    @rule(awaited=IDS, awaiter=IDS)
    def callback(self, awaited: str, awaiter: str) -> None:
        awaited, awaiter = self._awaitable(awaited), self._targeted(awaiter)
        self.ask(r.PromiseRegisterCallback(awaited, awaiter))

    @rule(awaited=IDS, address=ADDRESSES)
    def listener(self, awaited: str, address: str) -> None:
        self.ask(r.PromiseRegisterListener(self._awaitable(awaited), address))

    @rule(id=IDS, stale=STALE, ttl=TTLS, request_id=REQUEST_IDS)
    def acquire(self, id: str, stale: int, ttl: int, request_id: str | None) -> None:
        self.ask(r.TaskAcquire(id, self._version(id, stale), "w", ttl), request_id)

    @rule(ttl=TTLS, limit=st.integers(1, 3), request_id=REQUEST_IDS)
    def claim(self, ttl: int, limit: int, request_id: str | None) -> None:
        self.ask(r.TaskClaim(["q"], "w", ttl, limit), request_id)

    @rule(
        concurrency=st.sampled_from([None, 1, 2]),
        depth=st.sampled_from([None, 1, 50]),
        state=st.sampled_from(["open", "open", "paused"]),
    )
    def limit(self, concurrency: int | None, depth: int | None, state: str) -> None:
        paused = state == "paused"
        self.ask(r.QueuePut("q", concurrency=concurrency, max_depth=depth, paused=paused))

    @rule(id=IDS, awaited=st.sets(IDS, min_size=1), stale=STALE, request_id=REQUEST_IDS)
    def suspend(self, id: str, awaited: set[str], stale: int, request_id: str | None) -> None:
        id = self._held(id)
        others = sorted({self._awaitable(each) for each in awaited} - {id}) or ["p0"]
        self.ask(suspend(id, self._version(id, stale), *others), request_id)

    @rule(id=IDS, state=SETTLED, stale=STALE, released=IDS, request_id=REQUEST_IDS)
    def fulfil(
        self, id: str, state: PromiseState, stale: int, released: str, request_id: str | None
    ) -> None:
        id = self._held(id)
        version = self._version(id, stale)
        self.ask(fulfill(id, version, state, released=[released]), request_id)

    @rule(id=IDS)
    def finish(self, id: str) -> None:
        """A whole life at once, and its last request a second time."""
        id = self._targeted(id)
        self.ask(r.TaskAcquire(id, self._version(id, 0), "w", 20))
        version = self._version(id, 0)
        for _ in range(2):
            self.ask(fulfill(id, version), "u3")

    @rule(id=IDS, child=IDS, state=SETTLED, stale=STALE, request_id=REQUEST_IDS)
    def record(
        self, id: str, child: str, state: PromiseState, stale: int, request_id: str | None
    ) -> None:
        id = self._held(id)
        self.ask(record(id, self._version(id, stale), child, state=state), request_id)

    @rule(id=IDS, child=IDS, tags=TAGS, ahead=DEADLINES, stale=STALE)
    def fence_create(
        self, id: str, child: str, tags: dict[str, str], ahead: int | None, stale: int
    ) -> None:
        id = self._held(id)
        action = r.CreateAction(create(child, timeout_at=self._deadline(ahead), **tags))
        self.ask(r.TaskFence(id, self._version(id, stale), action))

    @rule(
        id=IDS,
        stale=STALE,
        delay=st.sampled_from([None, 0, 20]),
        consume=st.booleans(),
        final=st.sampled_from([None, None, "halt", "reject"]),
        request_id=REQUEST_IDS,
    )
    def nack(
        self,
        id: str,
        stale: int,
        delay: int | None,
        consume: bool,  # noqa: FBT001
        final: str | None,
        request_id: str | None,
    ) -> None:
        id = self._held(id)
        version = self._version(id, stale)
        self.ask(r.TaskNack(id, version, delay, final=final, consume=consume), request_id)

    @rule(id=IDS, kind=st.sampled_from(["release", "halt", "continue", "heartbeat", "replay"]))
    def other(self, id: str, kind: str) -> None:
        version = self._version(id, 0)
        requests: dict[str, r.Request] = {
            "release": r.TaskRelease(self._held(id), self._version(self._held(id), 0)),
            "halt": r.TaskHalt(id),
            "continue": r.TaskContinue(id),
            "heartbeat": r.TaskHeartbeat("w", [r.TaskRef(id, version)], report=True),
            "replay": r.DeadReplay([id]),
        }
        self.ask(requests[kind])

    @rule(tags=TAGS, timeout=st.sampled_from([0, 500, 100_000]), id=st.sampled_from(["s", "t"]))
    def schedule(self, tags: dict[str, str], timeout: int, id: str) -> None:
        named = create("x", **tags).tags
        self.ask(
            r.ScheduleCreate(
                id, "*/3 * * * * *", "{{.id}}.{{.timestamp}}", timeout, promise_tags=named
            )
        )

    @rule(id=st.sampled_from(["s", "t"]))
    def unschedule(self, id: str) -> None:
        self.ask(r.ScheduleDelete(id))

    # -- the background --------------------------------------------------------------------------

    @precondition(lambda self: self.gathered is None)
    @rule(id=IDS, kind=st.sampled_from(sorted(_STEPS)))
    def fire(self, id: str, kind: str) -> None:
        """Enabled or not."""
        self.world.fire(_STEPS[kind]("s" if kind == "schedule.fire" else id))

    @precondition(lambda self: self.gathered is None)
    @rule()
    def background(self) -> None:
        self.world.settle_down()

    @precondition(lambda self: self.gathered is None and self.world.outbox)
    @rule(number=st.integers(0, 20), delivered=st.booleans())
    def send(self, number: int, delivered: bool) -> None:  # noqa: FBT001
        entry = self.world.outbox[number % len(self.world.outbox)]
        (taken,) = self.world.fire(b.TakeMessage(entry.key, self.world.now + 1))
        if taken is not None and delivered:
            self.world.fire(b.DeliveredMessage(taken.key, taken.version))
        elif taken is not None:
            self.world.fire(b.FailedMessage(taken.key, taken.version, self.world.now + 20))

    # -- at the end ------------------------------------------------------------------------------

    def teardown(self) -> None:
        if self.gathered is not None:
            self.commit()
        world, monitor = self.world, self.world.monitor
        assert monitor is not None
        monitor.check_everything()
        # Before and after the deadlines of those who wait.
        for later in (0, 300, 10_000):
            world.pass_time(later)
            check_liveness(monitor.state, self._fire_enabled, world.now, rounds=12)
        monitor.check_everything()
        REACHED.update(monitor.reached())

    def _fire_enabled(self, step: EnabledStep) -> None:
        self.world.fire(_STEPS[step.name](step.id))


def test_any_history_keeps_every_property_and_ends_well() -> None:
    """No step of any history makes a named property false, nothing that must happen stays undone,
    and the guard of every property was reached: each has checked something."""
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        MachineRules,
        settings=settings(
            max_examples=HISTORIES,
            stateful_step_count=STEPS_PER_HISTORY,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    unreached = [name for name, count in REACHED.items() if not count]
    assert [name for name in unreached if not name.endswith(ELSEWHERE)] == []
