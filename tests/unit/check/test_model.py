"""The model against the conformance cases, and its own readings."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kept.check.model import Model
from kept.contract.conformance_cases import CASES, START_MS, Case
from kept.contract.server_suite import run_case

JsonObject = dict[str, Any]


def server_of(model: Model) -> Any:
    """The model as if it were reached over HTTP: everything goes through JSON."""

    async def send(envelope: JsonObject) -> tuple[int, JsonObject]:
        status, data = model.receive(json.loads(json.dumps(envelope)))
        head = {"corrId": envelope["head"]["corrId"], "status": status, "version": "2026-04-01"}
        return status, json.loads(
            json.dumps({"kind": envelope["kind"], "head": head, "data": data})
        )

    return send


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_the_model_conforms(case: Case) -> None:
    """The model answers each conformance case as the protocol asks."""
    assert await run_case(server_of(Model(debug=case.debug)), case) == []


async def test_a_wrong_answer_fails_its_case() -> None:
    """Each case can fail: a server that is a status off, or answers nothing, passes none of them."""

    def wrong(model: Model, *, status_off: bool) -> Any:
        right = server_of(model)

        async def send(envelope: JsonObject) -> tuple[int, JsonObject]:
            status, body = await right(envelope)
            if envelope["kind"] in ("debug.start", "debug.reset") and status == 200:
                return status, body
            if status_off:
                status = 409 if status == 200 else 200
                body["head"]["status"] = status
            else:
                body["data"] = {} if status < 400 else [1]
            return status, body

        return send

    for case in CASES:
        for status_off in (True, False):
            send = wrong(Model(debug=case.debug), status_off=status_off)
            assert await run_case(send, case), (case.name, status_off)


def ask(model: Model, kind: str, data: JsonObject, at: int = 0) -> tuple[int, Any]:
    return model.answer(kind, data, START_MS + at)


def job(id: str, **tags: str) -> JsonObject:
    tags = {f"resonate:{name}": text for name, text in tags.items()}
    return {
        "id": id,
        "timeoutAt": START_MS + 1_000_000,
        "tags": {"resonate:target": "http://worker", **tags},
    }


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("promise.create", {"id": "", "timeoutAt": 1}),
        ("promise.create", {"id": "x" * 1_025, "timeoutAt": 1}),
        ("promise.create", {"id": "x", "timeoutAt": -1}),
        ("promise.create", {"id": "x", "timeoutAt": True}),
        ("promise.create", {"id": "x", "timeoutAt": 1, "tags": {"a": 1}}),
        (
            "promise.create",
            {"id": "x", "timeoutAt": 1, "tags": dict.fromkeys(map(str, range(65)), "")},
        ),
        ("promise.create", {"id": "x", "timeoutAt": 1, "tags": {"a": "x" * 16_384}}),
        ("promise.create", {"id": "x", "timeoutAt": 1, "param": {"data": "x" * 1_048_577}}),
        ("promise.create", {"id": "x", "timeoutAt": 1, "param": {"headers": {"a": 1}}}),
        ("promise.create", job("x", delay="1.5")),
        ("promise.create", job("x", delay=str(START_MS + 1_000_000))),
        ("promise.create", {"id": "x", "timeoutAt": 9, "tags": {"resonate:delay": "1"}}),
        ("promise.create", job("x") | {"tags": {"resonate:target": "nowhere"}}),
        ("promise.settle", {"id": "x", "state": "rejected_timedout"}),
        ("promise.settle", {"id": "x", "state": "pending"}),
        ("promise.register_callback", {"awaited": "x", "awaiter": "x"}),
        ("promise.register_listener", {"awaited": "x", "address": "nowhere"}),
        ("promise.search", {"limit": 0}),
        ("promise.search", {"limit": 1_001}),
        ("promise.search", {"state": "done"}),
        ("task.acquire", {"id": "x", "version": 0, "pid": "", "ttl": 1}),
        ("task.acquire", {"id": "x", "version": 0, "pid": "w", "ttl": 0}),
        ("task.acquire", {"id": "x", "version": -1, "pid": "w", "ttl": 1}),
        (
            "task.create",
            {"pid": "w", "ttl": 1, "action": {"kind": "promise.settle", "data": job("x")}},
        ),
        (
            "task.create",
            {
                "pid": "w",
                "ttl": 1,
                "action": {"kind": "promise.create", "data": {"id": "x", "timeoutAt": 1}},
            },
        ),
        (
            "task.fulfill",
            {
                "id": "x",
                "version": 1,
                "action": {"kind": "promise.settle", "data": {"id": "y", "state": "resolved"}},
            },
        ),
        ("task.suspend", {"id": "x", "version": 1, "actions": []}),
        (
            "task.fence",
            {"id": "x", "version": 1, "action": {"kind": "promise.get", "data": {"id": "y"}}},
        ),
        ("task.fence", {"id": "x", "version": 1, "action": {"kind": "promise.create"}}),
        ("schedule.create", {"id": "s", "cron": "often", "promiseId": "p", "promiseTimeout": 1}),
        (
            "schedule.create",
            {"id": "s", "cron": "* * * * *", "promiseId": "p", "promiseTimeout": -1},
        ),
        ("debug.tick", {}),
        ("debug.tick", {"time": -1}),
    ],
)
def test_wrong_fields_are_refused_first(kind: str, data: JsonObject) -> None:
    """A request with a wrong field gets 400, on an empty store where a 404 would come next."""
    assert ask(Model(), kind, data)[0] == 400


def test_a_tick_at_another_time_than_the_debug_time_is_refused() -> None:
    """A debug.tick whose head names another time gets 400."""
    model = Model()
    head = {"corrId": "1", "version": "2026-04-01", "resonate:debug_time": 5}
    envelope = {"kind": "debug.tick", "head": head, "data": {"time": 6}}
    assert model.receive(envelope)[0] == 400
    assert model.receive(envelope | {"data": {"time": 5}}) == (200, [])


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "promise.nothing"},
        {"kind": ""},
        {"data": []},
        {"data": "text"},
        {"head": {"corrId": "1", "version": "2020-01-01"}},
        {"head": {"corrId": "1"}},
    ],
)
def test_a_broken_envelope_is_refused(change: JsonObject) -> None:
    """An unknown kind or version, or data that is no object, gets 400."""
    head = {"corrId": "1", "version": "2026-04-01", "resonate:debug_time": 5}
    sound = {"kind": "promise.create", "head": head, "data": {"id": "x", "timeoutAt": 9}}
    assert Model().receive(sound)[0] == 200
    assert Model().receive(sound | change)[0] == 400


def test_an_answer_is_a_copy() -> None:
    """What was answered does not change with what happens later."""
    model = Model()
    _, first = ask(model, "promise.create", job("x"))
    ask(model, "promise.settle", {"id": "x", "state": "resolved"}, 5)
    assert first["promise"]["state"] == "pending"


def test_pages_follow_one_another() -> None:
    """A search by pages of any size finds every record once, in order of id."""
    model = Model()
    ids = sorted(f"p{number}" for number in range(7))
    for id in reversed(ids):
        ask(model, "promise.create", {"id": id, "timeoutAt": START_MS + 10})
    for limit in range(1, 9):
        found: list[str] = []
        data: JsonObject = {"limit": limit}
        while True:
            status, page = ask(model, "promise.search", data)
            assert status == 200
            assert len(page["promises"]) <= limit
            found += [promise["id"] for promise in page["promises"]]
            if "cursor" not in page:
                break
            data["cursor"] = page["cursor"]
        assert found == ids


def test_a_retry_is_sent_again_after_five_seconds() -> None:
    """A pending task is dispatched when due, and again each time the retry timeout has passed."""
    model = Model()
    ask(model, "promise.create", job("x"))
    model.answer("debug.tick", {"time": START_MS}, START_MS)
    _, snap = ask(model, "debug.snap", {})
    assert snap["taskTimeouts"] == [{"id": "x", "type": 0, "timeout": START_MS + 5_000}]
    model.answer("debug.tick", {"time": START_MS + 7_000}, START_MS + 7_000)
    _, snap = ask(model, "debug.snap", {}, 7_000)
    assert snap["taskTimeouts"] == [{"id": "x", "type": 0, "timeout": START_MS + 12_000}]
    assert len(snap["messages"]) == 1


def test_a_pulled_task_gets_no_message() -> None:
    """Work whose target is a queue waits to be claimed; no step is ever due for it."""
    model = Model()
    ask(model, "promise.create", job("x") | {"tags": {"resonate:target": "queue://mail"}})
    model.answer("debug.tick", {"time": START_MS + 9_000}, START_MS + 9_000)
    _, snap = ask(model, "debug.snap", {}, 9_000)
    assert snap["messages"] == []
    assert snap["taskTimeouts"] == [{"id": "x", "type": 0, "timeout": START_MS}]
