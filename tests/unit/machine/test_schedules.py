"""Schedules in full (protocol B10)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kept.machine.background import FireSchedule
from kept.protocol import requests as r
from kept.protocol import schedule_requests as s
from kept.protocol import tags as tag
from kept.protocol.limits import MAX_BACKFILL_SPANS, MAX_WAITING_INSTANTS, NEVER_MS
from kept.protocol.records import Catchup, Overlap, PromiseState, ScheduleRecord
from kept.protocol.responses import PromiseResult, ScheduleResult
from tests.unit.machine.world import START_MS, World

EVERY = 10_000
NEVER_OVER = 10**9


def put(world: World, **options: object) -> ScheduleRecord:
    """The schedule `s`, every ten seconds unless told otherwise."""
    fields: dict[str, object] = {"every": EVERY, "promise_timeout": NEVER_OVER, **options}
    if "cron" in options:
        del fields["every"]
    request = s.SchedulePut("s", "{{.id}}.{{.timestamp}}", **fields)  # type: ignore[arg-type]
    return world.ok(request, ScheduleResult).schedule


def stored(world: World) -> ScheduleRecord:
    return world.ok(r.ScheduleGet("s"), ScheduleResult).schedule


def fired(world: World) -> list[int]:
    """The instants that fired, in units of the rhythm since the start."""
    ids = (id for id in world.dump.promises if id.startswith("s.") and "trigger" not in id)
    return sorted((int(id.removeprefix("s.")) - START_MS) // EVERY for id in ids)


def pass_periods(world: World, count: int, *, parts: int = 1) -> None:
    for _ in range(count * parts):
        world.pass_time(EVERY // parts)
        world.settle_down()


def settle(world: World, period: int) -> None:
    id = f"s.{START_MS + period * EVERY}"
    world.ok(r.PromiseSettle(id, PromiseState.RESOLVED), PromiseResult)
    world.settle_down()


def run_of(*periods: int) -> list[int]:
    return list(periods)


# -- put ---------------------------------------------------------------------------------------------


def test_a_period_is_counted_from_the_creation() -> None:
    """First a period after it, and late firing shifts nothing."""
    world = World()
    record = put(world)
    assert (record.next_run_at, record.cron, record.every) == (START_MS + EVERY, "", EVERY)
    world.pass_time(EVERY * 3 + 7)
    world.settle_down()
    assert fired(world) == [1, 2, 3]
    assert stored(world).next_run_at == START_MS + 4 * EVERY
    assert stored(world).last_run_at == START_MS + 3 * EVERY


def test_the_same_rhythm_keeps_the_clock() -> None:
    """Also when it is overdue: what a redeploy finds unfired fires once, with what is new."""
    world = World()
    put(world)
    pass_periods(world, 2)
    world.pass_time(EVERY)
    before = stored(world)
    after = put(world, promise_tags={"who": "new"})
    assert (after.next_run_at, after.last_run_at) == (before.next_run_at, before.last_run_at)
    assert after.created_at == START_MS
    world.settle_down()
    put(world, promise_tags={"who": "new"})
    world.settle_down()
    assert fired(world) == [1, 2, 3]
    assert world.stored(f"s.{START_MS + 3 * EVERY}").tags["who"] == "new"
    assert "who" not in world.stored(f"s.{START_MS + 2 * EVERY}").tags


def test_another_rhythm_begins_now() -> None:
    """Its own past never fires, and nothing fires a second time."""
    world = World()
    put(world, every=1_000_000)
    world.pass_time(500_000)
    assert put(world).next_run_at == START_MS + 500_000 + EVERY
    record = put(world, cron="* * * * *")
    assert (record.cron, record.every) == ("* * * * *", None)
    assert record.next_run_at > world.now
    assert world.dump.promises == {}


def test_putting_the_same_again_changes_nothing() -> None:
    """The record stays as it is."""
    world = World()
    first = put(world, jitter=5, promise_tags={tag.TARGET: "queue://q"})
    assert put(world, jitter=5, promise_tags={tag.TARGET: "queue://q"}) == first


def test_a_schedule_that_create_made_is_changed_by_put() -> None:
    """And create afterwards changes nothing."""
    world = World()
    create = r.ScheduleCreate("s", "* * * * *", "{{.id}}.{{.timestamp}}", 1_000)
    world.ok(create, ScheduleResult)
    put(world, cron="* * * * *", overlap=Overlap.SKIP)
    record = world.ok(create, ScheduleResult).schedule
    assert (record.overlap, record.promise_timeout) == (Overlap.SKIP, NEVER_OVER)


@pytest.mark.parametrize(
    "options",
    [
        {"every": EVERY, "cron": "* * * * *"},
        {"every": None},
        {"cron": "nonsense"},
        {"cron": "0 0 30 2 *"},
        {"cron": "* * * * *", "zone": "Mars/Olympus"},
        {"cron": "* * * * *", "zone": "../etc/passwd"},
        {"every": EVERY, "zone": "Mars/Olympus"},
        {"every": EVERY, "zone": "Europe/Berlin"},
        {"every": NEVER_MS},
        {"jitter": 5},
        {"jitter": NEVER_OVER, "promise_tags": {tag.TARGET: "queue://q"}},
        {"jitter": 5, "promise_tags": {tag.TARGET: "queue://q", tag.DELAY: "7"}},
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, object]) -> None:
    """Two rhythms or none, no such day, no such zone, a zone of a period, jitter of nothing or
    beyond the deadline."""
    fields: dict[str, object] = {"promise_timeout": NEVER_OVER, **options}
    request = s.SchedulePut("s", "{{.timestamp}}", **fields)  # type: ignore[arg-type]
    world = World()
    assert world.status(request) == 400
    assert world.dump.schedules == {}


@pytest.mark.parametrize(
    "kind", [s.SchedulePause, s.ScheduleResume, s.ScheduleTrigger, lambda id: backfill(id, 0, 9)]
)
def test_what_is_not_there_cannot_be_changed(kind: type[s.SchedulePause]) -> None:
    """Pausing, resuming, triggering, filling in: a 404."""
    assert World().status(kind("s")) == 404


# -- pause and catching up ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("catchup", "expected"),
    [
        (Catchup.ALL, run_of(1, 2, 3, 4, 5, 6)),
        (Catchup.LAST, run_of(1, 5, 6)),
        (Catchup.NONE, run_of(1, 6)),
    ],
)
def test_what_a_pause_missed(catchup: Catchup, expected: Sequence[int]) -> None:
    """Nothing fires while it lasts; resuming fires all of it, the last, or none."""
    world = World()
    put(world, catchup=catchup)
    pass_periods(world, 1)
    world.ok(s.SchedulePause("s"), ScheduleResult)
    pass_periods(world, 4)
    world.fire(FireSchedule("s"))
    assert fired(world) == [1]
    assert put(world, catchup=catchup).paused
    world.ok(s.ScheduleResume("s"), ScheduleResult)
    world.ok(s.ScheduleResume("s"), ScheduleResult)
    world.settle_down()
    pass_periods(world, 1)
    assert fired(world) == expected


@pytest.mark.parametrize(
    ("catchup", "expected"),
    [
        (Catchup.ALL, run_of(*range(1, 252))),
        (Catchup.LAST, run_of(250, 251)),
        (Catchup.NONE, run_of(*range(245, 252))),
    ],
)
def test_what_a_standstill_missed(catchup: Catchup, expected: Sequence[int]) -> None:
    """All of it in steps of a hundred, the last, or what is less than a minute late."""
    world = World()
    put(world, catchup=catchup)
    world.pass_time(250 * EVERY)
    world.settle_down()
    pass_periods(world, 1)
    assert fired(world) == expected


def test_a_standstill_longer_than_a_minute_and_no_instant_since() -> None:
    """With `none` the clock moves on and nothing fires."""
    world = World()
    put(world, every=1_000_000, catchup=Catchup.NONE)
    world.pass_time(1_500_000)
    world.settle_down()
    assert world.dump.promises == {}
    assert stored(world).next_run_at == START_MS + 2_000_000
    assert stored(world).last_run_at is None


def test_put_pauses_and_resumes() -> None:
    """Where it says so; what was missed fires then."""
    world = World()
    put(world, paused=True)
    pass_periods(world, 2)
    assert fired(world) == []
    put(world, paused=False)
    world.settle_down()
    assert fired(world) == [1, 2]


# -- overlap -----------------------------------------------------------------------------------------


def test_what_overlaps_is_skipped() -> None:
    """Until the last one is settled; a skipped instant never comes back."""
    world = World()
    put(world, overlap=Overlap.SKIP)
    pass_periods(world, 3)
    assert fired(world) == [1]
    settle(world, 1)
    pass_periods(world, 1)
    assert fired(world) == [1, 4]
    assert stored(world).last_run_at == START_MS + 4 * EVERY


def test_what_overlaps_waits_in_line() -> None:
    """One after the other, each as of when its turn came, whatever settles the one before."""
    world = World()
    put(world, overlap=Overlap.QUEUE, promise_timeout=35_000)
    pass_periods(world, 3)
    assert fired(world) == [1]
    settle(world, 1)
    assert fired(world) == [1, 2]
    second = world.stored(f"s.{START_MS + 2 * EVERY}")
    assert (second.created_at, second.timeout_at) == (world.now, world.now + 35_000)
    pass_periods(world, 1)
    settle(world, 2)
    settle(world, 3)
    assert fired(world) == [1, 2, 3, 4]
    settle(world, 4)
    pass_periods(world, 1)
    assert fired(world) == [1, 2, 3, 4, 5]


def test_a_deadline_lets_the_next_one_in() -> None:
    """As a settlement does, if somebody waits for it or looks."""
    world = World()
    tags = {tag.TARGET: "queue://q"}
    put(world, overlap=Overlap.QUEUE, promise_timeout=15_000, promise_tags=tags)
    pass_periods(world, 2)
    assert fired(world) == [1]
    pass_periods(world, 1, parts=2)
    assert fired(world) == [1, 2]


def test_the_line_is_bounded() -> None:
    """What is beyond it is skipped."""
    world = World()
    put(world, overlap=Overlap.QUEUE)
    world.pass_time((MAX_WAITING_INSTANTS + 5) * EVERY)
    world.settle_down()
    for period in range(1, MAX_WAITING_INSTANTS + 2):
        settle(world, period)
    assert fired(world) == list(range(1, MAX_WAITING_INSTANTS + 2))


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [(Overlap.ALLOW, run_of(1, 2, 3)), (Overlap.SKIP, run_of(1)), (Overlap.QUEUE, run_of(1))],
)
def test_a_line_when_the_rule_changes(overlap: Overlap, expected: Sequence[int]) -> None:
    """Those that wait fire at once, are left out, or wait on."""
    world = World()
    put(world, overlap=Overlap.QUEUE)
    pass_periods(world, 3)
    put(world, overlap=overlap)
    world.settle_down()
    assert fired(world) == expected


def test_a_line_that_is_left_out_is_in_nobodys_way() -> None:
    """Even if the next instant is fired before the background has emptied the line."""
    world = World()
    put(world, overlap=Overlap.QUEUE, promise_timeout=25_000)
    pass_periods(world, 3)
    put(world, overlap=Overlap.SKIP)
    pass_periods(world, 1)
    assert fired(world) == [1, 4]


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [(Overlap.SKIP, run_of(1, 2, 5)), (Overlap.QUEUE, run_of(1, 2, 3, 4, 5))],
)
def test_what_was_allowed_to_overlap_is_in_the_way(
    overlap: Overlap, expected: Sequence[int]
) -> None:
    """Once nothing may overlap any more, what fired last is waited for, and not what fired before."""
    world = World()
    put(world)
    pass_periods(world, 2)
    put(world, overlap=overlap)
    pass_periods(world, 2)
    assert fired(world) == [1, 2]
    settle(world, 2)
    for period in (3, 4):
        if period in expected:
            settle(world, period)
    pass_periods(world, 1)
    assert fired(world) == expected


def test_a_paused_line_stands_still() -> None:
    """And goes on when it is resumed."""
    world = World()
    put(world, overlap=Overlap.QUEUE)
    pass_periods(world, 2)
    world.ok(s.SchedulePause("s"), ScheduleResult)
    settle(world, 1)
    assert fired(world) == [1]
    world.ok(s.ScheduleResume("s"), ScheduleResult)
    world.settle_down()
    assert fired(world) == [1, 2]


def test_a_deleted_schedule_leaves_no_line_and_no_backfill() -> None:
    """Nothing of it is left, and nothing of it fires."""
    world = World()
    put(world, overlap=Overlap.QUEUE)
    pass_periods(world, 2)
    world.ok(backfill("s", 0, world.now), ScheduleResult)
    assert world.status(r.ScheduleDelete("s")) == 200
    world.settle_down()
    settle(world, 1)
    assert fired(world) == [1]
    assert world.entries == {}


# -- jitter ------------------------------------------------------------------------------------------


def test_jitter_delays_the_work_and_never_the_promise() -> None:
    """By less than was said, differently for each instant, and always alike."""
    delays: list[list[int]] = []
    for _ in range(2):
        world = World()
        put(world, jitter=5_000, promise_tags={tag.TARGET: "queue://q"})
        pass_periods(world, 20)
        promises = [world.stored(id) for id in world.dump.promises]
        assert fired(world) == list(range(1, 21))
        delays.append([int(p.tags[tag.DELAY]) - p.created_at for p in promises])
        assert all(world.task(p.id).state == "pending" for p in promises)
    assert delays[0] == delays[1]
    assert all(0 <= delay <= 5_000 for delay in delays[0])
    assert len(set(delays[0])) > 10


# -- trigger -----------------------------------------------------------------------------------------


def test_a_trigger_fires_now_under_an_id_of_its_own() -> None:
    """Paused or not, each time anew; the same key and the same request fire once."""
    world = World()
    put(world, paused=True, overlap=Overlap.SKIP, promise_tags={"a": "b"})
    trigger = s.ScheduleTrigger("s")
    first = world.ok(trigger, PromiseResult).promise
    second = world.ok(trigger, PromiseResult).promise
    assert first.id != second.id
    assert first.tags["a"] == "b"
    assert first.tags[tag.SCHEDULE] == "s"
    assert first.timeout_at == world.now + NEVER_OVER
    keyed = [world.ok(s.ScheduleTrigger("s", "k"), PromiseResult).promise for _ in range(2)]
    assert keyed[0] == keyed[1]
    same = [world.ok(trigger, PromiseResult, request_id="q").promise for _ in range(2)]
    assert same[0] == same[1]
    assert len(world.dump.promises) == 4
    assert stored(world).last_run_at is None


def test_a_trigger_of_a_fixed_id_has_an_id_too() -> None:
    """Where the template names no instant, the key is appended."""
    world = World()
    world.ok(s.SchedulePut("s", "once", 1_000, every=EVERY), ScheduleResult)
    assert world.ok(s.ScheduleTrigger("s", "k"), PromiseResult).promise.id == "once.trigger.k"


# -- backfill ----------------------------------------------------------------------------------------


def backfill(id: str, since: int, until: int) -> s.ScheduleBackfill:
    return s.ScheduleBackfill(id, since, until)


def test_a_backfill_fires_each_instant_once() -> None:
    """In steps of a hundred, those that fired before not again, those to come not at all."""
    world = World()
    put(world, paused=True, catchup=Catchup.NONE, promise_timeout=1_000)
    pass_periods(world, 300)
    world.ok(s.ScheduleResume("s"), ScheduleResult)
    span = backfill("s", START_MS + 3 * EVERY, START_MS + 280 * EVERY)
    for _ in range(2):
        world.ok(span, ScheduleResult)
        world.ok(span, ScheduleResult)
        world.settle_down()
    assert fired(world) == list(range(3, 280))
    assert world.stored(f"s.{START_MS + 3 * EVERY}").timeout_at == world.now + 1_000
    world.ok(backfill("s", world.now - EVERY, world.now + 9 * EVERY), ScheduleResult)
    world.settle_down()
    assert fired(world) == [*range(3, 280), 299, 300]
    assert world.entries == {}


def test_spans_of_a_backfill_are_bounded() -> None:
    """More than so many at once is a 409, the wrong way round a 400."""
    world = World()
    put(world, paused=True)
    pass_periods(world, 20)
    for n in range(MAX_BACKFILL_SPANS):
        assert world.status(backfill("s", START_MS + n, world.now)) == 200
    assert world.status(backfill("s", START_MS + 99, world.now)) == 409
    assert world.status(backfill("s", 2, 1)) == 400
    world.settle_down()
    assert fired(world) == list(range(1, 20))


# -- races -------------------------------------------------------------------------------------------

MOVES = st.one_of(
    st.tuples(st.just("pass"), st.integers(1, 12)),
    st.tuples(st.sampled_from(["fire", "pause", "resume", "put", "trigger"]), st.just(0)),
    st.tuples(st.just("backfill"), st.integers(1, 30)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(MOVES, max_size=25), st.sampled_from([Overlap.ALLOW, Overlap.QUEUE]))
def test_each_instant_fires_exactly_once(moves: list[tuple[str, int]], overlap: Overlap) -> None:
    """However deployments, pauses, triggers, backfills and late firing fall between them: in the end
    the instants that fired are all there were."""
    world = World()
    put(world, overlap=overlap)
    for move, number in moves:
        match move:
            case "pass":
                world.pass_time(number * EVERY // 3)
            case "fire":
                world.settle_down()
            case "pause":
                world.ok(s.SchedulePause("s"), ScheduleResult)
            case "resume":
                world.ok(s.ScheduleResume("s"), ScheduleResult)
            case "put":
                put(world, overlap=overlap, promise_tags={"at": str(world.now)})
            case "trigger":
                world.ok(s.ScheduleTrigger("s"), PromiseResult)
            case "backfill":
                world.ok(backfill("s", START_MS, START_MS + number * EVERY), ScheduleResult)
    world.ok(s.ScheduleResume("s"), ScheduleResult)
    world.settle_down()
    periods = (world.now - START_MS) // EVERY
    for _ in range(periods):
        pending = [id for id, p in world.dump.promises.items() if p.pending]
        for id in pending:
            world.ok(r.PromiseSettle(id, PromiseState.RESOLVED), PromiseResult)
        world.settle_down()
    assert fired(world) == list(range(1, periods + 1))
    assert stored(world).next_run_at == START_MS + (periods + 1) * EVERY
