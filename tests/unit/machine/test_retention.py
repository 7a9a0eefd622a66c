"""Settled trees leave when nothing keeps them (protocol B6)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from kept.machine.background import DeliveredMessage, LeaveTree
from kept.machine.step import MachineConfig
from kept.machine.trees import kept_key, tree_key
from kept.protocol import requests as r
from kept.protocol import schedule_requests as s
from kept.protocol import tags as tag
from kept.protocol.entries import EntryKind, KeptId
from kept.protocol.limits import (
    DEFAULT_RETENTION_MS,
    HELD_LOOK_MS,
    MAX_LEAVING_PER_COMMIT,
    MIN_RETENTION_MS,
)
from kept.protocol.records import EMPTY, MessageKey, PromiseState, Value
from kept.protocol.responses import (
    AcquiredTask,
    CancelResult,
    PromiseResult,
    QueueResult,
    ScheduleResult,
    SignalResult,
)
from tests.unit.machine.world import LISTENER, START_MS, World, create, fulfill, record

WEEK = DEFAULT_RETENTION_MS
HOUR = 3_600_000
CHILD = {"origin": "root", "parent": "root"}


def rest(world: World, milliseconds: int) -> None:
    """Time passes, and what is due then happens."""
    world.pass_time(milliseconds)
    world.settle_down()


def look(world: World) -> None:
    """The looks at trees that are due, in one commit."""
    world.fire(*world.looks_at_trees())


def done(world: World, id: str = "root", **tags: str) -> None:
    """A promise that is created and settled."""
    world.create(id, **tags)
    world.settle(id)


def there(world: World) -> set[str]:
    return set(world.dump.promises)


def gone(world: World) -> bool:
    """Whether nothing at all is left."""
    dump = world.dump
    return not (dump.promises or dump.tasks or dump.entries or dump.releases)


def put(world: World, name: str = "q", **settings: object) -> None:
    world.ok(r.QueuePut(name, **settings), QueueResult)  # type: ignore[arg-type]


# -- when ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tags", [{}, {"external": "true"}, {"timer": "true"}, {"queue": "q"}])
def test_a_settled_promise_leaves_after_its_retention(tags: dict[str, str]) -> None:
    """Not a millisecond earlier, and nothing of it is left."""
    world = World()
    done(world, **tags)
    rest(world, WEEK - 1)
    assert there(world) == {"root"}
    rest(world, 1)
    assert gone(world)
    assert world.status(r.PromiseGet("root")) == 404


def test_the_retention_is_its_queues() -> None:
    """Of the root's queue, whatever the children's queues say; and it can be longer too."""
    world = World()
    put(world, retention=HOUR)
    put(world, "slow", retention=2 * WEEK)
    done(world, queue="q")
    done(world, "root.1", **CHILD, queue="slow")
    done(world, "slow", queue="slow")
    rest(world, HOUR - 1)
    assert there(world) == {"root", "root.1", "slow"}
    rest(world, 1)
    assert there(world) == {"slow"}
    rest(world, 2 * WEEK)
    assert not world.dump.promises


@pytest.mark.parametrize("retention", [0, -1, MIN_RETENTION_MS - 1])
def test_a_retention_that_is_too_short(retention: int) -> None:
    """A worker and a client need time to read what was settled."""
    world = World()
    assert world.status(r.QueuePut("q", retention=retention)) == 400
    assert world.status(r.QueuePut("q", retention=MIN_RETENTION_MS)) == 200


def test_a_retention_that_grows_holds_for_what_waits() -> None:
    """The look finds the longer one and comes again."""
    world = World()
    put(world, retention=HOUR)
    done(world, queue="q")
    put(world, retention=3 * HOUR)
    rest(world, HOUR)
    assert there(world) == {"root"}
    rest(world, 2 * HOUR)
    assert gone_but_settings(world)


def gone_but_settings(world: World) -> bool:
    return not world.dump.promises and set(world.dump.entries) == {
        key for key in world.dump.entries if key.kind is EntryKind.QUEUE
    }


def test_for_ever() -> None:
    """Where the engine is told so, and no queue says otherwise, nothing is even looked at."""
    world = World(MachineConfig(retention_ms=None))
    done(world)
    assert not world.dump.entries
    put(world, retention=HOUR)
    done(world, "job", queue="q")
    rest(world, HOUR)
    assert there(world) == {"root"}


def test_a_tree_leaves_as_one() -> None:
    """The youngest of its settlements counts, and none leaves before it."""
    world = World()
    world.started("root", queue="q")
    done(world, "root.1", **CHILD)
    world.create("root.2", **CHILD, external="true")
    world.pass_time(WEEK)
    world.settle("root")
    rest(world, WEEK)
    assert there(world) == {"root", "root.1", "root.2"}
    world.settle("root.2")
    rest(world, WEEK - 1)
    assert there(world) == {"root", "root.1", "root.2"}
    rest(world, WEEK)
    assert gone(world)


@pytest.mark.parametrize("tags", [{}, {"external": "true"}])
def test_a_deadline_settles_too(tags: dict[str, str]) -> None:
    """Also that of a promise which nobody looks at, and which the store has as pending."""
    world = World()
    world.create("root", timeout_at=START_MS + HOUR, **tags)
    world.create("root.1", timeout_at=START_MS + 1, **CHILD)
    rest(world, HOUR + WEEK - 1)
    assert there(world) == {"root", "root.1"}
    rest(world, WEEK + 1)
    assert not world.dump.promises
    # Its settlement was stored late, and is looked after too.
    rest(world, WEEK)
    assert gone(world)


def test_what_is_born_settled_stays_as_long() -> None:
    """Its settlement may be long past: it counts from its birth."""
    world = World()
    world.create("root", timeout_at=5)
    rest(world, WEEK - 1)
    assert there(world) == {"root"}
    rest(world, 1)
    assert gone(world)


# -- what keeps a tree ---------------------------------------------------------------------------------


def pending(world: World) -> Callable[[], object]:
    world.create("root.9", **CHILD, external="true")
    world.settle("root")
    return lambda: world.settle("root.9")


def delayed(world: World) -> Callable[[], object]:
    world.create("root.9", **CHILD, queue="q", delay=str(START_MS + 9 * WEEK))
    world.settle("root")
    return lambda: world.settle("root.9")


def halted(world: World) -> Callable[[], object]:
    world.started("root.9", **CHILD)
    world.ask(r.TaskHalt("root.9"))
    world.settle("root")
    return lambda: world.settle("root.9")


def dead_letter(world: World) -> Callable[[], object]:
    lease = world.started("root.9", **CHILD, queue="q")
    world.ask(r.TaskNack("root.9", lease.task.version, final="reject"))
    world.settle("root")
    return lambda: world.ask(r.DeadPurge(["root.9"]))


def message(world: World) -> Callable[[], object]:
    world.create("root.9", **CHILD, external="true")
    world.ask(r.PromiseRegisterListener("root.9", LISTENER))
    world.settle("root.9")
    world.settle("root")
    key = MessageKey.unblock("root.9", LISTENER)
    return lambda: world.fire(DeliveredMessage(key, 0))


def callback_to_it(world: World) -> Callable[[], object]:
    world.create("other", external="true")
    world.suspended("root.9", "other", **CHILD)
    world.settle("root.9")
    world.settle("root")
    return lambda: world.settle("other")


def resume(world: World) -> Callable[[], object]:
    world.create("root.9", **CHILD, external="true")
    world.suspended("waiter", "root.9", queue="q")
    world.settle("root.9")
    world.settle("root")
    return lambda: world.claim("q")


def dedupe_key(world: World) -> Callable[[], object]:
    tags = {"dedupe": "k", "dedupe_window": str(3 * WEEK), "queue": "q"}
    world.create("root.9", **CHILD, **tags)
    world.settle("root.9")
    world.settle("root")
    return lambda: world.pass_time(WEEK)


def parent_of_another_tree(world: World) -> Callable[[], object]:
    world.create("caller", external="true")
    world.create("root.9", origin="root", parent="caller")
    world.settle("root.9")
    world.settle("root")
    return lambda: world.settle("caller")


@pytest.mark.parametrize(
    "holds",
    [
        *(pending, delayed, halted, dead_letter, message, callback_to_it, resume, dedupe_key),
        parent_of_another_tree,
    ],
)
def test_it_stays_as_long_as_anything_keeps_it(
    holds: Callable[[World], Callable[[], object]],
) -> None:
    """All of it; and what kept it gone, it leaves within a retention."""
    world = World()
    world.create("root", external="true")
    done(world, "root.1", **CHILD)
    let_go = holds(world)
    for _ in range(2):
        rest(world, WEEK)
        assert {"root", "root.1", "root.9"} <= there(world)
    let_go()
    rest(world, WEEK)
    rest(world, WEEK)
    assert not there(world) & {"root", "root.1", "root.9"}


def test_what_keeps_it_is_asked_before_the_tree_is_walked() -> None:
    """A large tree with one pending promise costs one look each time."""
    world = World()
    world.create("root", external="true")
    for n in range(MAX_LEAVING_PER_COMMIT):
        done(world, f"root.{n}", **CHILD)
    world.create("late", **CHILD, external="true")
    world.settle("root")
    world.pass_time(WEEK)
    look(world)
    loads = world.loads
    for _ in range(3):
        world.pass_time(WEEK)
        look(world)
        entry = world.entry(tree_key("root"))
        assert entry is not None
        assert entry.due_at == world.now + WEEK
    assert world.loads == loads + 3 * 2


def test_short_retentions_do_not_ask_all_the_time() -> None:
    """What keeps a tree is asked again after a minute at the soonest."""
    world = World()
    put(world, retention=MIN_RETENTION_MS)
    world.create("root", queue="q")
    world.create("root.1", **CHILD, external="true")
    world.settle("root")
    world.pass_time(MIN_RETENTION_MS)
    look(world)
    entry = world.entry(tree_key("root"))
    assert entry is not None
    assert entry.due_at == world.now + HELD_LOOK_MS


# -- leaving ---------------------------------------------------------------------------------------------


def test_it_takes_along_all_that_hangs_on_it() -> None:
    """Attributes with their index, the cancellation, mailboxes, messages and their keys, releases."""
    world = World()
    put(world, retention=MIN_RETENTION_MS)
    world.started("root", queue="q")
    world.ok(r.SignalSend("root", "box", Value(), "key"), SignalResult)
    world.ask(r.TaskAnnotate("root", 1, {"a": "1", "b": "2"}))
    world.ask(record("root", 1, "root.1", tags=CHILD, released=["root!box.1"]))
    world.ok(r.PromiseCancel("root", "why"), CancelResult)
    assert world.status(fulfill("root", 1, PromiseState.REJECTED_CANCELED)) == 200
    kinds = {key.kind for key in world.dump.entries}
    assert {EntryKind.ATTRIBUTE, EntryKind.MAILBOX, EntryKind.MESSAGE_KEY} <= kinds
    assert {EntryKind.CANCEL, EntryKind.ATTRIBUTES} <= kinds
    rest(world, MIN_RETENTION_MS)
    assert (world.dump.promises, world.dump.tasks, world.dump.releases) == ({}, {}, {})
    assert {key.kind for key in world.dump.entries} == {EntryKind.QUEUE}


def test_of_other_mailboxes_keys_stay() -> None:
    """Names that begin alike are not the same."""
    world = World()
    for owner in ("root", "root2"):
        world.create(owner, external="true")
        for box in ("box", "box2"):
            world.ok(r.SignalSend(owner, box, Value(), "key"), SignalResult)
    world.settle("root")
    rest(world, WEEK - 1)
    world.ok(r.SignalSend("root2", "box", Value(), "new"), SignalResult)
    world.ok(r.SignalSend("root2", "box2", Value(), "new"), SignalResult)
    world.pass_time(1)
    look(world)
    keys = [key.name for key in world.dump.entries if key.kind is EntryKind.MESSAGE_KEY]
    assert sorted(keys) == [
        f'["root2","{box}","{key}"]' for box in ("box", "box2") for key in ("key", "new")
    ]


def many(world: World, count: int) -> None:
    """A settled tree that is due to leave."""
    world.create("root", external="true")
    world.batch([create(f"root.{n}", **CHILD) for n in range(count)])
    world.batch([r.PromiseSettle(f"root.{n}", PromiseState.RESOLVED) for n in range(count)])
    world.settle("root")
    world.pass_time(WEEK)


def test_a_large_tree_leaves_in_parts() -> None:
    """No commit removes more than its bound; the youngest go first and the root last, so a create
    of its id is answered with it until nothing is left that a new one would take for its own."""
    world = World()
    many(world, 5 * MAX_LEAVING_PER_COMMIT // 2)
    left = [there(world)]
    while there(world):
        look(world)
        left.append(there(world))
        if left[-1]:
            assert "root" in left[-1]
            assert world.create("root").ok
            assert world.stored("root").settled_at is not None
    removed = [len(before) - len(after) for before, after in pairwise(left)]
    assert max(removed) == MAX_LEAVING_PER_COMMIT
    # Three looks only ask.
    assert removed[:3] == [0, 0, 0]
    assert len(removed) <= 7
    assert gone(world)


def test_one_commit_takes_a_bounded_number_of_trees() -> None:
    """What it has no room for stays due."""
    world = World()
    count = 2 * MAX_LEAVING_PER_COMMIT + 5
    for n in range(count):
        done(world, f"t{n}")
    world.pass_time(WEEK)
    sizes = [count]
    while there(world):
        look(world)
        sizes.append(len(there(world)))
    assert [a - b for a, b in pairwise(sizes)] == [
        MAX_LEAVING_PER_COMMIT,
        MAX_LEAVING_PER_COMMIT,
        5,
    ]


def test_a_child_that_comes_while_its_tree_leaves_stops_it() -> None:
    """What is left stays until the child is settled for the retention."""
    world = World()
    many(world, 3 * MAX_LEAVING_PER_COMMIT)
    while len(there(world)) > 2 * MAX_LEAVING_PER_COMMIT + 1:
        look(world)
    world.create("late", **CHILD, external="true")
    rest(world, WEEK)
    assert len(there(world)) == 2 * MAX_LEAVING_PER_COMMIT + 2
    world.settle("late")
    rest(world, 2 * WEEK)
    assert gone(world)


def test_a_child_of_a_tree_that_has_left_is_a_tree_of_its_own() -> None:
    """It leaves by itself, also where its root never was."""
    world = World()
    done(world)
    rest(world, WEEK)
    done(world, "root.1", **CHILD)
    rest(world, WEEK - 1)
    assert there(world) == {"root.1"}
    rest(world, 1)
    assert gone(world)


def test_a_root_that_is_created_anew_is_another() -> None:
    """It may settle otherwise, and stays as long as the first did."""
    world = World()
    done(world, queue="q")
    rest(world, WEEK)
    lease = world.started("root", queue="q")
    assert (lease.task.version, lease.promise.created_at) == (1, world.now)
    assert world.status(fulfill("root", 1, PromiseState.REJECTED)) == 200
    rest(world, WEEK - 1)
    assert world.stored("root").state is PromiseState.REJECTED
    rest(world, 1)
    assert gone(world)


def test_removed_and_born_again_in_one_commit() -> None:
    """The new one has nothing of the old one, not even its task's version or its releases."""
    world = World()
    world.started("root", queue="q")
    world.ask(record("root", 1, "root.1", tags=CHILD, released=["root.1"]))
    world.ask(fulfill("root", 1))
    world.pass_time(WEEK)
    world.fire_and_ask(world.looks_at_trees()[0], create("root", queue="q"))
    assert there(world) == {"root"}
    assert (world.task("root").version, world.stored("root").pending) == (0, True)
    assert not world.dump.releases


def test_two_who_do_it_at_once() -> None:
    """The second finds nothing to do, in the same commit and in the next."""
    world = World()
    done(world)
    world.pass_time(WEEK)
    world.fire(*world.looks_at_trees(), *world.looks_at_trees())
    look(world)
    assert gone(world)


def test_too_early_a_look_does_nothing() -> None:
    """Neither while it is pending nor before its time."""
    world = World()
    world.create("root", timeout_at=START_MS + HOUR)
    world.fire(LeaveTree(tree_key("root")))
    done(world, "other")
    world.fire(*(LeaveTree(key) for key in world.dump.entries))
    assert there(world) == {"root", "other"}


# -- ids that are kept -----------------------------------------------------------------------------------


def test_kept_ids_answer_creates() -> None:
    """With the verdict and the times, and a mark in the place of the value; nothing runs."""
    world = World()
    put(world, keep_ids=True)
    world.create("root", queue="q")
    world.ask(r.PromiseSettle("root", PromiseState.REJECTED, Value(data="no")))
    done(world, "root.1", **CHILD)
    before = world.stored("root")
    rest(world, WEEK)
    assert not world.dump.promises
    kept = world.ok(create("root", queue="q"), PromiseResult).promise
    assert (kept.state, kept.created_at, kept.settled_at, kept.timeout_at) == (
        before.state,
        before.created_at,
        before.settled_at,
        before.timeout_at,
    )
    assert (kept.param, kept.tags) == (EMPTY, {})
    assert kept.value == Value({tag.LEFT_HEADER: str(world.now)})
    action = r.CreateAction(create("root", queue="q"))
    lease = world.ok(r.TaskCreate("w", 1_000, action), AcquiredTask)
    assert (lease.promise, lease.task.state, lease.task.version) == (kept, "fulfilled", 0)
    assert not world.dump.promises
    entry = world.entry(kept_key("root"))
    assert entry is not None
    assert (type(entry.data), entry.due_at) == (KeptId, None)
    assert world.entry(kept_key("root.1")) is None
    assert world.status(r.PromiseGet("root")) == 404


def test_kept_ids_are_asked_where_the_queue_keeps_them() -> None:
    """Another queue knows nothing of it, nor does this one once it keeps none."""
    world = World()
    put(world, keep_ids=True)
    done(world, queue="q")
    rest(world, WEEK)
    put(world, keep_ids=None)
    assert world.ok(create("root", queue="q"), PromiseResult).promise.state == "pending"


def test_a_batch_of_creates_asks_for_kept_ids_once() -> None:
    """One more load for all of them, not one for each."""
    world = World()
    put(world, keep_ids=True)
    loads = world.loads
    world.batch([create(f"a{n}", queue="q") for n in range(20)])
    assert world.loads <= loads + 2


def test_a_kept_occurrence_is_not_fired_again() -> None:
    """A backfill over an instant that has left, but whose id is kept, changes nothing."""
    world = World()
    put(world, keep_ids=True, retention=MIN_RETENTION_MS)
    world.ok(
        s.SchedulePut(
            "s", "s.{{.timestamp}}", cron="0 * * * *", promise_timeout=1_000,
            promise_tags={tag.TARGET: "queue://q"}
        ),
        ScheduleResult,
    )  # fmt: skip
    since = world.now
    rest(world, HOUR)
    rest(world, 3 * MIN_RETENTION_MS)
    assert not world.dump.promises
    world.ok(s.ScheduleBackfill("s", since, world.now - 1), ScheduleResult)
    world.settle_down()
    assert not world.dump.promises
