"""From bytes to typed answers."""

from __future__ import annotations

import pytest

from kept.client.results import (
    RESULT_BY_KIND,
    UnintelligibleError,
    decode_batch,
    decode_single,
    typed_response,
)
from kept.protocol import responses as a
from kept.protocol.codec import encode_response
from kept.protocol.kinds import REQUEST_BY_KIND
from kept.protocol.records import PromiseRecord, PromiseState, TaskRecord, TaskState, Value
from kept.protocol.responses import Response

PROMISE = PromiseRecord(
    "p", PromiseState.RESOLVED, Value(data="1"), Value({"a": "b"}), {"t": "u"}, 9, 1, 5
)
TASK = TaskRecord("p", TaskState.ACQUIRED, 3, 1, 1_000, "w")
INNER = a.InnerHead("c", 200, "2026-04-01")


def test_every_kind_has_a_result() -> None:
    """No request's answer would be untyped; debug.tick alone answers a bare list."""
    assert set(REQUEST_BY_KIND) - set(RESULT_BY_KIND) == {"debug.tick"}


@pytest.mark.parametrize(
    ("kind", "response"),
    [
        ("promise.get", Response(200, a.PromiseResult(PROMISE))),
        ("promise.search", Response(200, a.PromisePage([PROMISE], "next"))),
        ("task.get", Response(200, a.TaskResult(TASK))),
        (
            "task.claim",
            Response(200, a.ClaimResult([a.AcquiredTask(TASK, PROMISE, [PROMISE], 1, ["x"], "m")])),
        ),
        ("task.suspend", Response(200, a.Nothing())),
        ("task.suspend", Response(300, a.PreloadResult([PROMISE]))),
        (
            "task.fence",
            Response(
                200,
                a.FenceResult(
                    a.InnerResponse("promise.create", INNER, a.PromiseResult(PROMISE)), []
                ),
            ),
        ),
        (
            "task.fence",
            Response(
                200, a.FenceResult(a.InnerResponse("promise.settle", INNER, "no such promise"), [])
            ),
        ),
        ("task.heartbeat", Response(200, a.HeartbeatResult())),
        (
            "task.heartbeat",
            Response(200, a.HeartbeatResult([a.LostLease("p", 1, "expired")], ["q"])),
        ),
        ("task.nack", Response(200, a.NackResult("retry", 5))),
        ("debug.tick", Response(200, [])),
        ("promise.get", Response(404, "no promise p")),
    ],
)
def test_answers_come_back_as_they_were(kind: str, response: Response) -> None:
    """What the server's codec writes, the client reads as the same structures."""
    received = decode_single(encode_response(kind, "1", response))
    again = typed_response(kind, received)
    assert again == response
    assert type(again.data) is type(response.data)


def test_unknown_fields_are_ignored() -> None:
    """A newer server may say more."""
    received = decode_batch(
        b'[{"kind":"task.get","head":{"corrId":"1","status":200,"version":"x","new":1},'
        b'"data":{"task":{"id":"t","state":"pending","version":0,"resumes":0,"new":1},"new":[]}}]'
    )[0]
    data = typed_response("task.get", received).data
    assert isinstance(data, a.TaskResult)
    assert data.task.id == "t"


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff", b"null", b"{}", b'[{"kind":1}]', b"[" * 100_000],
    ids=["empty", "binary", "null", "object", "wrong", "deep"],
)
def test_nonsense_is_unintelligible(body: bytes) -> None:
    """Anything else raises the one exception for it, never another."""
    with pytest.raises(UnintelligibleError):
        decode_batch(body)
    with pytest.raises(UnintelligibleError):
        decode_single(body)


def test_structured_error_becomes_text() -> None:
    """Error data that is no string (other servers do this) is kept as text."""
    received = decode_single(
        b'{"kind":"k","head":{"corrId":"1","status":400,"version":"x"},"data":{"code":7}}'
    )
    assert typed_response("promise.get", received) == Response(400, '{"code":7}')
