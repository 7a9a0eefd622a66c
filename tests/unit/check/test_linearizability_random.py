"""The checker against trying everything, on small random histories."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kept.check.history import Answer, Header, History, Operation
from kept.check.linearizability import Verdict, check
from kept.check.protocol_model import ProtocolModel
from kept.check.sequential import OnceModel, RegisterModel
from tests.unit.check.brute_force import (
    protocol_linearizable,
    register_step,
    slot_step,
    values_linearizable,
)
from tests.unit.check.random_histories import action, protocol_histories

MAX_OPERATIONS = 6
Draw = st.DrawFn


def _spans(draw: Draw, count: int) -> list[tuple[int, int]]:
    """Event numbers: each operation's invocation and return, all different."""
    events = draw(st.permutations(range(2 * count)))
    pairs = [sorted(events[2 * number : 2 * number + 2]) for number in range(count)]
    return sorted((first, last) for first, last in pairs)


@st.composite
def value_histories(draw: Draw, kinds: tuple[str, ...]) -> list[Operation]:
    """Operations on two ids, with answers that may be right or wrong."""
    count = draw(st.integers(1, MAX_OPERATIONS))
    operations = []
    values = st.integers(1, 2)
    for invoked, returned in _spans(draw, count):
        kind = draw(st.sampled_from(kinds))
        data: dict[str, Any] = {"id": draw(st.sampled_from("xxxy"))}
        if kind in ("write", "settle"):
            data["value"] = draw(values)
        if kind == "cas":
            data |= {"old": draw(values), "new": draw(values)}
        shown = [Answer(200, each) for each in (None, 1, 2)]
        likely = {
            "write": [Answer(200)],
            "cas": [Answer(200), Answer(409)],
            "read": shown,
            "create": [Answer(200, each) for each in ("pending", 1, 2)],
            "settle": [Answer(404), Answer(200, 1), Answer(200, 2)],
            "get": [Answer(404), *(Answer(200, each) for each in ("pending", 1, 2))],
        }[kind]
        answer = draw(st.sampled_from([*likely, *likely, None]))
        operations.append(
            Operation(
                client="c",
                request={"kind": kind, "data": data},
                answer=answer,
                invoked=invoked,
                returned=None if answer is None else returned,
            )
        )
    return operations


def _is_linearizable(operations: list[Operation], model: Any, skew: float | None = None) -> bool:
    result = check(History(Header(clock_skew_ms=skew), operations), model)
    assert result.verdict is not Verdict.UNKNOWN
    return result.verdict is Verdict.LINEARIZABLE


@settings(max_examples=300)
@given(value_histories(("read", "write", "cas")))
def test_registers_are_judged_as_by_trying_everything(operations: list[Operation]) -> None:
    """For registers, the checker finds an order if and only if there is one."""
    assert _is_linearizable(operations, RegisterModel()) == values_linearizable(
        operations, register_step
    )


@settings(max_examples=300)
@given(value_histories(("create", "settle", "get")))
def test_slots_are_judged_as_by_trying_everything(operations: list[Operation]) -> None:
    """For write-once slots, the checker finds an order if and only if there is one."""
    assert _is_linearizable(operations, OnceModel()) == values_linearizable(operations, slot_step)


# -- the protocol, with deadlines and leases that end in the middle ----------------------------------


@st.composite
def requests(draw: Draw) -> dict[str, Any]:
    """A request on a workflow `w` or the promise `x` that it waits for."""
    version = draw(st.sampled_from((0, 1, 1, 1, 2)))
    deadline = draw(st.sampled_from((4, 7, 100, 100)))
    holder = {"pid": draw(st.sampled_from("ab")), "ttl": draw(st.integers(1, 4))}
    target = {"resonate:target": "poll://any@g"}
    root = {"id": "w", "timeoutAt": deadline, "tags": target}
    external = {"id": "x", "timeoutAt": deadline, "tags": {"resonate:external": "true"}}
    settled = {"id": "x", "state": draw(st.sampled_from(("resolved", "rejected")))}
    lease = {"id": "w", "version": version}
    edge = {"awaited": "x", "awaiter": "w"}
    kind, data = draw(
        st.sampled_from(
            [
                ("promise.create", root),
                ("promise.create", external),
                ("promise.get", {"id": draw(st.sampled_from("wx"))}),
                ("promise.settle", settled),
                ("promise.settle", settled | {"id": "w"}),
                ("promise.register_callback", edge),
                ("task.get", {"id": "w"}),
                ("task.create", {**holder, "action": action("promise.create", root)}),
                ("task.acquire", {**lease, **holder}),
                ("task.release", lease),
                ("task.fulfill", {**lease, "action": action("promise.settle", {**settled, "id": "w"})}),
                ("task.suspend", {**lease, "actions": [action("promise.register_callback", edge)]}),
                ("task.fence", {**lease, "action": action("promise.settle", settled)}),
                ("task.heartbeat", {"pid": holder["pid"], "tasks": [lease]}),
                ("task.halt", {"id": "w"}),
                ("task.continue", {"id": "w"}),
            ]
        )
    )  # fmt: skip
    return {"kind": kind, "data": data}


PROLOGUES: tuple[list[dict[str, Any]], ...] = (
    [],
    [
        {
            "kind": "task.create",
            "data": {
                "pid": "a",
                "ttl": 3,
                "action": action(
                    "promise.create",
                    {"id": "w", "timeoutAt": 100, "tags": {"resonate:target": "poll://any@g"}},
                ),
            },
        },
        {
            "kind": "promise.create",
            "data": {"id": "x", "timeoutAt": 5, "tags": {"resonate:external": "true"}},
        },
        {
            "kind": "task.suspend",
            "data": {
                "id": "w",
                "version": 1,
                "actions": [action("promise.register_callback", {"awaited": "x", "awaiter": "w"})],
            },
        },
    ],
)


@pytest.mark.timeout(180)
@settings(max_examples=250, suppress_health_check=[HealthCheck.too_slow])
@given(protocol_histories(requests(), PROLOGUES))
def test_the_protocol_is_judged_as_by_trying_everything(operations: list[Operation]) -> None:
    """With deadlines, leases and wake-ups in between, the checker finds an order if and only if
    there is one at some instants with some background steps."""
    expected = protocol_linearizable(operations)
    assert _is_linearizable(operations, ProtocolModel(), skew=0) == expected


@pytest.mark.parametrize("count", [1, 2, 5])
def test_operations_without_answers_never_have_to_come(count: int) -> None:
    """A history of nothing but unknown outcomes is linearizable."""
    operations = [
        Operation(client="c", request={"kind": "write", "data": {"id": "x", "value": 1}}, invoked=n)
        for n in range(count)
    ]
    assert _is_linearizable(operations, RegisterModel())
