"""What the server application is given for a request or a stream: the two ends of ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Any, TypeAlias

from kept.client.exchange import Answer
from kept.protocol.responses import INTERNAL
from kept.sim.streams import Stream

Message: TypeAlias = MutableMapping[str, Any]


class Conversation:
    """One request as the application sees it."""

    def __init__(self, body: bytes, gone: asyncio.Future[None]) -> None:
        self._body: bytes | None = body
        self.gone = gone
        self._status = INTERNAL
        self._retry_after: float | None = None
        self._pieces: list[bytes] = []
        self._ended = False

    async def receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await asyncio.shield(self.gone)
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            for name, value in message["headers"]:
                if name == b"retry-after":
                    self._retry_after = float(value)
            return
        self._pieces.append(message.get("body", b""))
        self._ended = not message.get("more_body", False)

    def answer(self) -> Answer | None:
        """The whole answer; None where the application gave none because the client left."""
        if not self._ended:
            return None
        return Answer(self._status, b"".join(self._pieces), self._retry_after)


def scope_of(path: str, body: bytes, method: str = "POST") -> Message:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
    }


class StreamConversation:
    """A stream as the application sees it. `write` carries what it sends."""

    def __init__(self, stream: Stream, write: Callable[[Stream, Message], None]) -> None:
        self._stream = stream
        self._write = write
        self._asked = False

    async def receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        assert self._stream.gone is not None
        await asyncio.shield(self._stream.gone)
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self._write(self._stream, message)
