"""`GET /poll/{group}/{id}`: the stream of server-sent events that a worker listens to (protocol A6)."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote

from kept.errors import BadRequestError
from kept.protocol.limits import MAX_ID_BYTES
from kept.runtime import Runtime
from kept.server.authority import Authority
from kept.server.replies import Receive, Send, departure
from kept.transports.poll import PollConnection, PollTransport

POLL_PATH: Final = b"/poll/"
_HEADERS: Final = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    # A proxy that collects the answer before passing it on would keep the worker waiting.
    (b"x-accel-buffering", b"no"),
]


def poll_names(raw_path: bytes) -> tuple[str, str]:
    """Group and id of a path, percent-decoded; raises `BadRequestError`.

    A client that does not encode the slashes of its id sends them as they are, so the id is all
    that follows the group.
    """
    group_text, _, id_text = raw_path[len(POLL_PATH) :].partition(b"/")
    try:
        group = unquote(group_text.decode("ascii"), errors="strict")
        id = unquote(id_text.decode("ascii"), errors="strict")
    except UnicodeDecodeError:
        raise BadRequestError("the path is not valid UTF-8") from None
    for name, text in (("group", group), ("id", id)):
        if not text or "\0" in text or len(text.encode()) > MAX_ID_BYTES:
            raise BadRequestError(f"/poll/GROUP/ID: the {name} must be 1 to {MAX_ID_BYTES} bytes")
    return group, id


def require_poll(authority: Authority, group: str) -> None:
    """Raises `ForbiddenError` where the caller must not hear what is sent to the group.

    A group is to pushed work what a queue is to pulled work, so the prefix holds for its name.
    Each tenant has groups of its own: the caller hears those of its token's tenant.
    """
    authority.require_id(group)


async def serve_stream(
    transport: PollTransport,
    connection: PollConnection,
    runtime: Runtime,
    receive: Receive,
    send: Send,
) -> None:
    """Writes frames until the client or the transport ends the connection. Each write waits until
    the client has read enough of the ones before."""
    watcher = runtime.spawn(_watch(transport, connection, receive), "poll-disconnect")
    try:
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        # The headers leave with the first bytes of the body.
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        async for frame in connection.frames():
            await send({"type": "http.response.body", "body": frame, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        transport.disconnect(connection)
        watcher.cancel()


async def _watch(transport: PollTransport, connection: PollConnection, receive: Receive) -> None:
    """Ends the connection when the client is gone, which a write alone notices late or never."""
    await departure(receive)
    transport.disconnect(connection)
