"""Waiting for many promises at once."""

from __future__ import annotations

import asyncio
from typing import Any

from kept.client.exchange import Answer
from kept.client.http import HttpConnection
from kept.client.waiting import MAX_WAITING_PROMISES
from kept.protocol.requests import PromiseWait, TaskClaim
from kept.protocol.responses import PromiseResult
from tests.unit.client.fakes import (
    PROMISE,
    InstantRuntime,
    ScriptedExchange,
    encoded,
    reply,
    until,
)


async def test_waits_beyond_the_bound_poll_together() -> None:
    """Only a bounded number of waits hold a connection; the rest see the settlement by polling."""
    exchange = ScriptedExchange()
    settled = False

    def answer(batch: list[Any]) -> Answer:
        state = "resolved" if settled else "pending"
        return encoded([reply(e, data={"promise": {**PROMISE, "state": state}}) for e in batch])

    exchange.on_batch = answer
    exchange.on_single = lambda e: encoded(reply(e))
    connection = HttpConnection("http://fake", InstantRuntime(), exchange=exchange)
    held = [
        asyncio.ensure_future(connection.send(PromiseWait(f"p{n}", 1_000)))
        for n in range(MAX_WAITING_PROMISES)
    ]
    exchange.gate.clear()
    await until(lambda: len(exchange.singles) == MAX_WAITING_PROMISES)
    more = [
        asyncio.ensure_future(connection.send(PromiseWait(f"more{n}", 60_000))) for n in range(100)
    ]
    claim = asyncio.ensure_future(connection.send(TaskClaim(["q"], "w", 1, wait=1_000)))
    await until(lambda: len(exchange.batches) == 1)
    assert len(exchange.batches[0]) == 100
    assert {e["kind"] for e in exchange.batches[0]} == {"promise.get"}
    assert len(exchange.singles) == MAX_WAITING_PROMISES + 1, "a claim is not held up by waits"
    settled = True
    exchange.on_single = lambda e: encoded(
        reply(e, data={"tasks": []} if e["kind"] == "task.claim" else None)
    )
    exchange.gate.set()
    answers = await asyncio.gather(*more)
    for response in answers:
        assert isinstance(response.data, PromiseResult)
        assert response.data.promise.state == "resolved"
    await asyncio.gather(claim, *held)
    await connection.close()


async def test_polling_wait_ends_with_the_pending_record() -> None:
    """A wait that polls ends at its own timeout, like the engine's, and polls ever less often."""
    exchange = ScriptedExchange()
    runtime = InstantRuntime()
    connection = HttpConnection("http://fake", runtime, exchange=exchange)
    exchange.gate.clear()
    held = [
        asyncio.ensure_future(connection.send(PromiseWait(f"p{n}", 1_000)))
        for n in range(MAX_WAITING_PROMISES)
    ]
    await until(lambda: len(exchange.singles) == MAX_WAITING_PROMISES)
    late = asyncio.ensure_future(connection.send(PromiseWait("late", 10_000)))
    await until(lambda: len(exchange.batches) == 1)
    exchange.gate.set()
    response = await late
    assert isinstance(response.data, PromiseResult)
    assert response.data.promise.state == "pending"
    assert abs(sum(runtime.slept) - 10) < 0.001
    assert len(exchange.batches) < 20
    await asyncio.gather(*held)
    await connection.close()
