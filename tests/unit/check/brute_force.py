"""Linearizability by trying everything: every order, every instant, every background step.

It shares no code with the checker. For small histories only.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from typing import Any

from kept.check.compare import Reply, difference
from kept.check.history import Answer, Operation
from kept.check.model import Model
from kept.check.model.background import task_state
from kept.check.model.cancellation import (
    end_grace,
    is_over,
    promise_cancel,
    reach,
    reaches,
)
from kept.check.model.queues import expire_lease
from kept.check.model.schedules import fire
from kept.check.model.state import Refused, State, is_live, settle_by_deadline

HORIZON_MS = 14
PENDING = "pending"


def _minimal(operations: Sequence[Operation], left: frozenset[int]) -> Iterator[int]:
    """Those that may come next: nobody else that is left returned before they were invoked."""
    for index in sorted(left):
        if not any(
            other != index
            and operations[other].returned is not None
            and operations[other].returned < operations[index].invoked
            for other in left
        ):
            yield index


def _all_done(operations: Sequence[Operation], left: frozenset[int]) -> bool:
    return all(operations[index].answer is None for index in left)


def register_step(value: Any, operation: Operation) -> tuple[Any, Answer]:
    """What a register does."""
    data = operation.data
    if operation.kind == "read":
        return value, Answer(200, value)
    if operation.kind == "write":
        return data["value"], Answer(200)
    if value == data["old"]:
        return data["new"], Answer(200)
    return value, Answer(409)


def slot_step(value: Any, operation: Operation) -> tuple[Any, Answer]:
    """What a write-once slot does."""
    if operation.kind == "create":
        value = PENDING if value is None else value
    elif value is None:
        return None, Answer(404)
    elif operation.kind == "settle" and value == PENDING:
        value = operation.data["value"]
    return value, Answer(200, value)


def values_linearizable(operations: Sequence[Operation], step: Any) -> bool:
    """Whether any order explains all answers of registers or slots, of all ids at once."""

    def search(left: frozenset[int], values: dict[str, Any]) -> bool:
        if _all_done(operations, left):
            return True
        for index in _minimal(operations, left):
            operation = operations[index]
            id = operation.data["id"]
            value, answer = step(values.get(id), operation)
            if operation.answer in (None, answer) and search(left - {index}, {**values, id: value}):
                return True
        return False

    return search(frozenset(range(len(operations))), {})


def protocol_linearizable(operations: Sequence[Operation]) -> bool:
    """Whether any order, with any instants (whole ms) between invocation and return and any
    background steps between, explains all answers."""
    looked_at: set[Any] = set()

    def search(left: frozenset[int], model: Model, time: int) -> bool:
        if _all_done(operations, left):
            return True
        key = (left, time, _canonical(model.state))
        if key in looked_at:
            return False
        looked_at.add(key)
        for index in _minimal(operations, left):
            operation = operations[index]
            latest = HORIZON_MS if operation.answer is None else int(operation.returned_at or 0)
            for now in range(max(time, int(operation.invoked_at)), latest + 1):
                for before in _with_background(model, time, now):
                    after = copy.deepcopy(before)
                    answer = answered(after, operation.kind, operation.data, now)
                    reply = Reply(answer.status, answer.data)
                    if _fits(operation, reply) and search(left - {index}, after, now):
                        return True
        return False

    return search(frozenset(range(len(operations))), Model(), 0)


def _fits(operation: Operation, reply: Reply) -> bool:
    answer = operation.answer
    if answer is None:
        return True
    data = answer.data
    if isinstance(data, dict):
        # Not in the base protocol.
        kept = ("preload", "lost", "cancel")
        data = {name: value for name, value in data.items() if value != [] or name in kept}
    return difference(operation.kind, reply, Reply(answer.status, data)) is None


def _canonical(state: State) -> str:
    def plain(value: Any) -> Any:
        return sorted(value) if isinstance(value, set) else str(value)

    return json.dumps(
        [state.promises, state.tasks, state.schedules, state.keys], default=plain, sort_keys=True
    )


def answered(model: Model, kind: str, data: dict[str, Any], now: int) -> Answer:
    """What the model answers, also to what is beyond the base protocol."""
    if kind != "promise.cancel":
        return Answer(*model.answer(kind, data, now))
    try:
        return Answer(200, copy.deepcopy(promise_cancel(model.state, data, now)))
    except Refused as refusal:
        return Answer(refusal.status, refusal.text)


def _is_over(state: State, id: str, now: int) -> bool:
    return is_over(state.promises[id], now)


def single_steps(model: Model, now: int) -> Iterator[Model]:
    """The models after each one background step that is due."""
    state = model.state
    for id, promise in state.promises.items():
        if promise["state"] == PENDING and not is_live(promise, now):
            after = copy.deepcopy(model)
            settle_by_deadline(after.state, after.state.promises[id], now)
            yield after
    for id, task in state.tasks.items():
        if task_state(state, task, now) == "acquired" and task["expiresAt"] <= now:
            after = copy.deepcopy(model)
            expire_lease(after.state, id, now)
            yield after
    for id in state.promises:
        for step, is_due in (
            (reach, reaches(state.promises, id, now)),
            (end_grace, _is_over(state, id, now)),
        ):
            if is_due:
                after = copy.deepcopy(model)
                step(after.state, id, now)
                yield after
    for id, schedule in state.schedules.items():
        if schedule["nextRunAt"] <= now:
            after = copy.deepcopy(model)
            fire(after.state, after.state.schedules[id], schedule["nextRunAt"])
            yield after


def _with_background(model: Model, since: int, now: int) -> list[Model]:
    """What steps at any instants in a span may make of it. Only those of cancellations leave theirs."""
    found = {_canonical(model.state): model}
    is_canceled = any(promise["cancel"] is not None for promise in model.state.promises.values())
    for at in range(since if is_canceled else now, now + 1):
        waiting = list(found.values())
        while waiting:
            for after in single_steps(waiting.pop(), at):
                key = _canonical(after.state)
                if key not in found:
                    found[key] = after
                    waiting.append(after)
    return list(found.values())
