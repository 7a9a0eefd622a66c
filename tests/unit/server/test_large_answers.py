"""A small batch cannot make the server build an answer of any size (protocol A10, B1)."""

from __future__ import annotations

import json

import pytest

from kept.protocol import requests as r
from kept.protocol.responses import OK, PromisePage, PromiseResult, Response
from kept.server import reception
from tests.unit.server.support import RunningDoor, envelope, promise, running_door

ROOM = 5_000


@pytest.fixture
def small_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reception, "MAX_BATCH_ANSWER_BYTES", ROOM)


async def _large(request: r.Request) -> Response:
    record = promise("p" * 1_000)
    if isinstance(request, r.PromiseSearch):
        return Response(OK, PromisePage([record]))
    return Response(OK, PromiseResult(record))


async def _statuses(door: RunningDoor, *requests: dict[str, object]) -> list[int]:
    status, headers, answers = await door.post(list(requests), "/batch")
    assert status == OK
    assert int(headers["content-length"]) < ROOM + 3_000 + 200 * len(requests)
    assert [answer["kind"] for answer in answers] == [request["kind"] for request in requests]
    assert all(isinstance(a["data"], str) for a in answers if a["head"]["status"] != OK)
    return [answer["head"]["status"] for answer in answers]


@pytest.mark.usefixtures("small_room")
async def test_what_does_not_fit_into_a_batchs_answer_is_asked_again() -> None:
    """The first items are answered, so that asking again makes progress; the rest are shed."""
    async with running_door() as door:
        door.engine.answer = _large
        statuses = await _statuses(door, *[envelope("promise.get", {"id": "p"})] * 50)
        shown = statuses.count(OK)
        assert 3 <= shown <= 6
        assert statuses == [OK] * shown + [429] * (50 - shown)


@pytest.mark.usefixtures("small_room")
async def test_searches_behind_a_full_answer_are_not_even_begun() -> None:
    """Each is a page of its own, and the engine is not asked for those that would be thrown away."""
    async with running_door() as door:
        door.engine.answer = _large
        statuses = await _statuses(door, *[envelope("promise.search", {})] * 50)
        assert len(door.engine.asked) == statuses.count(OK) <= 6


@pytest.mark.usefixtures("small_room")
async def test_what_cannot_be_asked_again_is_answered_whatever_its_size() -> None:
    """A lease that was given must reach its worker."""
    async with running_door() as door:
        door.engine.answer = _large
        gets = [envelope("promise.get", {"id": "p"})] * 10
        acquire = envelope("task.acquire", {"id": "t", "version": 0, "pid": "w", "ttl": 1})
        status, _, answers = await door.post([*gets, acquire], "/batch")
        assert status == OK
        assert answers[-1]["head"]["status"] == OK
        assert json.dumps(answers[-2]).count("429") == 1
