"""Bulk operations on dead letters (protocol B4)."""

from __future__ import annotations

from kept.machine.background import BulkPart, LookAtEntry
from kept.machine.bulk import bulk_key
from kept.protocol import requests as r
from kept.protocol.entries import LetterFilter
from kept.protocol.limits import BULK_KEPT_MS
from kept.protocol.records import Value
from kept.protocol.responses import (
    BulkRecord,
    BulkResult,
    PurgeResult,
    ReplayResult,
)
from tests.unit.machine.world import World


def dead(world: World, *ids: str, final: str = "reject", queue: str = "q") -> None:
    """Jobs that were given up on."""
    for id in ids:
        world.started(id, queue=queue)
        assert world.status(r.TaskNack(id, 1, final=final)) == 200


def begun(world: World, request: r.DeadReplay | r.DeadPurge) -> BulkRecord:
    """The operation that a request began."""
    data = world.ask(request).data
    assert isinstance(data, ReplayResult | PurgeResult)
    assert data.bulk is not None
    return data.bulk


def progress(world: World, id: str) -> BulkRecord:
    return world.ok(r.DeadBulk(id), BulkResult).bulk


def part(after: str | None, ids: list[str], *, last: bool = False) -> BulkPart:
    return BulkPart(bulk_key("b"), after, ids, None if last else ids[-1])


ALL = LetterFilter()


def test_a_bulk_replay_goes_on_where_its_cursor_is() -> None:
    """A part that was done already, as after a crash or beside another server, changes nothing."""
    world = World()
    dead(world, "a", "b", "c")
    assert begun(world, r.DeadReplay(filter=ALL, bulk="b")).finished_at is None
    first = part(None, ["a", "b"])
    world.fire(first)
    assert progress(world, "b").done == 2
    world.fire(first)
    assert progress(world, "b").done == 2
    assert world.status(r.PromiseGet("a~2")) == 404
    world.fire(part("b", ["c"], last=True))
    record = progress(world, "b")
    assert (record.done, record.failed, record.finished_at) == (3, 0, world.now)
    world.fire(part("b", ["c"], last=True))
    assert world.status(r.PromiseGet("c~2")) == 404
    assert [lease.task.id for lease in world.claim("q")] == ["a~1", "b~1", "c~1"]


def test_halted_work_continues_with_its_failures_reset() -> None:
    """In the background too, and what cannot be replayed is counted as failed."""
    world = World()
    dead(world, "a", "b", final="halt")
    world.ask(r.TaskContinue("b"))
    begun(world, r.DeadReplay(filter=ALL, bulk="b"))
    world.fire(part(None, ["a", "b"], last=True))
    record = progress(world, "b")
    assert (record.done, record.failed) == (1, 1)
    assert world.task("a").failures == 0
    assert world.task("a").version == 1
    assert world.letter("a").replays == 1


def test_an_edited_param_goes_with_all() -> None:
    """Halted ones too are created again then: a stored param is never edited."""
    world = World()
    dead(world, "a")
    dead(world, "b", final="halt")
    begun(world, r.DeadReplay(filter=ALL, param=Value(data="new"), bulk="b"))
    world.fire(part(None, ["a", "b"], last=True))
    assert world.stored("a~1").param == world.stored("b~1").param == Value(data="new")


def test_what_does_not_match_or_died_later_is_left_alone() -> None:
    """The machine looks again: what a scan saw may be old."""
    world = World()
    dead(world, "a")
    dead(world, "other", queue="r")
    begun(world, r.DeadPurge(filter=LetterFilter(queue="q"), bulk="b"))
    world.pass_time(1)
    dead(world, "late")
    world.fire(part(None, ["a", "gone", "late", "other"], last=True))
    assert sorted(world.dump.dead_letters) == ["late", "other"]
    assert progress(world, "b").done == 1


def test_a_dry_run_counts_and_does_nothing() -> None:
    """By filter, and by id, where it says under which id the work would run."""
    world = World()
    dead(world, "a")
    dead(world, "b", final="halt")
    before = world.dump
    said = world.ok(r.DeadReplay(["a", "b", "c"], dry_run=True), ReplayResult).replays
    assert [(each.status, each.replayed_as) for each in said] == [
        (200, "a~1"),
        (200, "b"),
        (404, None),
    ]
    purged = world.ok(r.DeadPurge(["a", "c"], dry_run=True), PurgeResult).purges
    assert [each.status for each in purged] == [200, 404]
    begun(world, r.DeadReplay(filter=ALL, dry_run=True, bulk="b"))
    world.fire(part(None, ["a", "b"], last=True))
    assert progress(world, "b").done == 2
    assert world.dump.dead_letters == before.dead_letters
    assert world.dump.tasks == before.tasks


def test_purging_forgets_the_letter_and_nothing_else() -> None:
    """By id: a halted task stays halted, and can be continued."""
    world = World()
    dead(world, "a", final="halt")
    assert [p.status for p in world.ok(r.DeadPurge(["a"]), PurgeResult).purges] == [200]
    assert world.status(r.DeadGet("a")) == 404
    assert world.state_of("a") == "halted"
    assert [p.status for p in world.ok(r.DeadPurge(["a"]), PurgeResult).purges] == [404]
    assert world.status(r.TaskContinue("a")) == 200


def test_an_operation_is_begun_once_under_its_id() -> None:
    """Asked again it is answered again; another one under the same id is refused."""
    world = World()
    request = r.DeadPurge(filter=ALL, bulk="b")
    first = begun(world, request)
    world.pass_time(5)
    assert begun(world, request) == first
    assert world.status(r.DeadPurge(filter=LetterFilter(queue="q"), bulk="b")) == 409
    assert world.status(r.DeadReplay(filter=ALL, bulk="b")) == 409
    named = world.ok(r.DeadPurge(filter=ALL), PurgeResult, request_id="asked")
    assert named.bulk is not None
    assert named.bulk.id == "asked"


def test_a_finished_operation_is_forgotten_after_a_while() -> None:
    """An unfinished one never is."""
    world = World()
    begun(world, r.DeadPurge(filter=ALL, bulk="b"))
    world.fire(LookAtEntry(bulk_key("b")))
    world.fire(BulkPart(bulk_key("b"), None, [], None))
    world.pass_time(BULK_KEPT_MS - 1)
    world.settle_down()
    assert progress(world, "b").finished_at is not None
    world.pass_time(1)
    world.settle_down()
    assert world.status(r.DeadBulk("b")) == 404


def test_requests_that_make_no_sense_are_refused() -> None:
    """Neither ids nor a filter, or both."""
    world = World()
    for kind in (r.DeadReplay, r.DeadPurge):
        assert world.status(kind()) == 400
        assert world.status(kind(["a"], filter=ALL)) == 400
        assert world.status(kind(["a", "a"])) == 400
        assert world.status(kind(filter=LetterFilter(queue=""))) == 400
