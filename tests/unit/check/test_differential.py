"""The driver finds defects that are planted in a server, and shows them with few requests."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from kept.check.choices import POSSIBLE_PAIRS
from kept.check.compare import Reply, difference
from kept.check.differential import Driver, Outcome
from kept.check.minimise import minimise
from kept.check.model import Model

JsonObject = dict[str, Any]
Defect = Callable[[Model, JsonObject, int, Any], tuple[int, Any]]


def none(model: Model, envelope: JsonObject, status: int, data: Any) -> tuple[int, Any]:
    return status, data


def server_of(defect: Defect = none) -> Any:
    """The model as a server, with a defect in what it answers or keeps."""
    model = Model()

    async def send(script: list[JsonObject]) -> list[tuple[int, JsonObject]]:
        answers = []
        for envelope in script:
            status, data = defect(model, envelope, *model.receive(json.loads(json.dumps(envelope))))
            corr_id = envelope["head"]["corrId"]
            head = {"corrId": corr_id, "status": status, "version": "2026-04-01"}
            body = {"kind": envelope["kind"], "head": head, "data": data}
            answers.append((status, json.loads(json.dumps(body))))
        return answers

    return send


def second_settle_conflicts(
    model: Model, envelope: JsonObject, status: int, data: Any
) -> tuple[int, Any]:
    now = envelope["head"]["resonate:debug_time"]
    late = envelope["kind"] == "promise.settle" and status == 200
    if late and data["promise"]["settledAt"] < now:
        return 409, "settled already"
    return status, data


def forgets_listeners(
    model: Model, envelope: JsonObject, status: int, data: Any
) -> tuple[int, Any]:
    if envelope["kind"] == "promise.register_listener" and status == 200:
        model.state.promises[data["promise"]["id"]]["listeners"] = set()
    return status, data


def keeps_resumes_at_300(
    model: Model, envelope: JsonObject, status: int, data: Any
) -> tuple[int, Any]:
    if envelope["kind"] == "task.suspend" and status == 300:
        model.state.tasks[envelope["data"]["id"]]["resumes"] = {"one", "two"}
    return status, data


def ends_small_pages(model: Model, envelope: JsonObject, status: int, data: Any) -> tuple[int, Any]:
    search = envelope["kind"] == "task.search" and status == 200
    if search and envelope["data"].get("limit", 100) <= 3:
        data.pop("cursor", None)
    return status, data


@pytest.mark.parametrize(
    ("mode", "seed"),
    [({}, 1), ({"sparse": True}, 2), ({"batch": 16}, 3), ({"sparse": True, "batch": 7}, 4)],
    ids=["ticks", "sparse", "batch", "sparse batch"],
)
async def test_a_right_server_shows_no_difference(mode: JsonObject, seed: int) -> None:
    """The model as a server differs from the model nowhere, in any mode."""
    outcome = await Driver(server_of(), seed, **mode).run(600)
    assert outcome.difference is None, str(outcome)
    assert outcome.requests == 600


@pytest.mark.parametrize(
    ("defect", "longest"),
    [
        (second_settle_conflicts, 4),
        (forgets_listeners, 5),
        (keeps_resumes_at_300, 8),
        (ends_small_pages, 6),
    ],
)
async def test_a_defect_is_found_and_made_short(defect: Defect, longest: int) -> None:
    """A planted defect is found, and the list that shows it again has only what it needs."""
    outcome = await Driver(server_of(defect), 5).run(3_000)
    assert outcome.difference is not None
    assert len(outcome.script) <= longest, str(outcome)
    assert str(outcome).startswith("seed 5: request ")


@pytest.mark.timeout(240)
async def test_every_pair_occurs() -> None:
    """The generator reaches every (kind, status) pair that the model can answer, and no other."""
    seen: Counter[tuple[str, int]] = Counter()
    for seed in (1, 2):
        driver = Driver(server_of(), seed)
        await driver.run(3_000)
        seen += (await driver.finish()).seen
    assert Outcome(1, seen=seen).missed == []
    assert sorted(seen.keys() - POSSIBLE_PAIRS) == []


async def test_minimising_keeps_exactly_what_is_needed() -> None:
    """Delta debugging leaves the two items that fail together, in their order."""

    async def fails(items: list[int]) -> bool:
        return 3 in items and 77 in items

    assert await minimise(list(range(100)), fails, 100_000) == [3, 77]
    assert await minimise([1, 2], fails, 100_000) == [1, 2]


def test_only_what_the_protocol_leaves_open_is_levelled() -> None:
    """Empty headers, a preload's order and error texts may differ; every other difference counts."""
    promise = {"id": "x", "param": {"headers": {}, "data": "a"}, "value": {}}
    same = promise | {"param": {"data": "a"}, "value": {"headers": {}}}
    assert (
        difference("promise.get", Reply(200, {"promise": promise}), Reply(200, {"promise": same}))
        is None
    )
    one, other = {"preload": [{"id": "a"}, {"id": "b"}]}, {"preload": [{"id": "b"}, {"id": "a"}]}
    assert difference("task.acquire", Reply(200, one), Reply(200, other)) is None
    assert difference("task.get", Reply(404, "none"), Reply(404, "no such task")) is None
    assert difference("task.get", Reply(404, "none"), Reply(404, {})) is not None
    assert difference("task.get", Reply(404, "none"), Reply(409, "none")) is not None
    extra = {"promise": promise | {"callbacks": []}}
    assert (
        difference("promise.get", Reply(200, {"promise": promise}), Reply(200, extra)) is not None
    )
    assert (
        difference("promise.get", Reply(200, extra), Reply(200, {"promise": promise})) is not None
    )
    assert difference("task.get", Reply(200, {"n": 1}), Reply(200, {"n": True})) is not None
