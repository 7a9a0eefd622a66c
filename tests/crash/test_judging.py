"""The judges of crash runs find what they are there to find."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from kept.check.history import History
from kept.protocol import requests as r
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import PromiseRecord, PromiseState, Value
from kept.protocol.responses import PromiseResult, Response
from tests.crash.effects import effect, judge_effects
from tests.crash.judge import judge_history, judge_stored, recorder, stored
from tests.crash.load import Ledger, RepeatingConnection
from tests.crash.processes import Nursery
from tests.crash.record import Record
from tests.crash.server import ServerProcess


async def test_a_lie_is_found(nursery: Nursery, tmp_path: Path) -> None:
    """An answer that is not what is stored, or a read of what never was, fails a run."""
    recording, ledger = recorder("a lie"), Ledger()
    server = ServerProcess(nursery, tmp_path / "kept.db", tmp_path / "log")
    try:
        await server.start()
        one = RepeatingConnection(server.url, recording, "c0", ledger)
        ledger.created["a"] = _promise(await one.send(r.PromiseCreate("a", NEVER_MS)))
        settle = r.PromiseSettle("a", PromiseState.RESOLVED, Value(data="1"))
        ledger.settled["a"].append(_promise(await one.send(settle)))
        await one.send(r.PromiseGet("a"))
        await one.close()
        assert await server.stop() == 0
    finally:
        server.end()
    history, dump = recording.history(), await stored(tmp_path / "kept.db")
    judge_history(history, Record(), tmp_path)
    judge_stored(ledger, dump, Record())

    other = msgspec.structs.replace(ledger.settled["a"][0], value=Value(data="2"))
    ledger.settled["a"].append(other)
    record = Record()
    with pytest.raises(AssertionError, match="not stored so"):
        judge_stored(ledger, dump, record)
    assert record.lost == 1
    with pytest.raises(AssertionError, match="not linearizable"):
        judge_history(_with_last_value(history, "2"), Record(), tmp_path)


def _promise(response: Response) -> PromiseRecord:
    assert isinstance(response.data, PromiseResult), response
    return response.data.promise


def _with_last_value(history: History, value: str) -> History:
    last = history.operations[-1]
    assert last.answer is not None
    data = {"promise": {**last.answer.data["promise"], "value": {"data": value}}}
    answer = msgspec.structs.replace(last.answer, data=data)
    changed = msgspec.structs.replace(last, answer=answer)
    return History(history.header, [*history.operations[:-1], changed])


def test_effects_are_counted() -> None:
    """One that is missing is lost; one that nobody asked for, or that differs, is there twice."""
    expected = {"a": 1, "b": 2}
    record = Record()
    judge_effects([effect("a", 1), effect("b", 2), effect("a", 1)], expected, record)
    assert (record.effects, record.effects_tried_again) == (2, 1)
    with pytest.raises(AssertionError, match="lost"):
        judge_effects([effect("a", 1)], expected, record)
    for wrong in (effect("c", 3), effect("b", 3)):
        with pytest.raises(AssertionError, match="nobody asked for"):
            judge_effects([effect("a", 1), effect("b", 2), wrong], expected, record)
    assert (record.lost, record.twice) == (1, 2)
