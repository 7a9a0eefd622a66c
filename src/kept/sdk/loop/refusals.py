"""Everything an event loop can usually do, and this one refuses: it cannot be replayed."""

from __future__ import annotations

import asyncio
import sys
from types import FrameType
from typing import Any, Final, NoReturn

from kept.errors import NotDurableError
from kept.sdk.loop.where import calling_line

_IN_A_STEP: Final = (
    "that belongs in a step. Move it into a function without a Context, and call it with ctx.run()"
)
_NOT_YOURS: Final = "the worker runs this loop, and durable code leaves it alone"


def not_durable(what: str, advice: str, frame: FrameType | None) -> NotDurableError:
    """The error for code that tried `what`; `frame` is where the search for the user's line starts."""
    return NotDurableError(f"{calling_line(frame)}: {what} cannot be replayed: {advice}")


def _refuse(name: str, advice: str = _IN_A_STEP) -> Any:
    def refused(self: object, *args: object, **kwargs: object) -> NoReturn:
        raise not_durable(f"loop.{name}()", advice, sys._getframe(1))

    refused.__name__ = name
    refused.__qualname__ = f"DurableLoop.{name}"
    refused.__doc__ = f"Refused with `NotDurableError`: {advice}."
    return refused


class Refusals(asyncio.AbstractEventLoop):
    """The refused half of the event loop's interface. Each names the user's file and line, and what to do."""

    run_in_executor = _refuse("run_in_executor")
    set_default_executor = _refuse("set_default_executor")
    shutdown_default_executor = _refuse("shutdown_default_executor", _NOT_YOURS)

    getaddrinfo = _refuse("getaddrinfo")
    getnameinfo = _refuse("getnameinfo")
    create_connection = _refuse("create_connection")
    create_server = _refuse("create_server")
    create_unix_connection = _refuse("create_unix_connection")
    create_unix_server = _refuse("create_unix_server")
    create_datagram_endpoint = _refuse("create_datagram_endpoint")
    connect_accepted_socket = _refuse("connect_accepted_socket")
    start_tls = _refuse("start_tls")
    sendfile = _refuse("sendfile")

    connect_read_pipe = _refuse("connect_read_pipe")
    connect_write_pipe = _refuse("connect_write_pipe")
    subprocess_shell = _refuse("subprocess_shell")
    subprocess_exec = _refuse("subprocess_exec")

    add_reader = _refuse("add_reader")
    remove_reader = _refuse("remove_reader")
    add_writer = _refuse("add_writer")
    remove_writer = _refuse("remove_writer")
    sock_recv = _refuse("sock_recv")
    sock_recv_into = _refuse("sock_recv_into")
    sock_recvfrom = _refuse("sock_recvfrom")
    sock_recvfrom_into = _refuse("sock_recvfrom_into")
    sock_sendall = _refuse("sock_sendall")
    sock_sendto = _refuse("sock_sendto")
    sock_connect = _refuse("sock_connect")
    sock_accept = _refuse("sock_accept")
    sock_sendfile = _refuse("sock_sendfile")

    add_signal_handler = _refuse("add_signal_handler", _NOT_YOURS)
    remove_signal_handler = _refuse("remove_signal_handler", _NOT_YOURS)
    run_forever = _refuse("run_forever", _NOT_YOURS)
    run_until_complete = _refuse("run_until_complete", _NOT_YOURS)
    stop = _refuse("stop", _NOT_YOURS)
    shutdown_asyncgens = _refuse("shutdown_asyncgens", _NOT_YOURS)
    set_exception_handler = _refuse("set_exception_handler", _NOT_YOURS)
