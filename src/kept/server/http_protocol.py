"""HTTP connections that no client can hold: uvicorn's protocol with deadlines and bounds.

uvicorn waits for ever for the rest of a request and for a client that does not read. One sweep a
second over all connections ends those; a timer for each request would cost more than its answer.
"""

from __future__ import annotations

import socket
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from kept.protocol.codec import UNKNOWN_CORRELATION, UNKNOWN_KIND, encode_response
from kept.protocol.responses import BAD_REQUEST, TOO_LARGE, UNAVAILABLE, Response
from kept.runtime import Runtime
from kept.server.limits import (
    CLOSE_TIMEOUT_SECONDS,
    MAX_HEAD_BYTES,
    MAX_REQUEST_BYTES,
    RETRY_AFTER_SECONDS,
    UNACKNOWLEDGED_TIMEOUT_SECONDS,
    Limits,
)

MAX_SWEEP_SECONDS: Final = 1.0
# Connections beyond the limit that live long enough to be told so.
MAX_OVERFLOW_CONNECTIONS: Final = 256
_PHRASES: Final = {
    BAD_REQUEST: b"Bad Request",
    TOO_LARGE: b"Content Too Large",
    UNAVAILABLE: b"Service Unavailable",
}
_OFFERS: Final = frozenset({b"upgrade", b"connection", b"http2-settings"})
_USER_TIMEOUT: Final = getattr(socket, "TCP_USER_TIMEOUT", None)


class ConnectionGuard:
    """The connections of one server and the sweep that ends those which take too long."""

    def __init__(self, limits: Limits, runtime: Runtime) -> None:
        self.limits = limits
        self.runtime = runtime
        self.connections: set[GuardedProtocol] = set()
        # How many connections were refused, for metrics.
        self.refused = 0

    async def run(self) -> None:
        """Sweeps until cancelled."""
        limits = self.limits
        shortest = min(limits.head_timeout, limits.body_timeout, limits.write_timeout)
        pause = min(MAX_SWEEP_SECONDS, shortest / 2)
        while True:
            await self.runtime.sleep(pause)
            self.sweep()

    def sweep(self) -> None:
        """Ends every connection that is past a deadline."""
        now = self.runtime.monotonic()
        for connection in list(self.connections):
            connection.check(now)

    def stop(self) -> None:
        """Ends idle connections now and the others after their answer."""
        for connection in list(self.connections):
            connection.shutdown()


class GuardedProtocol(HttpToolsProtocol):
    """One connection. A request is incoming from its first byte to its last."""

    def __init__(self, *arguments: Any, guard: ConnectionGuard, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._guard = guard
        self._now = guard.runtime.monotonic
        # A connection that never says anything is on the same clock as a slow head.
        self._incoming_since: float | None = self._now()
        self._incoming_bytes = 0
        self._in_head = True
        self._deaf = False
        self._overflow = False
        self._write_paused_since: float | None = None
        self._closing_since: float | None = None
        # What is being answered; `cycle`, uvicorn's, is what came last.
        self._answering: RequestResponseCycle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        guard = self._guard
        guard.connections.add(self)
        if _USER_TIMEOUT is not None:
            connected = transport.get_extra_info("socket")
            if connected is not None and connected.family in (socket.AF_INET, socket.AF_INET6):
                milliseconds = int(UNACKNOWLEDGED_TIMEOUT_SECONDS * 1_000)
                connected.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, milliseconds)
        overflow = len(guard.connections) - guard.limits.connections
        if overflow > 0:
            # Refused when it asks something: an answer before the question is often not read.
            guard.refused += 1
            self._overflow = True
            if overflow > MAX_OVERFLOW_CONNECTIONS:
                transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._guard.connections.discard(self)
        self._part()
        super().connection_lost(exc)

    def eof_received(self) -> None:
        # Half of a connection is none to us: a client that is gone looks the same.
        self._part()
        super().eof_received()

    def _abort(self) -> None:
        self._part()
        self.transport.abort()

    def _part(self) -> None:
        """The client is gone: nothing is written to it any more, and whoever watches is told.

        uvicorn tells the last request only, and only when the connection is lost, which is a
        moment later; to write in that moment is an error.
        """
        for cycle in (self._answering, self.cycle):
            # uvicorn declares it without None, but before the first request it is.
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._deaf or self.transport.is_closing():
            return
        if self._overflow:
            self.refuse(UNAVAILABLE, f"{self._guard.limits.connections} connections are open")
            return
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self.refuse(BAD_REQUEST, "the request is not valid HTTP")
            return
        if self._incoming_since is None:
            return
        self._incoming_bytes += len(data)
        if self._in_head and self._incoming_bytes > MAX_HEAD_BYTES:
            self.refuse(TOO_LARGE, f"the request's head is larger than {MAX_HEAD_BYTES} bytes")
        elif self._incoming_bytes > MAX_REQUEST_BYTES:
            self._abort()

    def _feed(self, data: bytes) -> None:
        """Parses. Some clients (Java's) offer another protocol on their first request, and the
        parser then takes its body for the other protocol's; such a request is parsed again as if
        nothing had been offered."""
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = self._without_offer() + data[upgrade.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
            else:
                return

    def _without_offer(self) -> bytes:
        """The head that was just parsed, without what asked for another protocol."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            raise httptools.HttpParserError("CONNECT is for proxies")
        lines = [b"%s %s HTTP/%s" % (method, self.url, self.parser.get_http_version().encode())]
        lines += [name + b": " + value for name, value in self.headers if name not in _OFFERS]
        return b"\r\n".join([*lines, b"", b""])

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._incoming_since = self._now()
        self._incoming_bytes = 0
        self._in_head = True

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        super().on_headers_complete()
        self._in_head = False

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._incoming_since = None
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_paused_since = self._now()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._write_paused_since = None

    def check(self, now: float) -> None:
        """Ends the connection if it is past a deadline."""
        limits = self._guard.limits
        if self.transport.is_closing():
            # What is still to be written may have no reader.
            if self._closing_since is None:
                self._closing_since = now
            elif now - self._closing_since > CLOSE_TIMEOUT_SECONDS:
                self._abort()
            return
        paused = self._write_paused_since
        if paused is not None and now - paused > limits.write_timeout:
            self._abort()
            return
        since = self._incoming_since
        if since is None:
            return
        timeout = limits.head_timeout if self._in_head else limits.body_timeout
        if now - since > timeout:
            if self._incoming_bytes == 0:
                self.transport.close()
                return
            part = "head" if self._in_head else "body"
            self.refuse(BAD_REQUEST, f"the request's {part} was not complete in {timeout:g} s")

    def refuse(self, status: int, text: str) -> None:
        """Answers outside of the application, as far as that is still possible, and closes."""
        cycle = self.cycle
        # uvicorn declares it without None, but before the first request it is.
        answering = not getattr(cycle, "response_complete", True)
        if answering and (self._incoming_since is None or self._in_head or self.pipeline):
            # An earlier request is being answered; nothing behind it will be.
            self._deaf = True
            cycle.keep_alive = False
            self._incoming_since = None
            self.pipeline.clear()
            return
        if (answering and cycle.response_started) or (not answering and not self._in_head):
            self.transport.close()
            return
        self._write_refusal(status, text)
        self.transport.close()

    def _write_refusal(self, status: int, text: str) -> None:
        body = encode_response(UNKNOWN_KIND, UNKNOWN_CORRELATION, Response(status, text))
        lines = [
            b"HTTP/1.1 %d %s" % (status, _PHRASES[status]),
            b"content-type: application/json",
            b"content-length: %d" % len(body),
            b"connection: close",
        ]
        if status == UNAVAILABLE:
            lines.append(b"retry-after: %d" % RETRY_AFTER_SECONDS)
        self.transport.write(b"\r\n".join([*lines, b"", body]))

    def send_400_response(self, msg: str) -> None:
        self.refuse(BAD_REQUEST, msg)
