"""Messages to workers that hold a stream of server-sent events open (protocol A6).

Nobody acknowledges a message on such a stream. So a delivery counts as done once its frame was
written to a connection that is still alive one keep-alive later; a connection that ends earlier
gives its messages back, for another member of the group or for a later try.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Final

from kept.protocol.addresses import PollAddress, parse_poll, poll_channel
from kept.protocol.records import MessageKind
from kept.protocol.storage import DEFAULT_TENANT
from kept.runtime import Runtime
from kept.transports.base import DeliveryFailedError

KEEP_ALIVE_SECONDS: Final = 15.0
# Installed clients give a stream up after 300 s and never listen again, but they come back a
# second after a stream that the server ends. So it ends between these two, when it is quiet.
STREAM_LIFETIME_SECONDS: Final = 240.0
STREAM_LIFETIME_LIMIT_SECONDS: Final = 280.0
# Streams that opened together must not all end together.
LIFETIME_SPREAD: Final = 0.1

MAX_POLL_CONNECTIONS: Final = 10_000
MAX_BUFFERED_MESSAGES: Final = 1_024
MAX_BUFFERED_BYTES: Final = 8 * 1_048_576
MAX_UNCONFIRMED_MESSAGES: Final = 16_384
MAX_MEMBERS_TRIED: Final = 3
_TICKS_PER_KEEP_ALIVE: Final = 10

KEEP_ALIVE_FRAME: Final = b": keep-alive\n\n"
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7f]")
_LINE_ENDS: Final = bytes.maketrans(b"\r\n", b"  ")


class PollCapacityError(Exception):
    """No further connection fits: answer 503."""


class _Message:
    """A frame on its way, and whoever waits to learn what became of it."""

    __slots__ = ("frame", "outcome", "written_at")

    def __init__(self, frame: bytes, outcome: asyncio.Future[bool]) -> None:
        self.frame = frame
        self.outcome = outcome
        self.written_at = 0.0

    def finish(self, *, delivered: bool) -> None:
        if not self.outcome.done():
            self.outcome.set_result(delivered)


class PollConnection:
    """One open stream: a bounded buffer on one side, frames for the response on the other."""

    def __init__(
        self,
        group: str,
        id: str,
        runtime: Runtime,
        lifetime_seconds: float,
        tenant: str = DEFAULT_TENANT,
    ) -> None:
        self.tenant = tenant
        self.group = group
        self.id = id
        self.closed = False
        self._runtime = runtime
        self._opened_at = runtime.monotonic()
        self._retire_at = self._opened_at + lifetime_seconds
        self._last_write = self._opened_at
        self._waiting: deque[_Message] = deque()
        self._waiting_bytes = 0
        self._unconfirmed: deque[_Message] = deque()
        self._keep_alive_due = False
        self._wake = asyncio.Event()

    @property
    def full(self) -> bool:
        """Whether a bound refuses further messages for now."""
        return (
            len(self._waiting) >= MAX_BUFFERED_MESSAGES
            or self._waiting_bytes >= MAX_BUFFERED_BYTES
            or len(self._unconfirmed) >= MAX_UNCONFIRMED_MESSAGES
        )

    async def offer(self, frame: bytes) -> bool:
        """True once the frame counts as delivered, False if the connection ended before."""
        if self.closed:
            return False
        message = _Message(frame, asyncio.get_running_loop().create_future())
        self._waiting.append(message)
        self._waiting_bytes += len(frame)
        self._wake.set()
        return await message.outcome

    async def frames(self) -> AsyncIterator[bytes]:
        """What to write, frame by frame, until the connection ends. Asking for the next frame
        says that the one before was written."""
        while True:
            while self._waiting and not self.closed:
                message = self._waiting.popleft()
                self._waiting_bytes -= len(message.frame)
                if message.outcome.done():
                    continue
                # On the books before it is written: a connection that ends while writing gives
                # this message back like any other.
                message.written_at = float("inf")
                self._unconfirmed.append(message)
                yield message.frame
                message.written_at = self._last_write = self._runtime.monotonic()
            if self.closed:
                return
            if self._keep_alive_due:
                self._keep_alive_due = False
                yield KEEP_ALIVE_FRAME
                self._last_write = self._runtime.monotonic()
                continue
            self._wake.clear()
            await self._wake.wait()

    def tick(self, now: float, keep_alive_seconds: float, tick_seconds: float) -> None:
        """Confirms what is old enough, asks for a keep-alive, ends a stream past its lifetime."""
        while self._unconfirmed and self._unconfirmed[0].written_at + keep_alive_seconds <= now:
            self._unconfirmed.popleft().finish(delivered=True)
        if now - self._last_write >= keep_alive_seconds - tick_seconds:
            self._keep_alive_due = True
            self._wake.set()
        quiet = not self._waiting and not self._unconfirmed
        limit = self._opened_at + STREAM_LIFETIME_LIMIT_SECONDS
        if now >= limit or (quiet and now >= self._retire_at):
            self.close()

    def close(self) -> None:
        """Ends the stream and gives back every message that is not confirmed; idempotent."""
        self.closed = True
        for message in (*self._unconfirmed, *self._waiting):
            message.finish(delivered=False)
        self._unconfirmed.clear()
        self._waiting.clear()
        self._waiting_bytes = 0
        self._wake.set()


class PollTransport:
    """The connections of this server by tenant, group and id, and the choice among them.

    `on_connect` is called with the group of each new connection, so that messages kept for the
    group can be sent at once.
    """

    schemes: frozenset[str] = frozenset({"poll"})

    def __init__(
        self,
        runtime: Runtime,
        *,
        keep_alive_seconds: float = KEEP_ALIVE_SECONDS,
        lifetime_seconds: float = STREAM_LIFETIME_SECONDS,
        capacity: int = MAX_POLL_CONNECTIONS,
        on_connect: Callable[[str], None] | None = None,
    ) -> None:
        self.on_connect = on_connect
        self._runtime = runtime
        self._keep_alive = keep_alive_seconds
        self._lifetime = lifetime_seconds
        self._capacity = capacity
        self._count = 0
        # Each group in the order of turns: who was chosen goes to the end.
        self._groups: dict[tuple[str, str], dict[str, PollConnection]] = {}
        self._ticker: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return self._count

    def connect(self, group: str, id: str, tenant: str = DEFAULT_TENANT) -> PollConnection:
        """A new connection; raises `PollCapacityError`.

        A connection of the same group and id is ended: a worker that restarts quickly comes back
        before its old stream is known to be dead, and `uni@` must reach the living one.
        """
        if self._closed:
            raise PollCapacityError("the server is stopping")
        former = self._groups.get((tenant, group), {}).get(id)
        if former is None and self._count >= self._capacity:
            raise PollCapacityError(f"{self._capacity} connections are open, the limit")
        if former is not None:
            self.disconnect(former)
        share = int.from_bytes(self._runtime.entropy(2), "big") / 65_535
        lifetime = self._lifetime * (1 + LIFETIME_SPREAD * (2 * share - 1))
        connection = PollConnection(group, id, self._runtime, lifetime, tenant)
        self._groups.setdefault((tenant, group), {})[id] = connection
        self._count += 1
        if self._ticker is None:
            self._ticker = self._runtime.spawn(self._tick(), "poll-keep-alive")
        if self.on_connect is not None:
            self.on_connect(group)
        return connection

    def disconnect(self, connection: PollConnection) -> None:
        """Forgets and ends a connection; idempotent."""
        name = (connection.tenant, connection.group)
        members = self._groups.get(name, {})
        if members.get(connection.id) is connection:
            del members[connection.id]
            self._count -= 1
            if not members:
                del self._groups[name]
        connection.close()

    def channels(self) -> Iterable[str]:
        """The groups that have a connection here, and those connections: what waits for one that
        is gone is left alone, however long it waits."""
        for (tenant, group), members in self._groups.items():
            yield poll_channel(group, None, tenant)
            for id in members:
                yield poll_channel(group, id, tenant)

    def reachable(self, address: str, tenant: str = DEFAULT_TENANT) -> bool:
        """Whether a connection that this address may use is open here."""
        parsed = parse_poll(address)
        if parsed is None:
            return False
        members = self._groups.get((tenant, parsed.group))
        if members is None:
            return False
        return not _only_one(parsed) or parsed.id in members

    async def deliver(
        self,
        address: str,
        message: bytes,
        tenant: str = DEFAULT_TENANT,
        kind: MessageKind = MessageKind.EXECUTE,
    ) -> None:
        """Hands one message over (protocol A6); returns about one keep-alive after its writing.

        Where the connection ends before that, another one that the address allows is tried.
        Raises `DeliveryFailedError`.
        """
        parsed = parse_poll(address)
        if parsed is None:
            raise DeliveryFailedError(f"{address[:200]!r} is not a poll address")
        frame = event_frame(message)
        tried: list[PollConnection] = []
        while len(tried) < MAX_MEMBERS_TRIED:
            connection = self._choose(parsed, tried, tenant)
            if connection is None:
                break
            if await connection.offer(frame):
                return
            tried.append(connection)
        why = "ended too early" if tried else "is open here, or all are full"
        raise DeliveryFailedError(
            f"{address[:200]!r}: {'each' if tried else 'no'} connection {why}"
        )

    async def close(self) -> None:
        """Ends all connections; their messages stay in the outbox."""
        self._closed = True
        for members in list(self._groups.values()):
            for connection in list(members.values()):
                self.disconnect(connection)
        ticker, self._ticker = self._ticker, None
        if ticker is not None:
            ticker.cancel()
            await asyncio.gather(ticker, return_exceptions=True)

    def _choose(
        self, address: PollAddress, tried: list[PollConnection], tenant: str
    ) -> PollConnection | None:
        members = self._groups.get((tenant, address.group))
        if members is None:
            return None
        if address.id is not None:
            preferred = members.get(address.id)
            if preferred is not None and preferred not in tried and not preferred.full:
                return preferred
        if _only_one(address):
            return None
        for id, connection in members.items():
            if connection not in tried and not connection.full:
                del members[id]
                members[id] = connection
                return connection
        return None

    async def _tick(self) -> None:
        """One clock for all connections: a timer for each message would cost more than its write."""
        tick = self._keep_alive / _TICKS_PER_KEEP_ALIVE
        while self._groups:
            await self._runtime.sleep(tick)
            now = self._runtime.monotonic()
            for members in list(self._groups.values()):
                for connection in list(members.values()):
                    connection.tick(now, self._keep_alive, tick)
                    if connection.closed:
                        self.disconnect(connection)
        self._ticker = None


def _only_one(address: PollAddress) -> bool:
    return address.unicast and address.id is not None


def event_frame(message: bytes) -> bytes:
    """A JSON message as one server-sent event: one line, ASCII only.

    Installed clients decode each piece of the stream by itself and split lines at characters such
    as U+2028, so everything beyond ASCII travels escaped.
    """
    if not message.isascii():
        message = _NOT_ASCII.sub(_escaped, message.decode()).encode()
    return b"data: " + message.translate(_LINE_ENDS) + b"\n\n"


def _escaped(match: re.Match[str]) -> str:
    units = match.group().encode("utf-16-be")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
