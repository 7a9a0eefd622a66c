"""Dedupe, debounce and singleton keys (protocol B4)."""

from __future__ import annotations

import pytest

from kept.protocol import requests as r
from kept.protocol.entries import EntryKind
from kept.protocol.records import PromiseState, Value
from kept.protocol.responses import FenceResult, PromiseResult, Response
from tests.unit.machine.world import START_MS, World, create, fulfill


def id_of(response: Response) -> str:
    """The promise that a create was answered with."""
    assert isinstance(response.data, PromiseResult), response
    return response.data.promise.id


def held(world: World, kind: EntryKind) -> list[str]:
    """The promises that hold a key of a kind."""
    entries = world.dump.entries.values()
    return [entry.data.promise for entry in entries if entry.key.kind is kind]  # type: ignore[attr-defined]


# -- dedupe ------------------------------------------------------------------------------------------


def test_a_dedupe_key_answers_with_its_holder_until_it_is_settled() -> None:
    """Without a window the key is free when the promise is settled; nothing is left then."""
    world = World()
    assert id_of(world.create("a", queue="q", dedupe="k")) == "a"
    assert id_of(world.create("b", queue="q", dedupe="k")) == "a"
    assert world.status(r.PromiseGet("b")) == 404
    assert held(world, EntryKind.DEDUPE) == ["a"]
    world.settle("a")
    assert held(world, EntryKind.DEDUPE) == []
    assert id_of(world.create("b", queue="q", dedupe="k")) == "b"
    # An id that exists is answered by itself, whatever key it names.
    assert id_of(world.create("a", queue="q", dedupe="k")) == "a"


def test_keys_of_two_queues_have_nothing_to_do_with_each_other() -> None:
    """Nor with one that goes to no queue."""
    world = World()
    assert id_of(world.create("a", queue="q", dedupe="k")) == "a"
    assert id_of(world.create("b", queue="r", dedupe="k")) == "b"
    assert id_of(world.create("c", dedupe="k")) == "c"


def test_a_window_outlasts_the_promise_and_not_one_millisecond_more() -> None:
    """Settled within the window: answered until it is over. The entry goes when it is due."""
    world = World()
    world.create("a", queue="q", dedupe="k", dedupe_window="1000")
    world.settle("a")
    world.pass_time(999)
    world.settle_down()
    assert id_of(world.create("b", queue="q", dedupe="k")) == "a"
    world.pass_time(1)
    world.settle_down()
    assert held(world, EntryKind.DEDUPE) == []
    assert id_of(world.create("b", queue="q", dedupe="k")) == "b"


def test_a_key_is_free_when_its_window_is_over_though_nobody_looked() -> None:
    """The clock decides; the entry of the former holder is written over, and not removed later."""
    world = World()
    world.create("a", queue="q", dedupe="k", dedupe_window="1000")
    world.settle("a")
    world.pass_time(1000)
    assert id_of(world.create("b", queue="q", dedupe="k")) == "b"
    world.settle_down()
    assert held(world, EntryKind.DEDUPE) == ["b"]


def test_an_unsettled_promise_holds_its_key_beyond_the_window() -> None:
    """The entry is looked at once, waits for the settlement, and goes with it."""
    world = World()
    world.create("a", queue="q", dedupe="k", dedupe_window="1000")
    world.pass_time(5000)
    world.settle_down()
    assert id_of(world.create("b", queue="q", dedupe="k")) == "a"
    world.settle("a")
    assert held(world, EntryKind.DEDUPE) == []


def test_a_promise_past_its_deadline_holds_nothing() -> None:
    """It is settled by whoever looks."""
    world = World()
    world.create("a", queue="q", dedupe="k", timeout_at=START_MS + 10)
    world.pass_time(10)
    assert id_of(world.create("b", queue="q", dedupe="k")) == "b"
    assert world.stored("a").state is PromiseState.REJECTED_TIMEDOUT


def test_another_fingerprint_is_a_conflict_unless_it_is_to_be_ignored() -> None:
    """By default the param decides; a fingerprint that is given decides alone."""
    world = World()

    def ask(id: str, data: str, **tags: str) -> Response:
        return world.ask(create(id, param=Value(data=data), queue="q", dedupe="k", **tags))

    assert ask("a", "1").status == 200
    assert id_of(ask("b", "1")) == "a"
    refusal = ask("c", "2")
    assert refusal.status == 409
    assert "dedupe key k is held by promise a" in str(refusal.data)
    assert id_of(ask("c", "2", dedupe_mismatch="ignore")) == "a"
    assert ask("c", "1", fingerprint="f").status == 409
    world.settle("a")
    assert id_of(ask("d", "3", fingerprint="f")) == "d"
    assert id_of(ask("e", "4", fingerprint="f")) == "d"


def test_two_creates_in_one_commit() -> None:
    """The second one sees the first."""
    world = World()
    answers = world.batch([create(id, queue="q", dedupe="k") for id in "abc"])
    assert [id_of(answer) for answer in answers] == ["a", "a", "a"]
    answers = world.batch(
        [r.PromiseSettle("a", PromiseState.RESOLVED), create("b", queue="q", dedupe="k")]
    )
    assert id_of(answers[1]) == "b"


def test_task_create_gets_no_lease_of_work_under_another_id() -> None:
    """409 while it is under way; the settled record, without a lease, while the window lasts."""
    world = World()
    world.started("a", queue="q", dedupe="k", dedupe_window="1000")
    asked = r.TaskCreate("w", 1000, r.CreateAction(create("b", queue="q", dedupe="k")))
    refusal = world.ask(asked)
    assert refusal.status == 409
    assert "promise a holds the key" in str(refusal.data)
    assert world.status(fulfill("a", 1)) == 200
    answer = world.ask(asked)
    assert answer.status == 200
    assert answer.data.promise.id == "a"  # type: ignore[union-attr]
    assert answer.data.task.state == "fulfilled"  # type: ignore[union-attr]
    world.pass_time(1000)
    assert world.ask(asked).data.task.state == "acquired"  # type: ignore[union-attr]


def test_a_fence_creates_under_keys_too() -> None:
    """The inner answer is the holder."""
    world = World()
    world.create("a", queue="q", dedupe="k")
    world.started("w")
    action = r.CreateAction(create("w.1", queue="q", dedupe="k", parent="w"))
    inner = world.ok(r.TaskFence("w", 1, action), FenceResult).action
    assert inner.data.promise.id == "a"  # type: ignore[union-attr]


def test_a_duplicate_is_answered_though_its_queue_is_full() -> None:
    """Nothing is stored for it, so nothing is shed."""
    world = World()
    world.ask(r.QueuePut("q", max_depth=1))
    world.create("a", queue="q", dedupe="k")
    assert id_of(world.create("b", queue="q", dedupe="k")) == "a"
    assert world.create("c", queue="q", dedupe="other").status == 429


# -- debounce ----------------------------------------------------------------------------------------


def later(ms: int) -> str:
    return str(START_MS + ms)


def test_a_later_create_postpones_the_waiting_one() -> None:
    """To the later delay, never to an earlier one."""
    world = World()
    world.create("a", queue="q", debounce="k", delay=later(100))
    assert id_of(world.create("b", queue="q", debounce="k", delay=later(300))) == "a"
    assert id_of(world.create("c", queue="q", debounce="k", delay=later(200))) == "a"
    assert world.task("a").retry_at == START_MS + 300
    world.pass_time(299)
    world.settle_down()
    assert world.claim("q") == []
    world.pass_time(1)
    assert [lease.task.id for lease in world.claim("q")] == ["a"]


def test_a_ready_task_that_is_postponed_is_not_claimed() -> None:
    """It waits in line, and then no more."""
    world = World()
    world.create("a", queue="q", debounce="k")
    assert world.task("a").ready
    world.create("b", queue="q", debounce="k", delay=later(50))
    assert world.claim("q") == []
    world.pass_time(50)
    assert len(world.claim("q")) == 1


def test_the_longest_delay_counts_from_the_first_create() -> None:
    """However late the others come, and whatever they would allow."""
    world = World()
    world.create("a", queue="q", debounce="k", debounce_max="500", delay=later(400))
    world.pass_time(300)
    tags = {"debounce_max": "500", "delay": later(700)}
    assert id_of(world.create("b", queue="q", debounce="k", **tags)) == "a"
    assert world.task("a").retry_at == START_MS + 500
    # A later promise of more changes nothing.
    world.create("c", queue="q", debounce="k", debounce_max="9000", delay=later(2000))
    assert world.task("a").retry_at == START_MS + 500


def test_a_create_after_the_start_begins_anew() -> None:
    """What a worker has begun, or what was tried before, is not put off any more."""
    world = World()
    world.create("a", queue="q", debounce="k")
    world.claim("q")
    assert id_of(world.create("b", queue="q", debounce="k", delay=later(100))) == "b"
    world.ask(r.TaskRelease("a", 1))
    assert id_of(world.create("c", queue="q", debounce="k", delay=later(100))) == "b"
    assert world.task("a").ready


def test_replace_settles_the_waiting_one_and_creates() -> None:
    """The last param wins; the longest delay still counts from the first of all."""
    world = World()
    tags = {"queue": "q", "debounce": "k", "debounce_mode": "replace", "debounce_max": "500"}
    world.create("a", **tags, delay=later(400))
    world.pass_time(200)
    assert id_of(world.create("b", **tags, delay=later(600))) == "b"
    assert world.stored("a").state is PromiseState.REJECTED_CANCELED
    assert world.task("b").retry_at == START_MS + 500
    assert held(world, EntryKind.DEBOUNCE) == ["b"]
    # The replaced one is there under its id, and takes no place again.
    assert id_of(world.create("a", **tags, delay=later(400))) == "a"
    assert world.stored("b").state is PromiseState.PENDING


def test_replacing_needs_no_room_in_a_full_queue() -> None:
    """One leaves as one comes."""
    world = World()
    world.ask(r.QueuePut("q", max_depth=1))
    tags = {"queue": "q", "debounce": "k", "debounce_mode": "replace"}
    world.create("a", **tags)
    assert id_of(world.create("b", **tags)) == "b"
    assert world.create("c", queue="q", debounce="other").status == 429


def test_nothing_is_postponed_beyond_its_deadline() -> None:
    """It could not be run there."""
    world = World()
    world.create("a", queue="q", debounce="k", timeout_at=START_MS + 100)
    world.create("b", queue="q", debounce="k", delay=later(500))
    assert world.task("a").retry_at == START_MS + 99


# -- singleton ---------------------------------------------------------------------------------------


def test_skip_return_and_replace_while_one_is_unsettled() -> None:
    """By the function's name, whatever its version."""
    world = World()
    world.create("a", queue="q", function="f@1", singleton="skip")
    refusal = world.create("b", queue="q", function="f@2", singleton="skip")
    assert refusal.status == 409
    assert "promise a is under way" in str(refusal.data)
    assert id_of(world.create("b", queue="q", function="f@2", singleton="return")) == "a"
    assert id_of(world.create("b", queue="q", function="f@2", singleton="replace")) == "b"
    assert world.stored("a").state is PromiseState.REJECTED_CANCELED
    assert world.create("c", queue="q", function="f@1", singleton="skip").status == 409
    assert id_of(world.create("c", queue="q", function="g@1", singleton="skip")) == "c"
    world.settle("b")
    assert id_of(world.create("d", queue="q", function="f@1", singleton="skip")) == "d"


def test_a_singleton_key_of_its_own() -> None:
    """It stands for the name of the function."""
    world = World()
    world.create("a", queue="q", function="f@1", singleton="skip", singleton_key="x")
    tags = {"queue": "q", "function": "g@1", "singleton": "skip"}
    assert world.create("b", singleton_key="x", **tags).status == 409
    assert world.create("b", singleton_key="y", **tags).status == 200


def test_who_runs_the_replaced_one_loses_its_lease() -> None:
    """What it brings comes too late."""
    world = World()
    world.started("a", queue="q", singleton="replace", singleton_key="k")
    world.create("b", queue="q", singleton="replace", singleton_key="k")
    assert world.status(fulfill("a", 1)) == 409


def test_a_worker_may_replace_itself_in_one_commit() -> None:
    """Two replacements in one batch: the last one stays."""
    world = World()
    answers = world.batch(
        [create(id, queue="q", singleton="replace", singleton_key="k") for id in "abc"]
    )
    assert [id_of(answer) for answer in answers] == ["a", "b", "c"]
    assert [world.stored(id).pending for id in "abc"] == [False, False, True]


def test_a_replay_leaves_keys_behind() -> None:
    """An operator who replays wants it done, whatever holds the key."""
    world = World()
    world.started("a", queue="q", dedupe="k", singleton="skip", singleton_key="s")
    world.ask(r.TaskNack("a", 1, final="reject"))
    world.create("b", queue="q", dedupe="k", singleton="skip", singleton_key="s")
    assert world.status(r.DeadReplay(["a"])) == 200
    assert not any(name.startswith("kept:dedupe") for name in world.stored("a~1").tags)
    assert held(world, EntryKind.SINGLETON) == ["b"]


@pytest.mark.parametrize(
    "tags",
    [
        {"dedupe": ""},
        {"dedupe_window": "1"},
        {"dedupe": "k", "dedupe_window": "soon"},
        {"dedupe": "k", "dedupe_mismatch": "shrug"},
        {"dedupe": "k" * 1_025},
        {"debounce": "k", "target": "http://worker.test/"},
        {"debounce": "k", "queue": "q", "timer": "true"},
        {"debounce": "k", "queue": "q", "debounce_mode": "bounce"},
        {"debounce": "k", "queue": "q", "debounce_max": "-1"},
        {"debounce_max": "1"},
        {"singleton": "skip"},
        {"singleton": "one", "singleton_key": "k"},
        {"singleton_key": "k"},
    ],
)
def test_keys_that_make_no_sense_are_refused(tags: dict[str, str]) -> None:
    """Empty and long ones, unknown choices, tags that say more of a key that is not there."""
    assert World().create("a", **tags).status == 400


def test_where_keys_mean_nothing_they_are_refused() -> None:
    """A finished step, a schedule, a debounce that starts at once."""
    world = World()
    world.started("w")
    step = create("w.1", dedupe="k")
    assert world.status(r.TaskRecordStep("w", 1, step, PromiseState.RESOLVED)) == 400
    tags = {"kept:singleton": "skip", "kept:singleton-key": "k"}
    schedule = r.ScheduleCreate("s", "* * * * *", "s-{{.timestamp}}", 1000, promise_tags=tags)
    assert world.status(schedule) == 400
    action = r.CreateAction(create("a", queue="q", debounce="k"))
    assert world.status(r.TaskCreate("w", 1000, action)) == 400
