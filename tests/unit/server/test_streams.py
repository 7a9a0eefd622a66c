"""`GET /poll/{group}/{id}` over the wire: server-sent events as installed clients read them (A6)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from kept.transports.base import DeliveryFailedError
from tests.unit.server.support import RunningDoor, eventually, read_answer, running_door


@asynccontextmanager
async def listening(
    door: RunningDoor, path: str
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A stream whose headers have arrived."""
    async with door.connect() as (reader, writer):
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\n\r\n".encode()
        )
        status, headers, _ = await read_answer(reader)
        assert status == 200
        assert headers["content-type"] == "text/event-stream"
        assert "content-encoding" not in headers
        yield reader, writer


async def chunk(reader: asyncio.StreamReader) -> bytes:
    """The next chunk of a body; empty at its end."""
    async with asyncio.timeout(10):
        size = int(await reader.readuntil(b"\r\n"), 16)
        return (await reader.readexactly(size + 2))[:-2]


async def until(door: RunningDoor, connections: int) -> None:
    await eventually(lambda: door.poll.connections == connections)


async def test_a_message_is_one_data_line_of_ascii() -> None:
    """The bytes on the wire are `data: <json>`, a blank line, and nothing else."""
    async with (
        running_door(keep_alive_seconds=0.3) as door,
        listening(door, "/poll/g/w") as (
            reader,
            _,
        ),
    ):
        message = json.dumps({"kind": "execute", "text": "é\u2028😀"}, ensure_ascii=False).encode()
        delivery = asyncio.create_task(door.poll.deliver("poll://uni@g/w", message))
        frame = await chunk(reader)
        assert frame == b'data: {"kind": "execute", "text": "\\u00e9\\u2028\\ud83d\\ude00"}\n\n'
        assert not delivery.done()
        await asyncio.wait_for(delivery, 5)
        assert await chunk(reader) == b": keep-alive\n\n"


@pytest.mark.parametrize(
    ("path", "group", "id"),
    [
        ("/poll/g/w", "g", "w"),
        ("/poll/g/p/1", "g", "p/1"),
        ("/poll/g%2Fh/p%20%C3%BC", "g/h", "p ü"),
        ("/poll/g/a%2F%2e%2e", "g", "a/.."),
    ],
)
async def test_group_and_id_are_percent_decoded(path: str, group: str, id: str) -> None:
    """The id is the rest of the path."""
    async with running_door() as door, listening(door, path):
        await until(door, 1)
        assert [list(members) for members in door.poll._groups.values()] == [[id]]
        assert list(door.poll._groups) == [("default", group)]


@pytest.mark.parametrize("path", ["/poll/g", "/poll/g/", "/poll//w", "/poll/g/%ff", "/poll/g/%00"])
async def test_a_path_without_group_and_id_is_a_400(path: str) -> None:
    """The refusal is the protocol's."""
    async with running_door() as door:
        status, _, body = await door.get(path)
        assert status == json.loads(body)["head"]["status"] == 400


async def test_capacity_is_a_503() -> None:
    """One listener too many is told to come back."""
    async with running_door(poll_capacity=1) as door, listening(door, "/poll/g/a"):
        status, headers, _ = await door.get("/poll/g/b")
        assert status == 503
        assert "retry-after" in headers


async def test_a_client_that_goes_is_forgotten_at_once() -> None:
    """Its group is not reachable, and what it was sent is not delivered."""
    async with running_door() as door:
        async with listening(door, "/poll/g/w") as (reader, _):
            delivery = asyncio.create_task(door.poll.deliver("poll://any@g", b"{}"))
            assert await chunk(reader) == b"data: {}\n\n"
        await until(door, 0)
        with pytest.raises(DeliveryFailedError):
            await asyncio.wait_for(delivery, 5)


async def test_a_newer_stream_of_the_same_worker_ends_the_older() -> None:
    """The older response ends properly, so that its reader is not left waiting."""
    async with running_door() as door, listening(door, "/poll/g/w") as (old, _):
        async with listening(door, "/poll/g/w") as (new, _):
            assert await chunk(old) == b""
            delivery = asyncio.create_task(door.poll.deliver("poll://uni@g/w", b"1"))
            assert await chunk(new) == b"data: 1\n\n"
        with pytest.raises(DeliveryFailedError):
            await asyncio.wait_for(delivery, 5)


async def test_stopping_ends_streams_properly() -> None:
    """At a stop each stream ends as a complete response and the connection is closed."""
    async with running_door() as door, listening(door, "/poll/g/w") as (reader, _):
        door.server.leave()
        await door.poll.close()
        assert await chunk(reader) == b""
        assert await asyncio.wait_for(reader.read(), 10) == b""
        await asyncio.wait_for(asyncio.shield(door.serving), 10)
