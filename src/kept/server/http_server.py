"""uvicorn as we run it: our protocol class, our listening socket, our order of stopping."""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import uvicorn

from kept.errors import ConfigurationError
from kept.server.app import Door
from kept.server.http_protocol import ConnectionGuard, GuardedProtocol

LISTEN_BACKLOG: Final = 2_048


class HttpServer(uvicorn.Server):
    """uvicorn without its signals: the order in which we stop is ours."""

    def __init__(self, door: Door, guard: ConnectionGuard) -> None:
        """`ready` is set once connections are accepted."""
        self.guard = guard
        self.ready = asyncio.Event()
        protocol: Any = functools.partial(GuardedProtocol, guard=guard)
        super().__init__(
            uvicorn.Config(
                door,
                http=protocol,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                log_level=logging.WARNING,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=guard.limits.idle_timeout,
                timeout_graceful_shutdown=max(1, int(guard.limits.grace)),
            )
        )

    # The names of these two are uvicorn's.
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def leave(self) -> None:
        """Accepts nobody new; each open connection ends after what it is doing."""
        for listening in getattr(self, "servers", ()):
            listening.close()
        self.guard.stop()
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free one. Raises `ConfigurationError`, `OSError`."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError, OverflowError) as error:
        raise ConfigurationError(f"cannot listen on {host!r}: {error}") from None
    family, _, _, _, address = found[0]
    listener = socket.create_server(address[:2], family=family, backlog=LISTEN_BACKLOG)
    listener.setblocking(False)
    return listener


def url_of(listener: socket.socket) -> str:
    """The address of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
