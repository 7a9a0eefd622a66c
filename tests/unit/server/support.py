"""A door on a real port, before an engine that answers from a table; and raw HTTP against it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec

from kept.engine.statistics import Statistics
from kept.protocol import requests as r
from kept.protocol.records import EMPTY, PromiseRecord, PromiseState
from kept.protocol.responses import NOT_FOUND, PromisePage, PromiseResult, Response
from kept.protocol.validation import problem_with
from kept.runtime import Runtime, SystemRuntime
from kept.server.app import Door
from kept.server.authority import Authenticator, NoAuthentication
from kept.server.gauges import GaugeReader
from kept.server.http_protocol import ConnectionGuard
from kept.server.http_server import HttpServer, listen, url_of
from kept.server.limits import Admission, Limits
from kept.server.metrics import DoorNumbers, metrics_source
from kept.server.reception import Reception
from kept.stores.memory import MemoryStore
from kept.transports.poll import PollTransport

VERSION = "2026-04-01"
LOOK_AGAIN_SECONDS = 0.01
BASE_SCHEMES = frozenset({"poll", "http", "https"})


def promise(id: str) -> PromiseRecord:
    """A pending promise as it travels."""
    return PromiseRecord(id, PromiseState.PENDING, EMPTY, EMPTY, {}, 10, 1)


class FakeEngine:
    """Answers what `answer` says, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[r.Request, str, str | None]] = []
        self.batches: list[int] = []
        self.answer: Callable[[r.Request], Awaitable[Response]] = _usual

    async def submit(
        self,
        request: r.Request,
        head: r.RequestHead | None = None,
        tenant: str = "default",
        prefix: str | None = None,
    ) -> Response:
        self.asked.append((request, tenant, prefix))
        problem = problem_with(request, BASE_SCHEMES)
        if problem is not None:
            return Response(400, problem)
        return await self.answer(request)

    async def submit_batch(
        self, items: Sequence[tuple[r.Request, r.RequestHead]], tenant: str = "default"
    ) -> list[Response]:
        self.batches.append(len(items))
        return [await self.submit(request, head, tenant) for request, head in items]


async def _usual(request: r.Request) -> Response:
    if isinstance(request, r.PromiseSearch):
        return Response(200, PromisePage([]))
    id = getattr(request, "id", "p")
    if id.startswith("missing"):
        return Response(NOT_FOUND, f"{id} does not exist")
    return Response(200, PromiseResult(promise(id)))


class RunningDoor(msgspec.Struct):
    """A door that listens, and its parts."""

    host: str
    port: int
    engine: FakeEngine
    poll: PollTransport
    guard: ConnectionGuard
    admission: Admission
    server: HttpServer
    serving: asyncio.Task[None]
    broken: list[Exception]

    async def raw(self, data: bytes, *, end: bool = False) -> tuple[int, dict[str, str], bytes]:
        """Sends bytes on a fresh connection and reads one answer."""
        async with self.connect() as (reader, writer):
            writer.write(data)
            with suppress(ConnectionError):
                await writer.drain()
            if end:
                writer.write_eof()
            return await read_answer(reader)

    @asynccontextmanager
    async def connect(
        self,
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection that does nothing by itself."""
        reader, writer = await asyncio.open_connection(self.host, self.port, limit=2**23)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def post(
        self, body: bytes | dict[str, Any] | list[Any], path: str = "/", headers: str = ""
    ) -> tuple[int, dict[str, str], Any]:
        """Posts and decodes the JSON that comes back."""
        status, answered, content = await self.raw(post_bytes(body, path, headers))
        return status, answered, json.loads(content)

    async def get(self, path: str, headers: str = "") -> tuple[int, dict[str, str], bytes]:
        return await self.raw(f"GET {path} HTTP/1.1\r\nHost: h\r\n{headers}\r\n".encode())


def post_bytes(body: Any, path: str = "/", headers: str = "") -> bytes:
    """A whole POST as it travels."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n{headers}"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def envelope(kind: str, data: Any, corr_id: str = "c1", **head: Any) -> dict[str, Any]:
    """A request's envelope."""
    return {"kind": kind, "head": {"corrId": corr_id, "version": VERSION, **head}, "data": data}


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one answer; fails after ten seconds."""
    async with asyncio.timeout(10):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        body = b""
        if "content-length" in headers:
            body = await reader.readexactly(int(headers["content-length"]))
        return int(head[0].split(" ")[1]), headers, body


async def eventually(condition: Callable[[], object]) -> None:
    """Returns once the condition holds; fails after fifteen seconds."""
    async with asyncio.timeout(15):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event to tell it
            await asyncio.sleep(LOOK_AGAIN_SECONDS)


def hand_made(header: dict[str, Any], claims: dict[str, Any], key: bytes | None) -> str:
    """A token that a library would refuse to make, signed with HMAC or not at all."""

    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    signed = f"{part(json.dumps(header).encode())}.{part(json.dumps(claims).encode())}"
    mac = hmac.new(key, signed.encode(), hashlib.sha256).digest() if key is not None else b""
    return f"{signed}.{part(mac)}"


@asynccontextmanager
async def running_door(
    *,
    limits: Limits | None = None,
    authenticator: Authenticator | None = None,
    runtime: Runtime | None = None,
    keep_alive_seconds: float = 15.0,
    poll_capacity: int = 100,
    ping: Callable[[], Awaitable[None]] | None = None,
) -> AsyncIterator[RunningDoor]:
    """A door that listens on a free port until the block ends. What goes wrong on the loop without
    anybody awaiting it fails the test."""
    limits = limits or Limits()
    runtime = runtime or SystemRuntime()
    authenticator = authenticator or NoAuthentication()
    engine = FakeEngine()
    poll = PollTransport(runtime, keep_alive_seconds=keep_alive_seconds, capacity=poll_capacity)
    guard, admission = ConnectionGuard(limits, runtime), Admission(limits)
    numbers = DoorNumbers(guard, admission, poll)
    door = Door(
        Reception(engine, authenticator, runtime),
        authenticator,
        poll,
        admission,
        runtime,
        ping=ping or _nothing,
        metrics=metrics_source(
            Statistics(), GaugeReader(MemoryStore(runtime), (poll,), runtime), numbers
        ),
    )
    broken: list[Exception] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: broken.append(context.get("exception") or Exception(str(context)))
    )
    listener = listen("127.0.0.1", 0)
    host, port = url_of(listener).removeprefix("http://").split(":")
    server = HttpServer(door, guard)
    serving = asyncio.create_task(server.serve([listener]))
    sweeping = asyncio.create_task(guard.run())
    await asyncio.wait_for(server.ready.wait(), 10)
    running = RunningDoor(host, int(port), engine, poll, guard, admission, server, serving, broken)
    try:
        yield running
    finally:
        server.leave()
        await poll.close()
        for connection in list(guard.connections):
            connection.transport.abort()
        await asyncio.wait_for(serving, 10)
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)
    assert not broken
    assert admission.requests == 0
    assert admission.body_bytes == 0


async def _nothing() -> None:
    return None
