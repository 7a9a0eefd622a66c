"""No client can hold the server or fill its memory: bounds and deadlines of the door (protocol A10)."""

from __future__ import annotations

import asyncio
import json
import socket

from kept.protocol import requests as r
from kept.protocol.limits import MAX_BODY_BYTES
from kept.protocol.responses import Response
from kept.server.limits import MAX_HEAD_BYTES, Limits
from tests.unit.server.support import (
    RunningDoor,
    envelope,
    eventually,
    post_bytes,
    read_answer,
    running_door,
)

GET = envelope("promise.get", {"id": "p"})
QUICK = Limits(head_timeout=0.5, body_timeout=0.5, write_timeout=0.5, idle_timeout=1)


def padded(size: int) -> bytes:
    """A valid request of exactly `size` bytes."""
    body = json.dumps(GET).encode()
    return body + b" " * (size - len(body))


async def closed(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server closes, which it must within ten seconds."""
    async with asyncio.timeout(10):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


async def still_answers(door: RunningDoor) -> None:
    """Another client is served as if nothing had been."""
    assert (await door.post(GET))[0] == 200


async def test_a_body_of_the_limit_is_read_and_one_byte_more_is_a_413() -> None:
    """4 MiB exactly, declared in advance; the refusal is the protocol's, and the connection goes on."""
    async with running_door() as door:
        assert (await door.post(padded(MAX_BODY_BYTES)))[0] == 200
        async with door.connect() as (reader, writer):
            writer.write(post_bytes(padded(MAX_BODY_BYTES + 1)))
            status, _, body = await read_answer(reader)
            assert status == json.loads(body)["head"]["status"] == 413
            writer.write(post_bytes(GET))
            assert (await read_answer(reader))[0] == 200
        assert len(door.engine.asked) == 2


async def test_a_declared_giant_is_refused_before_it_is_sent() -> None:
    """The length alone is enough for the 413, also for a client that asks first."""
    async with running_door() as door:
        for length in (str(2**40), "9" * 18):
            for expect in ("", "Expect: 100-continue\r\n"):
                head = f"POST / HTTP/1.1\r\nHost: h\r\n{expect}Content-Length: {length}\r\n\r\n"
                status, headers, _ = await door.raw(head.encode())
                assert status == 413
                # Whoever asked first will not send the body, so the connection has no next request.
                assert (headers.get("connection") == "close") == bool(expect)


async def test_a_client_that_asks_first_is_told_to_go_on() -> None:
    """Expect: 100-continue with a body that fits."""
    async with running_door() as door, door.connect() as (reader, writer):
        body = json.dumps(GET).encode()
        head = f"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: {len(body)}"
        writer.write(f"{head}\r\n\r\n".encode())
        assert (await read_answer(reader))[0] == 100
        writer.write(body)
        assert (await read_answer(reader))[0] == 200


async def test_a_body_in_chunks_is_bounded_too() -> None:
    """A body without a length gets its 413 when it passes the limit, and is not kept."""
    async with running_door() as door, door.connect() as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        piece = b"10000\r\n" + b" " * 65_536 + b"\r\n"
        answer = asyncio.create_task(read_answer(reader))
        for _ in range(MAX_BODY_BYTES // 65_536 + 1):
            writer.write(piece)
            await writer.drain()
        assert (await answer)[0] == 413
        writer.write(b"0\r\n\r\n" + post_bytes(GET))
        assert (await read_answer(reader))[0] == 200
        assert door.admission.body_bytes == 0


async def test_a_body_that_goes_on_for_ever_is_cut_off() -> None:
    """After the 413 some of the rest is thrown away, but not for ever."""
    async with running_door() as door, door.connect() as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        piece = b"10000\r\n" + b" " * 65_536 + b"\r\n"

        async def write_for_ever() -> None:
            try:
                while True:
                    writer.write(piece)
                    await writer.drain()
            except ConnectionError:
                return

        async with asyncio.timeout(20):
            await write_for_ever()
        await closed(reader)
        await still_answers(door)


async def test_a_giant_head_is_refused() -> None:
    """A head without end gets a 413, in one header or in many."""
    async with running_door() as door:
        many = b"".join(b"X-%d: y\r\n" % number for number in range(20_000))
        for headers in (b"X: " + b"y" * MAX_HEAD_BYTES * 2, many):
            status, _, body = await door.raw(b"POST / HTTP/1.1\r\nHost: h\r\n" + headers)
            assert status == json.loads(body)["head"]["status"] == 413
        await still_answers(door)


async def test_slow_and_half_open_clients_are_ended() -> None:
    """Nothing at all, half a head, a head byte by byte, half a body: closed after the deadline, the
    incomplete requests with a 400."""
    async with running_door(limits=QUICK) as door:
        whole = post_bytes(GET)
        async with door.connect() as (reader, _):
            assert await closed(reader) == b""
        for part in (whole[:10], whole[:-5]):
            async with door.connect() as (reader, writer):
                writer.write(part)
                assert (await closed(reader)).startswith(b"HTTP/1.1 400 ")
        async with door.connect() as (reader, writer):
            ended = asyncio.create_task(closed(reader))
            writer.write(b"POST / HTTP/1.1\r\nX-Slow: ")
            while not ended.done():
                writer.write(b"y")
                await asyncio.wait((ended,), timeout=0.05)
            assert await ended
        await still_answers(door)


async def test_an_idle_connection_is_kept_and_then_ended() -> None:
    """After an answer the connection stays open for the idle timeout, and no longer."""
    async with running_door(limits=QUICK) as door, door.connect() as (reader, writer):
        for _ in range(2):
            writer.write(post_bytes(GET))
            assert (await read_answer(reader))[0] == 200
        assert await closed(reader) == b""


async def test_a_client_that_does_not_read_is_ended() -> None:
    """Answers pile up only so far; then the connection is cut, and its requests are over."""

    async def large(request: r.Request) -> Response:
        return Response(404, "x" * 4_000_000)

    async with running_door(limits=QUICK) as door:
        door.engine.answer = large
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        deaf.setblocking(False)
        await asyncio.get_running_loop().sock_connect(deaf, (door.host, door.port))
        try:
            await asyncio.get_running_loop().sock_sendall(deaf, post_bytes(GET) * 4)
            await eventually(lambda: door.engine.asked and not door.guard.connections)
        finally:
            deaf.close()


async def test_a_listener_that_does_not_read_is_ended() -> None:
    """A stream that nobody reads ends, and its group is not reachable any more."""
    async with running_door(limits=QUICK) as door:
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        deaf.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(deaf, (door.host, door.port))
        deliveries = []
        try:
            await loop.sock_sendall(deaf, b"GET /poll/g/w HTTP/1.1\r\nHost: h\r\n\r\n")
            async with asyncio.timeout(15):
                await eventually(lambda: door.poll.reachable("poll://any@g"))
                message = json.dumps("x" * 1_000_000).encode()
                deliveries = [
                    asyncio.create_task(door.poll.deliver("poll://any@g", message))
                    for _ in range(8)
                ]
                await eventually(lambda: not door.poll.reachable("poll://any@g"))
        finally:
            deaf.close()
            outcomes = await asyncio.gather(*deliveries, return_exceptions=True)
        assert all(isinstance(outcome, Exception) for outcome in outcomes)


async def test_connections_are_bounded() -> None:
    """One too many is refused with 503 when it asks; as soon as one leaves, there is room."""
    async with running_door(limits=Limits(connections=3)) as door:
        async with door.connect(), door.connect(), door.connect():
            await eventually(lambda: len(door.guard.connections) == 3)
            status, headers, answer = await door.post(GET)
            assert status == answer["head"]["status"] == 503
            assert "retry-after" in headers
        await eventually(lambda: not door.guard.connections)
        await still_answers(door)


async def test_requests_at_once_are_bounded() -> None:
    """Beyond the bound a request is shed with 429 and Retry-After; those inside are answered."""
    gate = asyncio.Event()

    async def wait(request: r.Request) -> Response:
        await gate.wait()
        return Response(404, "late")

    async with running_door(limits=Limits(concurrent_requests=5)) as door:
        door.engine.answer = wait
        inside = [asyncio.create_task(door.post(GET)) for _ in range(5)]
        await eventually(lambda: door.admission.requests == 5)
        status, headers, answer = await door.post(GET)
        assert status == answer["head"]["status"] == 429
        assert "retry-after" in headers
        gate.set()
        assert [status for status, _, _ in await asyncio.gather(*inside)] == [404] * 5
        assert (await door.post(GET))[0] == 404


async def test_bytes_of_bodies_at_once_are_bounded() -> None:
    """Many large bodies together are shed, though each is allowed; their bytes are given back."""
    async with running_door(limits=Limits(body_bytes_in_flight=2_500_000)) as door:
        gate = asyncio.Event()

        async def wait(request: r.Request) -> Response:
            await gate.wait()
            return Response(404, "late")

        door.engine.answer = wait
        inside = [asyncio.create_task(door.post(padded(1_000_000))) for _ in range(2)]
        await eventually(lambda: door.admission.body_bytes >= 2_000_000)
        assert (await door.post(padded(1_000_000)))[0] == 429
        gate.set()
        await asyncio.gather(*inside)
        assert (await door.post(padded(1_000_000)))[0] == 404


async def test_a_client_that_leaves_gives_its_place_back() -> None:
    """Half a body and a farewell: nothing stays counted, and the engine was not asked."""
    async with running_door() as door:
        async with door.connect() as (_, writer):
            writer.write(post_bytes(padded(100_000))[:50_000])
            await eventually(lambda: door.admission.requests)
        await eventually(lambda: not (door.admission.requests or door.guard.connections))
        assert not door.engine.asked
