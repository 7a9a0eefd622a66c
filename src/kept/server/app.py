"""The door: an ASGI application with the protocol's routes (A1, A6, B1) and nothing around them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import msgspec

from kept.errors import KeptError, RequestError, UnauthenticatedError
from kept.protocol.codec import encode_json
from kept.protocol.responses import (
    BAD_REQUEST,
    INTERNAL,
    NOT_FOUND,
    OK,
    SHED,
    TOO_LARGE,
    UNAVAILABLE,
)
from kept.runtime import Runtime
from kept.server.authority import Authenticator, Authority
from kept.server.limits import READY_TIMEOUT_SECONDS, Admission
from kept.server.reception import INTERNAL_TEXT, Reception
from kept.server.replies import (
    METHOD_NOT_ALLOWED,
    Headers,
    Receive,
    Reply,
    Scope,
    Send,
    departure,
    refusal,
    send_reply,
    send_text,
)
from kept.server.streams import POLL_PATH, poll_names, require_poll, serve_stream
from kept.transports.poll import PollCapacityError, PollTransport

logger = logging.getLogger("kept.server")

METRICS_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
_CLOSE: Final[Headers] = [(b"connection", b"close")]

Ping: TypeAlias = Callable[[], Awaitable[None]]
Metrics: TypeAlias = Callable[[], Awaitable[bytes]]


class _Incoming(msgspec.Struct):
    """What the door reads of an HTTP request's headers."""

    length: int | None = None
    bearer: str | None = None
    expects_continue: bool = False
    problem: str | None = None


class Door:
    """The application. `ping` returns when the store answers; `metrics` gives Prometheus text."""

    def __init__(
        self,
        reception: Reception,
        authenticator: Authenticator,
        poll: PollTransport,
        admission: Admission,
        runtime: Runtime,
        *,
        ping: Ping,
        metrics: Metrics,
    ) -> None:
        self._reception = reception
        self._authenticator = authenticator
        self._poll = poll
        self._admission = admission
        self._runtime = runtime
        self._ping = ping
        self._metrics = metrics
        self._pages = {"/health": self._health, "/ready": self._ready, "/metrics": self._numbers}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        if path == "/" or path == "/batch":
            if scope["method"] == "POST":
                await self._post(scope, receive, send, batch=path != "/")
            else:
                await _refuse_method(send, b"POST")
        elif path in self._pages:
            if scope["method"] in ("GET", "HEAD"):
                await self._page(scope, send)
            else:
                await _refuse_method(send, b"GET, HEAD")
        elif scope["raw_path"].startswith(POLL_PATH):
            if scope["method"] == "GET":
                await self._stream(scope, receive, send)
            else:
                await _refuse_method(send, b"GET")
        else:
            await send_reply(send, refusal(NOT_FOUND, f"there is nothing at {path[:256]!r}"))

    async def _post(self, scope: Scope, receive: Receive, send: Send, *, batch: bool) -> None:
        if not self._admission.enter():
            await send_reply(send, refusal(SHED, "too many requests at once; retry later"), _CLOSE)
            return
        held = 0
        try:
            incoming = _read_headers(scope)
            body = await self._read_body(incoming, receive)
            if body is None:
                return
            if isinstance(body, Reply):
                await send_reply(send, body, _CLOSE if incoming.expects_continue else None)
                return
            held = len(body)
            reply = await self._answer(body, incoming.bearer, receive, batch=batch)
            if reply is not None:
                await send_reply(send, reply)
        finally:
            self._admission.leave(held)

    async def _answer(
        self, body: bytes, bearer: str | None, receive: Receive, *, batch: bool
    ) -> Reply | None:
        """The answer, or None where the client went away while its request waited."""
        try:
            if batch:
                return await self._reception.batch(body, bearer)
            return await self._reception.single(body, bearer, lambda: departure(receive))
        except Exception:
            # The server under us would answer in a form that is not the protocol's.
            logger.exception("request failed before the engine")
            return refusal(INTERNAL, INTERNAL_TEXT)

    async def _read_body(self, incoming: _Incoming, receive: Receive) -> bytes | Reply | None:
        """The whole body, or why it is refused; None where the client is gone. Bytes of a body that
        is returned stay counted."""
        limit = self._admission.limits.body_bytes
        if incoming.problem is not None:
            return refusal(BAD_REQUEST, incoming.problem)
        if incoming.length is not None and incoming.length > limit:
            return _too_large(limit)
        pieces: list[bytes] = []
        size = 0
        outcome: Reply | None = None
        while True:
            event = await receive()
            if event["type"] != "http.request":
                break
            piece: bytes = event.get("body", b"")
            size += len(piece)
            fits = self._admission.hold(len(piece))
            if size > limit:
                outcome = _too_large(limit)
                break
            if not fits:
                outcome = refusal(SHED, "too many bytes of requests at once; retry later")
                break
            if not event.get("more_body", False):
                return b"".join((*pieces, piece)) if pieces else piece
            pieces.append(piece)
        self._admission.body_bytes -= size
        return outcome

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            authority = self._authority(scope)
            group, id = poll_names(scope["raw_path"])
            require_poll(authority, group)
            connection = self._poll.connect(group, id, authority.tenant)
        except RequestError as error:
            await send_reply(send, refusal(error.status, str(error)))
        except PollCapacityError as error:
            await send_reply(send, refusal(UNAVAILABLE, str(error)))
        except Exception:  # as above
            logger.exception("stream failed: path=%s", scope["path"])
            await send_reply(send, refusal(INTERNAL, INTERNAL_TEXT))
        else:
            await serve_stream(self._poll, connection, self._runtime, receive, send)

    async def _page(self, scope: Scope, send: Send) -> None:
        try:
            await self._pages[scope["path"]](scope, send)
        except RequestError as error:
            await send_reply(send, refusal(error.status, str(error)))
        except KeptError as error:
            await send_reply(send, refusal(UNAVAILABLE, str(error)))
        except Exception:  # a page that fails is a 500, never a traceback
            logger.exception("page failed: path=%s", scope["path"])
            await send_reply(send, refusal(INTERNAL, INTERNAL_TEXT))

    async def _health(self, scope: Scope, send: Send) -> None:
        await send_reply(send, Reply(OK, encode_json({"status": "alive"})))

    async def _ready(self, scope: Scope, send: Send) -> None:
        if not await self._answers_in_time():
            await send_reply(send, refusal(UNAVAILABLE, "the store does not answer"))
            return
        await send_reply(send, Reply(OK, encode_json({"status": "ready"})))

    async def _numbers(self, scope: Scope, send: Send) -> None:
        # They tell the size and the pace of everybody's work.
        self._authority(scope).require_admin("reading metrics")
        await send_text(send, OK, await self._metrics(), METRICS_TYPE)

    async def _answers_in_time(self) -> bool:
        ping = self._runtime.spawn(_awaited(self._ping()), "ready-ping")
        limit = self._runtime.spawn(
            _awaited(self._runtime.sleep(READY_TIMEOUT_SECONDS)), "ready-limit"
        )
        try:
            await asyncio.wait((ping, limit), return_when=asyncio.FIRST_COMPLETED)
            if not ping.done():
                return False
            ping.result()
            return True
        finally:
            ping.cancel()
            limit.cancel()

    def _authority(self, scope: Scope) -> Authority:
        incoming = _read_headers(scope)
        if incoming.problem is not None:
            raise UnauthenticatedError(incoming.problem)
        return self._authenticator.authenticate(incoming.bearer)


async def _awaited(work: Awaitable[None]) -> None:
    await work


def _read_headers(scope: Scope) -> _Incoming:
    incoming = _Incoming()
    from_browser = json = False
    for name, value in scope["headers"]:
        if name == b"content-length":
            # The parser let only digits through, but they may be many.
            incoming.length = int(value[:19]) if value[:19].isdigit() else None
        elif name == b"content-type":
            json = value[:16].lower() == b"application/json"
        elif name == b"authorization":
            scheme, _, token = value.partition(b" ")
            if incoming.bearer is not None:
                incoming.problem = "more than one Authorization header"
            if scheme.lower() == b"bearer":
                incoming.bearer = token.strip().decode("latin-1")
        elif name == b"expect":
            incoming.expects_continue = True
        elif name == b"origin":
            from_browser = True
    if from_browser and not json and scope["method"] == "POST":
        # Any web page may make a browser send other types to a server on this machine; for JSON
        # the browser asks first, and is not allowed.
        incoming.problem = "content-type: must be application/json"
    return incoming


def _too_large(limit: int) -> Reply:
    return refusal(TOO_LARGE, f"body: is larger than {limit} bytes")


async def _refuse_method(send: Send, allowed: bytes) -> None:
    text = f"only {allowed.decode()} is possible here"
    await send_reply(send, refusal(METHOD_NOT_ALLOWED, text), [(b"allow", allowed)])
