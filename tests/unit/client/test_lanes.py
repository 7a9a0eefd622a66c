"""Gathering concurrent calls into batches."""

from __future__ import annotations

import asyncio

import pytest

from kept.client.http import HttpConnection
from kept.errors import ConnectionFailedError
from kept.protocol.limits import MAX_BATCH_REQUESTS, MAX_BODY_BYTES
from kept.protocol.records import Value
from kept.protocol.requests import PromiseCreate, PromiseGet, TaskClaim
from kept.protocol.responses import PromiseResult
from tests.unit.client.fakes import InstantRuntime, ScriptedExchange, encoded, reply, until


def connection_over(exchange: ScriptedExchange, lanes: int = 2) -> HttpConnection:
    return HttpConnection("http://fake", InstantRuntime(), lanes=lanes, exchange=exchange)


async def test_calls_of_one_turn_travel_together() -> None:
    """What is asked in the same turn of the loop is one exchange, and each gets its own answer."""
    exchange = ScriptedExchange()
    exchange.on_batch = lambda batch: encoded(
        [reply(e, 404, f"no {e['data']['id']}") for e in batch]
    )
    connection = connection_over(exchange)
    answers = await asyncio.gather(*(connection.send(PromiseGet(f"p{n}")) for n in range(50)))
    assert [answer.data for answer in answers] == [f"no p{n}" for n in range(50)]
    assert [len(batch) for batch in exchange.batches] == [50]
    await connection.close()


async def test_idle_connection_sends_without_delay() -> None:
    """A lone call causes an exchange at once: no timer passes between."""
    exchange = ScriptedExchange()
    runtime = InstantRuntime()
    connection = HttpConnection("http://fake", runtime, exchange=exchange)
    exchange.gate.clear()
    call = asyncio.ensure_future(connection.send(PromiseGet("p")))
    turns = 0
    while not exchange.batches and turns < 10:
        turns += 1
        await asyncio.sleep(0)
    assert exchange.batches
    assert runtime.slept == []
    exchange.gate.set()
    await call
    await connection.close()


async def test_lanes_bound_the_exchanges_in_flight() -> None:
    """With both lanes under way, further calls gather and go together when one is free."""
    exchange = ScriptedExchange()
    connection = connection_over(exchange, lanes=2)
    exchange.gate.clear()
    calls = []
    for number in range(10):
        calls.append(asyncio.ensure_future(connection.send(PromiseGet(f"p{number}"))))
        for _ in range(5):
            await asyncio.sleep(0)
    assert exchange.in_flight == 2
    exchange.gate.set()
    await asyncio.gather(*calls)
    assert [len(batch) for batch in exchange.batches] == [1, 1, 8]
    assert exchange.most_in_flight == 2
    await connection.close()


async def test_batches_stay_within_the_number_of_requests() -> None:
    """More calls than a batch may hold are spread over several, none larger than the limit."""
    exchange = ScriptedExchange()
    connection = connection_over(exchange)
    await asyncio.gather(*(connection.send(PromiseGet(f"p{n}")) for n in range(2_500)))
    sizes = [len(batch) for batch in exchange.batches]
    assert sum(sizes) == 2_500
    assert max(sizes) <= MAX_BATCH_REQUESTS
    await connection.close()


async def test_batches_stay_within_the_size_of_a_body() -> None:
    """Large requests are spread so that no body is larger than 4 MiB."""
    exchange = ScriptedExchange()
    connection = connection_over(exchange)
    payload = Value(data="x" * 1_000_000)
    requests = [PromiseCreate(f"p{n}", 10, payload) for n in range(11)]
    await asyncio.gather(*(connection.send(request) for request in requests))
    assert sum(len(batch) for batch in exchange.batches) == 11
    assert max(exchange.bodies) <= MAX_BODY_BYTES
    assert len(exchange.batches) == 3
    await connection.close()


async def test_request_larger_than_a_body_is_refused_here() -> None:
    """A request that no server would take is answered with 413 and never sent."""
    exchange = ScriptedExchange()
    connection = connection_over(exchange)
    response = await connection.send(PromiseCreate("p", 10, Value(data="x" * MAX_BODY_BYTES)))
    assert response.status == 413
    assert exchange.bodies == []
    await connection.close()


async def test_cancelled_call_leaves_the_others_alone() -> None:
    """A caller that gives up is dropped from the queue; others in its batch get their answers."""
    exchange = ScriptedExchange()
    connection = connection_over(exchange, lanes=1)
    exchange.gate.clear()
    first = asyncio.ensure_future(connection.send(PromiseGet("first")))
    await until(lambda: exchange.in_flight == 1)
    given_up = asyncio.ensure_future(connection.send(PromiseGet("given-up")))
    kept = asyncio.ensure_future(connection.send(PromiseGet("kept")))
    await asyncio.sleep(0)
    given_up.cancel()
    first.cancel()
    await asyncio.gather(given_up, first, return_exceptions=True)
    exchange.gate.set()
    assert isinstance((await kept).data, PromiseResult)
    assert [[e["data"]["id"] for e in batch] for batch in exchange.batches] == [["first"], ["kept"]]
    await connection.close()


async def test_waiting_requests_travel_alone_and_longer() -> None:
    """A claim that waits goes to `POST /` with a timeout beyond its wait, while others go on."""
    exchange = ScriptedExchange()
    exchange.on_single = lambda envelope: encoded(reply(envelope, data={"tasks": []}))
    connection = connection_over(exchange)
    exchange.gate.clear()
    claim = asyncio.ensure_future(connection.send(TaskClaim(["q"], "w", 1_000, wait=30_000)))
    await until(lambda: len(exchange.singles) == 1)
    assert exchange.timeouts[0] > 30
    exchange.gate.set()
    assert (await claim).status == 200
    exchange.on_batch = lambda batch: encoded([reply(e, data={"tasks": []}) for e in batch])
    assert (await connection.send(TaskClaim(["q"], "w", 1_000))).status == 200
    assert len(exchange.batches) == 1
    await connection.close()


async def test_close_ends_those_who_wait() -> None:
    """Closing fails the calls in flight and in the queue, and refuses new ones; twice is harmless."""
    exchange = ScriptedExchange()
    connection = connection_over(exchange, lanes=1)
    exchange.gate.clear()
    calls = [asyncio.ensure_future(connection.send(PromiseGet("a")))]
    await until(lambda: exchange.in_flight == 1)
    calls.append(asyncio.ensure_future(connection.send(PromiseGet("b"))))
    await asyncio.sleep(0)
    await connection.close()
    await connection.close()
    for call in calls:
        with pytest.raises(ConnectionFailedError):
            await call
    with pytest.raises(ConnectionFailedError):
        await connection.send(PromiseGet("c"))
    assert exchange.closed
    assert exchange.in_flight == 0
