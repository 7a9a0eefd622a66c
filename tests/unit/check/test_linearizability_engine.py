"""Histories of the real engine: linearizable as recorded, and what is then broken is found."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from kept.check.history import Answer, History, Operation
from kept.check.linearizability import Verdict, check
from kept.check.protocol_model import ProtocolModel
from tests.unit.check.brute_force import protocol_linearizable
from tests.unit.check.concurrent_clients import Plan, recorded

# What a small history may hold so that everything can still be tried.
SMALL = Plan(seed=0, clients=3, requests=3, ids=2, base_only=True)
SEEDS = range(6)
LEAST_BROKEN = 60


def _verdict(history: History) -> Verdict:
    return check(history, ProtocolModel()).verdict


def _with_answer(history: History, index: int, answer: Answer | None) -> History:
    operations = list(history.operations)
    returned = operations[index].returned if answer is not None else None
    operations[index] = msgspec.structs.replace(operations[index], answer=answer, returned=returned)
    return History(history.header, operations)


def _records(data: Any) -> Iterator[dict[str, Any]]:
    """The promise and task records in an answer."""
    if not isinstance(data, dict):
        return
    for name in ("promise", "task"):
        if isinstance(data.get(name), dict):
            yield data[name]
    for lease in data.get("tasks", ()):
        yield from _records(lease)


def _mutations(operation: Operation) -> Iterator[Answer]:
    """Answers that differ from the one that was given."""
    answer = operation.answer
    assert answer is not None
    yield Answer(409 if answer.status < 400 else 404, "no")
    for place, record in enumerate(_records(answer.data)):
        other_state = {"pending": "acquired" if "version" in record else "resolved"}
        changes: dict[str, Any] = {"state": other_state.get(record["state"], "pending")}
        changes |= {"version": record["version"] + 1} if "version" in record else {}
        changes |= {"createdAt": record["createdAt"] + 1} if "createdAt" in record else {}
        for name, value in changes.items():
            data = copy.deepcopy(answer.data)
            list(_records(data))[place][name] = value
            yield Answer(answer.status, data)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
async def test_what_the_engine_answers_is_linearizable(seed: int, *, shared: bool) -> None:
    """Concurrent clients, apart or on the same ids, with claims, recorded steps and deadlines that
    pass meanwhile: there is an order that explains all answers."""
    history = await recorded(Plan(seed=seed, requests=60, shared=shared))
    result = check(history, ProtocolModel())
    assert result.verdict is Verdict.LINEARIZABLE, [each.reason for each in result.violations]
    assert sum(len(component.operations) for component in result.components) > 200


async def test_a_changed_answer_is_found_whenever_it_breaks_something() -> None:
    """In small histories of the engine, each answer changed in each way is judged as by trying
    everything, and most changes break something."""
    broken = 0
    for seed in SEEDS:
        history = await recorded(dataclasses.replace(SMALL, seed=seed))
        assert protocol_linearizable(history.operations)
        assert _verdict(history) is Verdict.LINEARIZABLE
        for index, operation in enumerate(history.operations):
            for answer in _mutations(operation):
                changed = _with_answer(history, index, answer)
                expected = protocol_linearizable(changed.operations)
                found = _verdict(changed)
                assert (found is Verdict.LINEARIZABLE) == expected, (operation, answer)
                broken += not expected
    assert broken >= LEAST_BROKEN


async def test_a_forgotten_answer_breaks_nothing() -> None:
    """Less knowledge never makes a linearizable history one that is not."""
    history = await recorded(Plan(seed=3, requests=20))
    for index in range(0, len(history.operations), 3):
        history = _with_answer(history, index, None)
    assert _verdict(history) is Verdict.LINEARIZABLE


async def test_a_long_history_is_searched_where_it_is_broken() -> None:
    """One impossible version in a long history is found, named first, and nothing else is."""
    history = await recorded(Plan(seed=1, requests=60))
    index, operation = next(
        (index, operation)
        for index, operation in enumerate(history.operations)
        if index > 100 and operation.kind == "task.get" and operation.answer.status == 200
    )
    data = copy.deepcopy(operation.answer.data)
    data["task"]["version"] += 50
    result = check(_with_answer(history, index, Answer(200, data)), ProtocolModel())
    assert [violation.first for violation in result.violations] == [index]
    assert "version" in result.violations[0].reason


async def test_a_small_budget_is_an_honest_unknown() -> None:
    """Out of steps, the checker says so instead of guessing."""
    history = await recorded(Plan(seed=1, requests=20))
    result = check(history, ProtocolModel(), budget_steps=5)
    assert result.verdict is Verdict.UNKNOWN
    assert "5 steps" in result.undecided[0].reason
