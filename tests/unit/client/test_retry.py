"""What is asked again, what is not, and how long it waits in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from kept.client.exchange import (
    Answer,
    AnswerLostError,
    AnswerTooLargeError,
    NotSentError,
)
from kept.client.http import HttpConnection
from kept.client.retry import RetryPolicy
from kept.errors import ConnectionFailedError
from kept.protocol import requests as r
from kept.protocol.records import PromiseState
from tests.unit.client.fakes import InstantRuntime, ScriptedExchange, encoded, reply

POLICY = RetryPolicy(attempts=4, base_seconds=1.0, longest_seconds=2.0)


def failing(times: int, error: Exception, data: object = None) -> Callable[[list[Any]], Answer]:
    """Raises `error` the first `times` times, then answers."""
    left = times

    def answer(batch: list[Any]) -> Answer:
        nonlocal left
        if left > 0:
            left -= 1
            raise error
        return encoded([reply(envelope, data=data) for envelope in batch])

    return answer


def connected() -> tuple[HttpConnection, ScriptedExchange, InstantRuntime]:
    exchange, runtime = ScriptedExchange(), InstantRuntime()
    return (
        HttpConnection("http://fake", runtime, retry=POLICY, exchange=exchange),
        exchange,
        runtime,
    )


async def test_unsent_request_is_sent_again_whatever_it_is() -> None:
    """Where nothing was sent, even a request that must not be repeated goes again."""
    connection, exchange, runtime = connected()
    exchange.on_batch = failing(3, NotSentError("refused"), data={"replays": []})
    response = await connection.send(r.DeadReplay(["x"]))
    assert response.ok
    assert len(exchange.batches) == 4
    assert [delay <= limit for delay, limit in zip(runtime.slept, (1, 2, 2), strict=True)] == [
        True,
        True,
        True,
    ]


async def test_attempts_are_bounded() -> None:
    """A server that stays away is given up on after the policy's attempts, and the error names it."""
    connection, exchange, _ = connected()
    exchange.on_batch = failing(100, NotSentError("refused"))
    with pytest.raises(ConnectionFailedError, match="cannot reach http://fake: refused"):
        await connection.send(r.PromiseGet("p"))
    assert len(exchange.batches) == POLICY.attempts


async def test_lost_answer_of_a_repeatable_request_is_asked_for_again() -> None:
    """A create whose answer was lost is sent again: by id the first write wins."""
    connection, exchange, _ = connected()
    exchange.on_batch = failing(1, AnswerLostError("reset"))
    assert (await connection.send(r.PromiseCreate("p", 10))).ok
    assert len(exchange.batches) == 2


@pytest.mark.parametrize(
    "request_",
    [
        r.TaskContinue("t"),
        r.ScheduleDelete("s"),
        r.DeadReplay(["d"]),
        r.TaskCreate("w", 1, r.CreateAction(r.PromiseCreate("p", 10))),
        r.DebugTick(1),
        r.DebugReset(),
    ],
    ids=lambda request: request.kind,
)
async def test_lost_answer_of_another_request_is_an_error(request_: r.Request) -> None:
    """What would mean something else the second time is never sent twice."""
    connection, exchange, _ = connected()
    exchange.on_batch = failing(1, AnswerLostError("reset"))
    with pytest.raises(ConnectionFailedError, match="whether it was applied is unknown"):
        await connection.send(request_)
    assert len(exchange.batches) == 1


@pytest.mark.parametrize(
    "request_",
    [
        r.TaskAcquire("t", 1, "w", 1),
        r.TaskClaim(["q"], "w", 1),
        r.TaskSuspend("t", 1, []),
        r.TaskFulfill("t", 1, r.SettleAction(r.PromiseSettle("t", PromiseState.RESOLVED))),
        r.TaskNack("t", 1),
        r.TaskRelease("t", 1),
        r.TaskRecordStep("t", 1, r.PromiseCreate("c", 10), PromiseState.RESOLVED),
    ],
    ids=lambda request: request.kind,
)
async def test_leased_requests_carry_an_id_that_stays_the_same(request_: r.Request) -> None:
    """What acts under a lease gets a `kept:request` id, and a repetition carries the same one."""
    connection, exchange, _ = connected()

    def lose_then_refuse(batch: list[Any]) -> Answer:
        if len(exchange.batches) == 1:
            raise AnswerLostError("reset")
        return encoded([reply(envelope, 409, "stale") for envelope in batch])

    exchange.on_batch = lose_then_refuse
    assert (await connection.send(request_)).status == 409
    ids = [batch[0]["head"]["kept:request"] for batch in exchange.batches]
    assert len(ids) == 2
    assert len(set(ids)) == 1
    await connection.send(request_)
    assert exchange.batches[-1][0]["head"]["kept:request"] != ids[0]


async def test_given_request_id_is_used() -> None:
    """A caller's own id goes out as it is."""
    connection, exchange, _ = connected()
    await connection.send(r.TaskRelease("t", 1), request_id='mine "1"')
    assert exchange.batches[0][0]["head"]["kept:request"] == 'mine "1"'


@pytest.mark.parametrize("status", [429, 503])
async def test_refused_item_is_asked_again_alone(status: int) -> None:
    """Of a batch, only what was refused for now is sent again."""
    connection, exchange, runtime = connected()

    def refuse_first(batch: list[Any]) -> Answer:
        first = len(exchange.batches) == 1
        return encoded(
            [
                reply(e, status, "later") if first and e["data"]["id"] == "a" else reply(e)
                for e in batch
            ]
        )

    exchange.on_batch = refuse_first
    answers = await asyncio.gather(
        connection.send(r.PromiseGet("a")), connection.send(r.PromiseGet("b"))
    )
    assert [answer.status for answer in answers] == [200, 200]
    assert [[e["data"]["id"] for e in batch] for batch in exchange.batches] == [["a", "b"], ["a"]]
    assert len(runtime.slept) == 1


async def test_retry_after_is_honoured() -> None:
    """A whole exchange refused with Retry-After waits at least that long, and at most the bound."""
    connection, exchange, runtime = connected()
    asked = iter([7.0, 9_999.0])

    def refuse(batch: list[Any]) -> Answer:
        if len(exchange.batches) <= 2:
            return encoded(reply(batch[0], 503, "stopping"), 503, next(asked))
        return encoded([reply(envelope) for envelope in batch])

    exchange.on_batch = refuse
    assert (await connection.send(r.PromiseGet("p"))).ok
    assert 7 <= runtime.slept[0] <= 8
    assert 30 <= runtime.slept[1] <= 32


async def test_refusal_is_the_answer_in_the_end() -> None:
    """A server that refuses to the last attempt has its refusal returned, not raised."""
    connection, exchange, _ = connected()
    exchange.on_batch = lambda batch: encoded([reply(e, 429, "full") for e in batch])
    response = await connection.send(r.PromiseCreate("p", 10))
    assert (response.status, response.data) == (429, "full")
    assert len(exchange.batches) == POLICY.attempts


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b"<html>"),
        Answer(200, b"[]"),
        Answer(404, b"not found"),
        Answer(301, b""),
        encoded(
            [
                {
                    "kind": "promise.get",
                    "head": {"corrId": "elsewhere", "status": 200, "version": ""},
                    "data": {},
                }
            ]
        ),
        encoded(
            [{"kind": "k", "head": {"corrId": "1", "status": 200, "version": ""}, "data": {"x": 1}}]
        ),
    ],
    ids=["html", "too few", "404", "redirect", "another corrId", "wrong data"],
)
async def test_what_is_no_engine_is_named_at_once(answer: Answer) -> None:
    """Something that does not speak the protocol is an error that says so, without repetition."""
    connection, exchange, _ = connected()
    exchange.on_batch = lambda batch: answer
    with pytest.raises(ConnectionFailedError, match="is not a kept server"):
        await connection.send(r.PromiseGet("p"))
    assert len(exchange.batches) == 1


async def test_proxy_without_a_server_behind_it_is_asked_again() -> None:
    """A 502 in a proxy's own words counts as a lost answer."""
    connection, exchange, _ = connected()
    exchange.on_batch = lambda batch: (
        Answer(502, b"<html>Bad Gateway")
        if len(exchange.batches) == 1
        else encoded([reply(e) for e in batch])
    )
    assert (await connection.send(r.PromiseGet("p"))).ok


async def test_not_an_engine_from_the_exchange_is_not_repeated() -> None:
    """The exchange's own verdict counts as well."""
    connection, exchange, _ = connected()
    exchange.on_single = lambda envelope: Answer(404, b"")
    with pytest.raises(ConnectionFailedError, match="check the URL"):
        await connection.send(r.PromiseWait("p", 1_000))
    assert len(exchange.singles) == 1


async def test_answers_too_large_together_are_fetched_one_by_one() -> None:
    """Where a batch's answers exceed the bound, each is asked for alone; alone it is an error."""
    connection, exchange, _ = connected()

    def too_large(content: object) -> Answer:
        raise AnswerTooLargeError("the answer is too large")

    exchange.on_batch = too_large
    answers = await asyncio.gather(*(connection.send(r.PromiseGet(f"p{n}")) for n in range(5)))
    assert all(answer.ok for answer in answers)
    assert len(exchange.singles) == 5
    exchange.on_single = too_large
    with pytest.raises(ConnectionFailedError, match="too large"):
        await connection.send(r.PromiseGet("p"))
