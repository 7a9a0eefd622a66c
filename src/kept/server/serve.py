"""`kept serve`: a store, an engine and the door in one process, from start to graceful stop."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import msgspec

from kept.engine.config import EngineConfig
from kept.engine.engine import Engine
from kept.errors import ConfigurationError
from kept.protocol.limits import DEFAULT_RETENTION_MS
from kept.runtime import Runtime, SystemRuntime
from kept.server.app import Door
from kept.server.auth import AuthOptions, open_authenticator
from kept.server.gauges import GaugeReader
from kept.server.http_protocol import ConnectionGuard
from kept.server.http_server import HttpServer, listen, url_of
from kept.server.limits import Admission, Limits
from kept.server.logs import configure_logs
from kept.server.metrics import DoorNumbers, metrics_source
from kept.server.reception import Reception
from kept.stores.open import open_store
from kept.transports.http import HttpPushTransport
from kept.transports.poll import PollTransport
from kept.transports.webhooks import WebhookOptions

logger = logging.getLogger("kept.server")

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8420
DEFAULT_STORE_URL: Final = "sqlite:///kept.db"
# Files that are open besides connections: the store, logs, pushed messages.
RESERVED_FILES: Final = 128
MIN_CONNECTIONS: Final = 16
# What the shell calls a process that a signal ended.
SIGNAL_EXIT_BASE: Final = 128


class ServerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator chooses. `server_url` is what pushed workers are told to answer to; port 0
    takes any free port."""

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    store_url: str = DEFAULT_STORE_URL
    debug: bool = False
    server_url: str | None = None
    # How long settled work stays (ms) whose queue says nothing; None: for ever.
    retention_ms: int | None = DEFAULT_RETENTION_MS
    auth: AuthOptions = AuthOptions()
    webhooks: WebhookOptions = WebhookOptions()
    limits: Limits = Limits()


def run_server(options: ServerOptions) -> int:
    """Serves until SIGTERM or SIGINT and returns the exit code. Raises `ConfigurationError`,
    `StoreError` and `OSError` where the server cannot start."""
    configure_logs()
    if sys.platform == "win32":
        asyncio.run(_serve_until_signal(options))
    else:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve_until_signal(options))
    return 0


async def _serve_until_signal(options: ServerOptions) -> None:
    stop = asyncio.Event()
    with _signals(stop):
        await serve(options, SystemRuntime(), stop=stop, on_ready=_announce)


async def serve(
    options: ServerOptions,
    runtime: Runtime,
    *,
    stop: asyncio.Event,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serves until `stop` is set, then finishes what is in flight and closes everything.

    `on_ready` gets the address once requests are answered. Raises `ConfigurationError`,
    `StoreError` and `OSError` where the server cannot start.
    """
    if not __debug__:
        raise ConfigurationError(
            "the server checks its invariants with assertions: run it without python -O"
        )
    authenticator = open_authenticator(options.auth, runtime)
    limits = msgspec.structs.replace(
        options.limits, connections=_affordable_connections(options.limits.connections)
    )
    listener = listen(options.host, options.port)
    try:
        _warn_if_open(options)
        poll = PollTransport(runtime)
        store = open_store(options.store_url, runtime)
        config = EngineConfig(
            debug=options.debug,
            server_url=options.server_url,
            retention_ms=options.retention_ms,
        )
        push = HttpPushTransport(runtime, options.webhooks)
        engine = Engine(store, runtime, config, transports=(poll, push))
        poll.on_connect = lambda group: engine.receiver_connected()
        guard = ConnectionGuard(limits, runtime)
        admission = Admission(limits)
        numbers = DoorNumbers(guard, admission, poll)
        door = Door(
            Reception(engine, authenticator, runtime),
            authenticator,
            poll,
            admission,
            runtime,
            ping=store.ping,
            metrics=metrics_source(
                engine.statistics, GaugeReader(store, engine.transports, runtime), numbers
            ),
        )
        try:
            await engine.start()
            await _run(HttpServer(door, guard), listener, engine, poll, stop, on_ready)
        finally:
            # Closes transports and store too; what has stopped already stays as it is.
            await engine.stop()
    finally:
        listener.close()


async def _run(
    server: HttpServer,
    listener: socket.socket,
    engine: Engine,
    poll: PollTransport,
    stop: asyncio.Event,
    on_ready: Callable[[str], None] | None,
) -> None:
    runtime = server.guard.runtime
    serving = runtime.spawn(server.serve([listener]), "http-server")
    sweeping = runtime.spawn(server.guard.run(), "connection-sweep")
    waiting = [runtime.spawn(_awaited(event), "server-event") for event in (server.ready, stop)]
    ready, stopped = waiting
    try:
        await asyncio.wait((serving, ready), return_when=asyncio.FIRST_COMPLETED)
        if not serving.done() and on_ready is not None:
            on_ready(url_of(listener))
        await asyncio.wait((serving, stopped), return_when=asyncio.FIRST_COMPLETED)
        logger.info("stopping")
        # A client that finds its connection closed asks again, one that reads a 503 may give up.
        # So nobody new gets in before the engine says no to anybody.
        server.leave()
        await poll.close()
        await engine.stop()
        await serving
    finally:
        for task in (*waiting, sweeping, serving):
            task.cancel()
        await asyncio.gather(*waiting, sweeping, serving, return_exceptions=True)


@contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    """The first SIGTERM or SIGINT sets `stop`, the second ends the process at once."""

    def stop_or_exit(number: int) -> None:
        if stop.is_set():
            os._exit(SIGNAL_EXIT_BASE + number)
        stop.set()

    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        if sys.platform == "win32":
            signal.signal(number, lambda n, _: loop.call_soon_threadsafe(stop_or_exit, n))
        else:
            loop.add_signal_handler(number, stop_or_exit, int(number))
    try:
        yield
    finally:
        if sys.platform != "win32":
            for number in numbers:
                loop.remove_signal_handler(number)


def _announce(url: str) -> None:
    sys.stderr.write(f"kept: listening on {url}\n")
    sys.stderr.flush()


def _warn_if_open(options: ServerOptions) -> None:
    if not options.auth.configured and not is_loopback(options.host):
        logger.warning(
            "no authentication, and %s is reachable from other machines: anyone there may read and "
            "change everything; configure a key or listen on 127.0.0.1",
            options.host,
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _affordable_connections(wanted: int) -> int:
    """As many connections as the process may have open files, after asking for more of those."""
    if sys.platform == "win32":
        return wanted
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + RESERVED_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < needed:
            logger.warning("only %d files may be open, so fewer connections are accepted", soft)
            return max(soft - RESERVED_FILES, MIN_CONNECTIONS)
    return wanted


async def _awaited(event: asyncio.Event) -> None:
    await event.wait()
