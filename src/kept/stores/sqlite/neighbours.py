"""Telling other processes on the same file what was committed, within a millisecond.

Each open store has a datagram socket in a directory beside the database; whoever commits sends a
notice to all the others. Nothing depends on it: what gets lost is found by the store's slow check.
This is the only place of the stores that touches sockets, so a simulation has its own instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
from collections.abc import Callable
from typing import Final

import msgspec

from kept.protocol.storage import Notice
from kept.runtime import Runtime

SOCKET_SUFFIX: Final = ".sock"
# What the kernel takes as the path of a socket, with its closing NUL.
MAX_SOCKET_PATH_BYTES: Final = 104
# The longest name of a socket. Where sockets are must not hang on the digits of one's own process
# id: neighbours would look for each other in different places.
MAX_NAME_BYTES: Final = len("2147483647-00000000.sock")
MAX_NOTICE_BYTES: Final = 32_768
MAX_NOTICES_PER_READ: Final = 1_000

HELLO: Final = b"h"
NOTICE: Final = b"n"

_encode: Final = msgspec.json.Encoder(order="deterministic").encode
_decode: Final = msgspec.json.Decoder(Notice).decode
_EVERYTHING: Final = NOTICE + _encode(Notice(everything=True))


class Neighbours:
    """This store's socket and the addresses of the others'."""

    def __init__(
        self, directory: str, runtime: Runtime, on_notice: Callable[[Notice], None]
    ) -> None:
        self._directory = directory
        self._on_notice = on_notice
        self._name = f"{os.getpid()}-{runtime.entropy(4).hex()}{SOCKET_SUFFIX}"
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._others: set[str] = set()
        # Neighbours that missed a notice because they had no room for it.
        self._behind: set[str] = set()
        self._listed_at = -1

    def open(self) -> None:
        """Binds the socket and greets the others. Without Unix sockets there are no neighbours."""
        if not hasattr(socket, "AF_UNIX"):
            return
        directory = socket_directory(self._directory)
        if directory is None:
            return
        self._directory = directory
        self._loop = asyncio.get_running_loop()
        own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        own.setblocking(False)
        try:
            own.bind(os.path.join(directory, self._name))
            self._loop.add_reader(own, self._receive)
        except (OSError, NotImplementedError):
            own.close()
            return
        self._socket = own
        self.refresh()
        self._send_to_all(HELLO)

    def close(self) -> None:
        """Says goodbye and removes the socket; idempotent."""
        own, self._socket = self._socket, None
        if own is None:
            return
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.remove_reader(own)
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self._directory, self._name))
        for other in sorted(self._others):
            with contextlib.suppress(OSError):
                own.sendto(HELLO, other)
        own.close()

    def tell(self, notice: Notice) -> None:
        """Sends what was committed; does nothing at all where nobody else is."""
        if not self._others or not notice:
            return
        data = NOTICE + _encode(notice)
        self._send_to_all(data if len(data) <= MAX_NOTICE_BYTES else _EVERYTHING)

    def refresh(self) -> None:
        """Looks who is there, if anybody came or went since the last look."""
        if self._socket is None:
            return
        try:
            changed_at = os.stat(self._directory).st_mtime_ns
            if changed_at == self._listed_at:
                return
            names = os.listdir(self._directory)
        except OSError:
            # The directory is gone: there is nobody to be found in it.
            self._others.clear()
            return
        self._listed_at = changed_at
        self._others = {
            os.path.join(self._directory, name)
            for name in names
            if name.endswith(SOCKET_SUFFIX) and name != self._name
        }
        self._behind &= self._others

    def _send_to_all(self, data: bytes) -> None:
        assert self._socket is not None
        for other in sorted(self._others):
            try:
                self._socket.sendto(_EVERYTHING if other in self._behind else data, other)
                self._behind.discard(other)
            except BlockingIOError:
                self._behind.add(other)
            except OSError as error:
                self._others.discard(other)
                if isinstance(error, ConnectionRefusedError):
                    # Its process died without a goodbye.
                    with contextlib.suppress(OSError):
                        os.unlink(other)

    def _receive(self) -> None:
        notices: list[Notice] = []
        for _ in range(MAX_NOTICES_PER_READ):
            if self._socket is None:
                return
            try:
                data = self._socket.recv(2 * MAX_NOTICE_BYTES)
            except BlockingIOError:
                break
            except OSError:
                # A datagram that cannot be read is one that was lost.
                continue
            if data[:1] == NOTICE:
                notices.append(_notice_of(data))
            else:
                self._listed_at = -1
                self.refresh()
        if notices:
            self._on_notice(merged(notices))


def _notice_of(data: bytes) -> Notice:
    try:
        return _decode(data[len(NOTICE) :])
    except msgspec.DecodeError:
        # From another version: something was committed, and that is all we know.
        return Notice(everything=True)


def merged(notices: list[Notice]) -> Notice:
    """Several notices as one."""
    first, *rest = notices
    for notice in rest:
        first.queues |= notice.queues
        first.freed |= notice.freed
        first.settled |= notice.settled
        first.turns |= notice.turns
        if notice.due_at is not None:
            first.due_at = min(notice.due_at, first.due_at or notice.due_at)
        first.messages |= notice.messages
        first.everything |= notice.everything
    return first


def _fits(directory: str) -> bool:
    return len(os.fsencode(directory)) + 1 + MAX_NAME_BYTES < MAX_SOCKET_PATH_BYTES


def socket_directory(directory: str) -> str | None:
    """Where the sockets are: beside the database, or, where that path is too long for a socket, in
    a directory of the temporary one that all processes on the file find in the same way."""
    if _fits(directory):
        return directory
    identity = os.stat(directory)
    place = os.path.join(tempfile.gettempdir(), f"kept-{identity.st_dev:x}-{identity.st_ino:x}")
    try:
        os.makedirs(place, mode=0o700, exist_ok=True)
        owner = os.stat(place).st_uid
    except OSError:
        return None
    return place if _fits(place) and owner == os.getuid() else None
