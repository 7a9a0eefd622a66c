"""Small random histories of a true model, in which something is then forgotten or changed."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from hypothesis import strategies as st

from kept.check.history import Answer, Operation
from kept.check.model import Model
from tests.unit.check.brute_force import HORIZON_MS, answered, single_steps

Draw = st.DrawFn
Asked = dict[str, Any]
INSTANTS = ("createdAt", "settledAt", "cancelRequestedAt", "requestedAt")


def action(kind: str, data: dict[str, Any]) -> Asked:
    """A request, or one within another."""
    return {"kind": kind, "data": data}


@st.composite
def protocol_histories(
    draw: Draw, requests: st.SearchStrategy[Asked], prologues: Sequence[list[Asked]]
) -> list[Operation]:
    """A true history, of a model whose background lags as it likes; then perhaps something in it
    is changed or forgotten."""
    asked = [
        *draw(st.sampled_from(prologues)),
        *draw(st.lists(requests, min_size=1, max_size=4)),
    ]
    model, now = Model(), 0
    operations: list[Operation] = []
    others: list[Answer] = []
    for number, request in enumerate(asked):
        now += draw(st.sampled_from((0, 0, 1, 2, 3)))
        for _ in range(draw(st.integers(0, 2))):
            steps = list(single_steps(model, now))
            model = draw(st.sampled_from(steps)) if steps else model
        others.append(answered(copy.deepcopy(model), request["kind"], request["data"], now))
        answer = answered(model, request["kind"], request["data"], now)
        before = draw(st.integers(0, 2))
        after = draw(st.integers(0, 2))
        operations.append(
            Operation(
                client=f"c{number}",
                request=request,
                answer=answer,
                invoked_at=max(0, now - before),
                returned_at=min(now + after, HORIZON_MS),
                invoked=max(0, 10 * (now - before)) + number,
                returned=10 * (now + after) + 100 + number,
            )
        )
    return _spoiled(draw, _renumbered(operations), others)


def _renumbered(operations: list[Operation]) -> list[Operation]:
    """Event numbers that follow from the instants: at one instant, invocations come first."""
    events = sorted(
        (instant, is_return, index)
        for index, each in enumerate(operations)
        for instant, is_return in ((each.invoked_at, 0), (each.returned_at or 0, 1))
    )
    number = {(index, is_return): place for place, (_, is_return, index) in enumerate(events)}
    return [
        msgspec.structs.replace(each, invoked=number[index, 0], returned=number[index, 1])
        for index, each in enumerate(operations)
    ]


def _instants_in(data: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Each record in an answer, with the name of an instant in it."""
    if not isinstance(data, dict):
        return
    for name in INSTANTS:
        if name in data:
            yield data, name
    for value in data.values():
        for each in value if isinstance(value, list) else [value]:
            yield from _instants_in(each)


def _spoiled(draw: Draw, operations: list[Operation], others: list[Answer]) -> list[Operation]:
    index = draw(st.integers(0, len(operations) - 1))
    for place in draw(st.sets(st.integers(0, len(operations) - 1), max_size=3)):
        operations[place] = msgspec.structs.replace(
            operations[place], answer=None, returned=None, returned_at=None
        )
    if operations[index].answer is None:
        return operations
    match draw(st.sampled_from(("true", "swap", "time", "status", "gone"))):
        case "swap":
            answer = draw(st.sampled_from(others))
            operations[index] = msgspec.structs.replace(operations[index], answer=answer)
        case "time":
            answer = operations[index].answer
            assert answer is not None
            data = copy.deepcopy(answer.data)
            places = list(_instants_in(data))
            if places:
                record, name = draw(st.sampled_from(places))
                record[name] += draw(st.sampled_from((-1, 1)))
                operations[index] = msgspec.structs.replace(
                    operations[index], answer=Answer(answer.status, data)
                )
        case "status":
            operations[index] = msgspec.structs.replace(operations[index], answer=Answer(409, ""))
        case "gone":
            del operations[index]
    return sorted(operations, key=lambda each: each.invoked)
