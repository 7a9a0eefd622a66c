"""A request that is asked again under its id gets its answer again (protocol B1)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kept.protocol import requests as r
from kept.protocol.records import PromiseState
from kept.protocol.responses import Response
from tests.unit.machine.world import PUSHED, World, create, fulfill, record, suspend

TTL = 10_000
ASKED: dict[str, r.Request] = {
    "acquire": r.TaskAcquire("t", 1, "w", TTL),
    "release": r.TaskRelease("t", 1),
    "fulfill": fulfill("t", 1, PromiseState.REJECTED),
    "suspend": suspend("t", 1, "open"),
    "suspend at once": suspend("t", 1, "done"),
    "nack": r.TaskNack("t", 1),
    "nack, halting": r.TaskNack("t", 1, final="halt", reason="mine"),
    "record": record("t", 1, "child", released=["done"]),
    "claim": r.TaskClaim(["q"], "w", TTL, 2),
}


def _world(kind: str) -> World:
    world = World()
    world.create("open", external="true")
    world.create("done", external="true")
    world.settle("done")
    world.started("t", queue="q", backoff="full_jitter:1000:9000")
    if kind == "acquire":
        world.ask(r.TaskRelease("t", 1))
    for number in range(5):
        world.create(f"j{number}", queue="q")
    return world


@pytest.mark.parametrize("kind", ASKED)
@pytest.mark.parametrize("together", [False, True])
def test_the_same_id_gets_the_same_answer(kind: str, *, together: bool) -> None:
    """In a later commit or in the same one, with the clock moved on, and nothing is done twice."""
    world, request = _world(kind), ASKED[kind]
    if together:
        first, again = world.batch([request, request], request_ids=["u", "u"])
        after = before = world.dump
    else:
        first = world.ask(request, request_id="u")
        before = world.dump
        world.pass_time(500)
        again = world.ask(request, request_id="u")
        after = world.dump
    assert first.ok
    assert again == first
    assert after == before


@pytest.mark.parametrize("kind", ASKED)
def test_another_id_stands_on_its_own(kind: str) -> None:
    """Under a new id the request is judged by the state that it finds: the lease has moved."""
    world = _world(kind)
    first = world.ask(ASKED[kind], request_id="u")
    second = world.ask(ASKED[kind], request_id="v")
    if kind in ("suspend at once", "record"):
        # The lease still holds, so it is done again, to the same effect.
        assert second == first
    elif kind == "claim":
        assert _ids(first).isdisjoint(_ids(second))
    else:
        assert second.status == 409


def _ids(response: Response) -> set[str]:
    return {lease.task.id for lease in response.data.tasks}  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ASKED)
def test_an_answer_ends_with_its_meaning(kind: str) -> None:
    """Once the task has gone on under other requests, the old id is not answered with a lease or an
    outcome that no longer holds."""
    world = _world(kind)
    world.ask(ASKED[kind], request_id="u")
    world.ask(r.PromiseSettle("open", PromiseState.RESOLVED))
    world.ask(r.TaskContinue("t"))
    world.pass_time(100_000)
    world.settle_down()
    for version in (1, 2):
        world.ask(r.TaskAcquire("t", version, "other", TTL), request_id="o")
    again = world.ask(ASKED[kind], request_id="u")
    if kind == "fulfill":
        assert again.status == 200
    elif kind == "claim":
        assert "t" not in _ids(again)
    elif kind != "acquire" or again.ok:
        assert again.status == 409


@pytest.mark.parametrize("kind", ["release", "nack"])
def test_a_lease_without_an_id_leaves_the_last_one_with_one_repeatable(kind: str) -> None:
    """Others that never repeat anything do not make a lost answer cost something."""
    world = _world(kind)
    first = world.ask(ASKED[kind], request_id="u")
    world.pass_time(100_000)
    world.settle_down()
    assert world.ask(r.TaskAcquire("t", 1, "other", TTL)).ok
    before = world.dump
    assert world.ask(ASKED[kind], request_id="u") == first
    assert world.dump == before


def test_a_repeated_claim_gets_what_still_holds() -> None:
    """Of the leases it was given, those that were fulfilled since are left out."""
    world = _world("claim")
    claim = r.TaskClaim(["q"], "w", TTL, 3)
    first = world.ask(claim, request_id="u")
    gone = sorted(_ids(first))[0]
    world.ask(fulfill(gone, 1))
    assert _ids(world.ask(claim, request_id="u")) == _ids(first) - {gone}
    assert _ids(world.ask(r.TaskClaim(["q"], "v", TTL, 9), request_id="u")).isdisjoint(_ids(first))


def test_an_id_of_another_kind_of_request_harms_nothing() -> None:
    """A client that uses an id twice gets an answer of the protocol, not a fault."""
    for first in ASKED:
        for second in ASKED:
            world = _world(first)
            world.ask(ASKED[first], request_id="u")
            assert world.ask(ASKED[second], request_id="u").status in (200, 300, 409), second


def test_a_refusal_is_not_remembered() -> None:
    """A 409 leaves nothing with the task: asked again when it can be done, it is done."""
    world = World()
    world.create("t", target=PUSHED)
    assert world.status(r.TaskRelease("t", 1), request_id="u") == 409
    world.ask(r.TaskAcquire("t", 0, "w", TTL))
    assert world.status(r.TaskRelease("t", 1), request_id="u") == 200
    assert world.task("t").last_request == "u"


RELEASES: list[Callable[[], r.Request]] = [
    lambda: record("w", 1, "c1", released=["a"]),
    lambda: record("w", 1, "c2", released=["b"]),
]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_repeats_of_pipelined_requests_keep_the_order_of_release(order: tuple[int, ...]) -> None:
    """Two requests in flight, both answers lost, both asked again in any order: the task remembers
    only the last, and the numbers stay what they were."""
    world = World()
    for id in ("a", "b"):
        world.create(id, external="true")
        world.settle(id)
    world.started("w", queue="q")
    ids = ["u0", "u1"]
    world.batch([make() for make in RELEASES], request_ids=ids)
    before = world.dump.releases
    for index in order:
        assert world.ask(RELEASES[index](), request_id=ids[index]).ok
    assert world.dump.releases == before
    world.ask(r.TaskRelease("w", 1))
    (lease,) = world.claim("q")
    assert lease.released == ["a", "b"]
    world.ask(create("x"))
