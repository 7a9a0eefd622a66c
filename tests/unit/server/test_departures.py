"""A request that waits ends when its client goes (protocol B1, B2)."""

from __future__ import annotations

import asyncio

import pytest

from kept.protocol import requests as r
from kept.protocol.responses import ClaimResult, Response
from tests.unit.server.support import envelope, eventually, post_bytes, read_answer, running_door

CLAIM = envelope("task.claim", {"queues": ["q"], "pid": "w", "ttl": 1000, "limit": 1, "wait": 9000})
WAIT = envelope("promise.wait", {"id": "p", "timeout": 9000})


@pytest.mark.parametrize("request_body", [CLAIM, WAIT], ids=["claim", "wait"])
async def test_a_waiting_request_is_given_up_with_its_connection(
    request_body: dict[str, object],
) -> None:
    """The engine's work is cancelled as soon as the client's connection ends."""
    events: list[str] = []

    async def wait(request: r.Request) -> Response:
        events.append("began")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            events.append("given up")
            raise
        raise AssertionError("nobody left")

    async with running_door() as door:
        door.engine.answer = wait
        async with door.connect() as (_, writer):
            writer.write(post_bytes(request_body))
            await eventually(lambda: events == ["began"])
        await eventually(lambda: events == ["began", "given up"])
        await eventually(lambda: door.admission.requests == 0)


async def test_a_waiting_request_is_answered_and_its_connection_goes_on() -> None:
    """Watching for the client's departure eats nothing of the next request."""

    async def answer(request: r.Request) -> Response:
        await asyncio.sleep(0)
        return Response(200, ClaimResult([]))

    async with running_door() as door:
        door.engine.answer = answer
        async with door.connect() as (reader, writer):
            for _ in range(3):
                # Two at once: the second is pipelined behind the first.
                writer.write(post_bytes(CLAIM) * 2)
                for _ in range(2):
                    status, headers, body = await read_answer(reader)
                    assert (status, b'"tasks":[]' in body) == (200, True), headers


async def test_each_request_of_a_lost_connection_learns_of_it() -> None:
    """The one that is being answered is told too, when another one is queued behind it."""
    events: list[str] = []

    async def wait(request: r.Request) -> Response:
        events.append("began")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            events.append("given up")
            raise
        raise AssertionError("nobody left")

    async with running_door() as door:
        door.engine.answer = wait
        async with door.connect() as (_, writer):
            writer.write(post_bytes(CLAIM) * 2)
            await eventually(lambda: events == ["began"])
            (connection,) = door.guard.connections
            connection.transport.abort()
            await eventually(lambda: events == ["began", "given up"])
