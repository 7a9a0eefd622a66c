"""Operations per second over HTTP: with our client, which batches, and with one post at a time."""

from __future__ import annotations

import asyncio
import json
import time
from urllib.parse import urlsplit

from benchmarks.cycle import PARAM, RESULT, TAGS
from benchmarks.folder import fresh_folder
from benchmarks.served import server
from kept.client.connect import connect
from kept.protocol import requests as r
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import PromiseState
from kept.runtime import SystemRuntime

IN_FLIGHT = 64
FOREIGN_IN_FLIGHT = 128


def our_client(operations: int) -> float:
    """Creates and settlements per second with 64 in flight through one connection."""
    with fresh_folder() as folder, server(folder / "kept.db") as url:
        return asyncio.run(_our_client(url, operations))


async def _our_client(url: str, operations: int) -> float:
    connection = await connect(url, SystemRuntime())
    numbers = iter(range(operations // 2))

    async def client() -> None:
        for number in numbers:
            id = f"op-{number}"
            assert (await connection.send(r.PromiseCreate(id, NEVER_MS, PARAM, TAGS))).ok
            settle = r.PromiseSettle(id, PromiseState.RESOLVED, RESULT)
            assert (await connection.send(settle)).ok

    try:
        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(IN_FLIGHT)))
        return operations / (time.perf_counter() - began)
    finally:
        await connection.close()


def foreign_client(operations: int) -> float:
    """Creates per second, each in a POST of its own, by 128 plain keep-alive connections."""
    with fresh_folder() as folder, server(folder / "kept.db") as url:
        return asyncio.run(_foreign_client(url, operations))


async def _foreign_client(url: str, operations: int) -> float:
    address = urlsplit(url)
    assert address.hostname is not None
    numbers = iter(range(operations))
    posts = [_Posts(numbers) for _ in range(FOREIGN_IN_FLIGHT)]
    loop = asyncio.get_running_loop()
    for post in posts:
        await loop.create_connection(lambda post=post: post, address.hostname, address.port)
    began = time.perf_counter()
    for post in posts:
        post.next()
    await asyncio.gather(*(post.done for post in posts))
    return operations / (time.perf_counter() - began)


class _Posts(asyncio.Protocol):
    """One connection: the next post as soon as the answer to the last one is there.

    As lean as can be, because it shares the cores with the server that it measures.
    """

    def __init__(self, numbers) -> None:  # type: ignore[no-untyped-def]
        self._numbers = numbers
        self._answer = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport) -> None:  # type: ignore[no-untyped-def]
        self._transport = transport

    def next(self) -> None:
        number = next(self._numbers, None)
        if number is None:
            self._transport.close()
            self.done.set_result(None)
            return
        body = json.dumps(
            {
                "kind": "promise.create",
                "head": {"corrId": str(number), "version": "2026-04-01"},
                "data": {
                    "id": f"post-{number}",
                    "timeoutAt": NEVER_MS,
                    "param": {"data": PARAM.data},
                    "tags": TAGS,
                },
            }
        ).encode()
        head = (
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body)
        )
        self._transport.write(head + body)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, found, body = self._answer.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        if len(body) >= length:
            assert head.startswith(b"HTTP/1.1 200"), head
            self._answer = b""
            self.next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the server closed a connection"))
