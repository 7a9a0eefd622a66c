"""One exchange over real sockets, against servers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from kept.client import exchange as module
from kept.client.exchange import (
    Answer,
    AnswerLostError,
    AnswerTooLargeError,
    HttpExchange,
    NotSentError,
)
from kept.client.http import HttpConnection
from kept.protocol.requests import PromiseGet
from kept.runtime import SystemRuntime


@contextlib.asynccontextmanager
async def server_that_says(
    reply: bytes, *, close: bool = True
) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers every request with these bytes: its URL, and the requests it saw."""
    seen: list[bytes] = []
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                seen.append(head + await reader.readexactly(length))
                writer.write(reply)
                await writer.drain()
                if close:
                    break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", seen
    finally:
        server.close()
        await _closed(writers)


async def _closed(writers: list[asyncio.StreamWriter]) -> None:
    for writer in writers:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def http(body: bytes, head: str = "HTTP/1.1 200 OK") -> bytes:
    return f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def post(url: str, timeout: float = 5.0, token: str | None = None) -> Answer:
    exchange = HttpExchange(url, token, 2)
    try:
        return await exchange.post("/batch", b"[]", timeout)
    finally:
        await exchange.close()
        await exchange.close()


async def test_answer_is_read_whole() -> None:
    """Status, body and Retry-After come back; the token goes out as a bearer token."""
    async with server_that_says(
        http(b"later", "HTTP/1.1 503 No\r\nRetry-After: 3"), close=False
    ) as (url, seen):
        assert await post(url + "/", token="secret") == Answer(503, b"later", 3.0)
    assert seen[0].startswith(b"POST /batch HTTP/1.1")
    assert b"authorization: bearer secret" in seen[0].lower()


async def test_nobody_there_means_not_sent() -> None:
    """A refused connection and an unknown host are known to have sent nothing."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(NotSentError):
            await post(f"http://127.0.0.1:{port}")
    with pytest.raises(NotSentError):
        await post("http://host.invalid:1")
    with pytest.raises(NotSentError):
        await post("http://127.0.0.1:99999999")


@pytest.mark.parametrize(
    "reply",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", b"this is not HTTP\r\n\r\n"],
    ids=["closed", "half", "nonsense"],
)
async def test_broken_answer_means_lost(reply: bytes) -> None:
    """Once the request went out, anything but a whole answer leaves its outcome open."""
    async with server_that_says(reply) as (url, _):
        with pytest.raises(AnswerLostError):
            await post(url)


async def test_silence_means_lost() -> None:
    """A server that never answers is given up on at the timeout."""
    async with server_that_says(b"", close=False) as (url, _):
        with pytest.raises(AnswerLostError, match=r"no answer within 0\.05 s"):
            await post(url, timeout=0.05)


@pytest.mark.parametrize("announced", [True, False])
async def test_giant_answer_is_not_taken_in(
    announced: bool,  # noqa: FBT001 - pytest names it
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An answer beyond the bound is refused, whether its length was announced or not."""
    monkeypatch.setattr(module, "MAX_ANSWER_BYTES", 1_000)
    reply = http(b"x" * 2_000) if announced else b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2_000
    async with server_that_says(reply) as (url, _):
        with pytest.raises(AnswerTooLargeError):
            await post(url)


class NotingRuntime(SystemRuntime):
    """Tells when a client first waits before it tries again."""

    def __init__(self) -> None:
        super().__init__()
        self.waited = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.waited.set()
        await super().sleep(seconds)


async def test_connection_survives_a_server_that_comes_late() -> None:
    """A call made before its server is up is answered once the server is."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    runtime = NotingRuntime()
    connection = HttpConnection(f"http://127.0.0.1:{port}", runtime)
    call = asyncio.ensure_future(connection.send(PromiseGet("p")))
    await runtime.waited.wait()
    body = b'[{"kind":"promise.get","head":{"corrId":"1","status":404,"version":"v"},"data":"no"}]'
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(http(body))

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    assert (await call).status == 404
    await connection.close()
    server.close()
    await _closed(writers)
