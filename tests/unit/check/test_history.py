"""Recording, saving and loading."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kept.check.history import (
    Answer,
    Fault,
    Header,
    History,
    HistoryError,
    Operation,
    Recorder,
    RecordingConnection,
    load,
    parse,
)
from kept.errors import ConnectionFailedError
from kept.protocol import requests as r
from kept.protocol.responses import Nothing, Response

texts = st.text(max_size=5)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.tuples(texts, json_values, st.booleans()), max_size=5))
def test_what_is_recorded_is_what_is_loaded(asked: list[tuple[str, object, bool]]) -> None:
    """Saved and loaded, a history is the same, answers that never came included."""
    instants = count(1_000)
    recorder = Recorder(lambda: float(next(instants)), Header(title="t", clock_skew_ms=2.5))
    for client, value, is_answered in asked:
        number = recorder.invoke(client, {"kind": "write", "data": {"value": value}}, "server")
        if is_answered:
            recorder.answered(number, 200, value)
        else:
            recorder.given_up(number)
    recorder.fault("crash", process="server", detail="at once", until=9_999)
    history = recorder.history()
    assert parse(history.lines()) == history


def test_a_history_is_saved_to_a_file(tmp_path: Path) -> None:
    """The file is what the lines are; blank lines in it mean nothing."""
    path = tmp_path / "h.jsonl"
    history = History(Header(title="x"), [], [Fault(kind="partition", at=1, until=2)])
    history.save(path)
    path.write_bytes(path.read_bytes() + b"\n \n")
    assert load(path) == history


def test_events_of_one_instant_are_concurrent_without_numbers() -> None:
    """Where a file numbers no events, they follow from instants, and ties order nothing."""
    lines = [
        b'{"operation":{"client":"a","invokedAt":0,"returnedAt":5,"request":{},"answer":{"status":200}}}',
        b'{"operation":{"client":"b","invokedAt":5,"returnedAt":6,"request":{},"answer":{"status":200}}}',
        b'{"operation":{"client":"c","invokedAt":7,"request":{}}}',
    ]
    first, second, third = parse(lines).operations
    assert first.returned is not None
    assert second.returned is not None
    assert second.invoked < first.returned
    assert third.invoked > second.returned
    assert third.returned is None


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"{", "line 1"),
        (b"{}", "neither"),
        (b'{"history":{"format":2}}', "format 2"),
        (b'{"operation":{"client":"a","request":{},"answer":{"status":200}}}', "returnedAt"),
        (
            b'{"operation":{"client":"a","request":{},"answer":{"status":200},"returnedAt":1,'
            b'"invoked":5,"returned":4}}',
            "before it is invoked",
        ),
    ],
)
def test_what_is_no_history_is_refused(line: bytes, complaint: str) -> None:
    """A file that cannot be meant is refused with what is wrong."""
    with pytest.raises(HistoryError, match=complaint):
        parse([line])


class _Scripted:
    """Answers, or loses its connection."""

    def __init__(self) -> None:
        self.is_broken = False

    async def send(self, request: r.Request, *, request_id: str | None = None) -> Response:
        if self.is_broken:
            raise ConnectionFailedError("gone")
        return Response(200, Nothing())

    async def close(self) -> None:
        """Nothing to end."""


async def test_a_connection_is_recorded_with_lost_answers() -> None:
    """What passes a recording connection is noted as it travels; a lost answer has no outcome."""
    recorder = Recorder(lambda: 7.0)
    scripted = _Scripted()
    connection = RecordingConnection(scripted, recorder, "alice", "s1")
    await connection.send(r.TaskRelease("t", 1), request_id="once")
    scripted.is_broken = True
    with pytest.raises(ConnectionFailedError):
        await connection.send(r.TaskHalt("t"))
    answered, lost = recorder.history().operations
    assert answered == Operation(
        client="alice",
        process="s1",
        request={
            "kind": "task.release",
            "head": {"kept:request": "once"},
            "data": {"id": "t", "version": 1},
        },
        answer=Answer(200, {}),
        invoked=1,
        returned=2,
        invoked_at=7.0,
        returned_at=7.0,
    )
    assert (lost.kind, lost.answer, lost.returned) == ("task.halt", None, None)
