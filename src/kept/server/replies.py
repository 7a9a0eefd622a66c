"""Answers as they leave over ASGI: JSON with its length, and the protocol's form for refusals."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

import msgspec

from kept.protocol.codec import UNKNOWN_CORRELATION, UNKNOWN_KIND, encode_response
from kept.protocol.responses import SHED, UNAVAILABLE, Response
from kept.server.limits import RETRY_AFTER_SECONDS

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]

METHOD_NOT_ALLOWED: Final = 405

_JSON: Final = (b"content-type", b"application/json")
_RETRY_AFTER: Final = (b"retry-after", str(RETRY_AFTER_SECONDS).encode())
_RETRIED_LATER: Final = frozenset({SHED, UNAVAILABLE})


class Reply(msgspec.Struct):
    """A status and an encoded JSON body."""

    status: int
    body: bytes


def refusal(
    status: int, text: str, kind: str = UNKNOWN_KIND, corr_id: str = UNKNOWN_CORRELATION
) -> Reply:
    """A refusal in the protocol's form (A1): an envelope whose data is the text."""
    return Reply(status, encode_response(kind, corr_id, Response(status, text)))


async def send_reply(send: Send, reply: Reply, extra_headers: Headers | None = None) -> None:
    """Sends a whole JSON answer; one that may be retried later says when."""
    headers: Headers = [_JSON, (b"content-length", b"%d" % len(reply.body))]
    if reply.status in _RETRIED_LATER:
        headers.append(_RETRY_AFTER)
    if extra_headers:
        headers += extra_headers
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


async def send_text(send: Send, status: int, body: bytes, content_type: bytes) -> None:
    """Sends a whole answer of another type."""
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def departure(receive: Receive) -> None:
    """Returns when the client of a request, whose body has been read, is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
