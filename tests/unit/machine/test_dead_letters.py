"""Dead letters: reading and replaying them (protocol B4)."""

from __future__ import annotations

import pytest

from kept.protocol import requests as r
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import DeadLetter, TaskState, Value
from kept.protocol.responses import DeadLetterResult, Replay, ReplayResult
from tests.unit.machine.world import START_MS, World, create


def _dead(world: World, id: str, final: str, **tags: str) -> None:
    request = create(id, timeout_at=START_MS + 1_000, param=Value(data="1"), queue="q", **tags)
    world.ask(r.TaskCreate("w", 10_000, r.CreateAction(request)))
    assert world.status(r.TaskNack(id, 1, final=final, error=Value(data="why"))) == 200


def _replayed(world: World, *ids: str, param: Value | None = None) -> list[Replay]:
    return world.ok(r.DeadReplay(list(ids), param), ReplayResult).replays


def test_a_letter_holds_what_an_operator_needs() -> None:
    """Id, queue, function, reason, error, failures, times, param and tags."""
    world = World()
    _dead(world, "j", "reject", function="f@1")
    letter = world.ok(r.DeadGet("j"), DeadLetterResult).letter
    assert letter == DeadLetter(
        id="j",
        queue="q",
        function="f@1",
        reason="exhausted",
        error=Value(data="why"),
        failures=1,
        created_at=START_MS,
        died_at=START_MS,
        halted=False,
        param=Value(data="1"),
        tags={"resonate:target": "queue://q", "kept:function": "f@1"},
    )
    assert world.status(r.DeadGet("none")) == 404


def test_halted_work_goes_on_where_it_stood() -> None:
    """Pending and due now at the same version, with its failures forgotten; its letter stays, and
    it cannot be replayed while it runs."""
    world = World()
    _dead(world, "j", "halt")
    world.pass_time(5)
    assert _replayed(world, "j") == [Replay("j", 200, "j")]
    task = world.task("j")
    assert (task.state, task.version, task.failures) == (TaskState.PENDING, 1, 0)
    assert world.letter("j").replays == 1
    assert world.claim("q")[0].attempt == 1
    assert _replayed(world, "j")[0].status == 409


def test_rejected_work_is_created_again() -> None:
    """Under the next free id, with the same param and tags but without lineage and delay, its
    deadline as far away as the first one was; the old record stays."""
    world = World()
    _dead(world, "j", "reject", origin="o", parent="p", branch="b", delay=str(START_MS + 1))
    world.create("j~2", external="true")
    world.pass_time(500)
    assert _replayed(world, "j") == [Replay("j", 200, "j~1")]
    assert _replayed(world, "j") == [Replay("j", 200, "j~3")]
    copy = world.stored("j~1")
    assert copy.tags == {"resonate:target": "queue://q", "kept:replay-of": "j"}
    assert (copy.param, copy.created_at) == (Value(data="1"), world.now)
    assert copy.timeout_at == world.now + 1_000
    assert world.task("j~1").retry_at == world.now
    assert not world.stored("j").pending


def test_another_param_makes_another_promise() -> None:
    """A stored param never changes, so halted work with a new one is created anew, and stays
    halted itself (B11)."""
    world = World()
    _dead(world, "j", "halt")
    assert _replayed(world, "j", param=Value(data="2")) == [Replay("j", 200, "j~1")]
    assert world.stored("j~1").param == Value(data="2")
    assert world.state_of("j") == "halted"


def test_halted_work_past_its_deadline_is_created_again() -> None:
    """Its promise is over, so it cannot go on."""
    world = World()
    _dead(world, "j", "halt")
    world.pass_time(1_000)
    assert _replayed(world, "j") == [Replay("j", 200, "j~1")]


def test_each_replay_stands_alone() -> None:
    """An id without a letter is a 404 of its own, the others are replayed."""
    world = World()
    _dead(world, "a", "reject")
    _dead(world, "b", "halt")
    answers = _replayed(world, "a", "none", "b")
    assert [answer.status for answer in answers] == [200, 404, 200]


def test_a_thousand_replays_need_two_loads() -> None:
    """The most that one request may name is planned together, not one by one."""
    world = World(watched=False)
    ids = [f"j{n}" for n in range(1_000)]
    for id in ids:
        _dead(world, id, "reject")
    for number in (1, 2):
        world.loads = 0
        assert {answer.replayed_as for answer in _replayed(world, *ids)} == {
            f"{id}~{number}" for id in ids
        }
        assert world.loads == 2


@pytest.mark.parametrize("ids", [[], ["j", "j"], ["j"] * 1_001])
def test_what_names_no_letters_is_refused(ids: list[str]) -> None:
    """None, one twice and too many are a 400."""
    assert World().status(r.DeadReplay(ids)) == 400


def test_work_without_a_deadline_is_replayed_without_one() -> None:
    """None stays none."""
    world = World()
    world.started("j", queue="q")
    world.ask(r.TaskNack("j", 1, final="reject"))
    _replayed(world, "j")
    assert world.stored("j~1").timeout_at == NEVER_MS
