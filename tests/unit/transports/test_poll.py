"""The poll transport: who gets a message, and when it counts as delivered (protocol A6)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kept.protocol.addresses import channel_of
from kept.transports import poll as module
from kept.transports.base import DeliveryFailedError
from kept.transports.poll import (
    KEEP_ALIVE_FRAME,
    PollCapacityError,
    PollConnection,
    PollTransport,
    event_frame,
)
from tests.unit.transports.manual_runtime import ManualRuntime, settle


class Listener:
    """Reads a connection's frames as a response does."""

    def __init__(self, connection: PollConnection) -> None:
        self.connection = connection
        self.heard: list[bytes] = []
        self.ended = False
        self._task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async for frame in self.connection.frames():
            self.heard.append(frame)
        self.ended = True

    @property
    def messages(self) -> list[bytes]:
        return [frame[6:-2] for frame in self.heard if frame != KEEP_ALIVE_FRAME]


class Stage:
    """A transport, its clock, and what became of deliveries."""

    def __init__(self, **options: float) -> None:
        self.runtime = ManualRuntime()
        self.transport = PollTransport(self.runtime, **options)  # type: ignore[arg-type]
        self._deliveries: list[asyncio.Task[None]] = []

    def listen(self, group: str, id: str) -> Listener:
        return Listener(self.transport.connect(group, id))

    async def send(self, address: str, message: bytes = b"{}") -> asyncio.Task[None]:
        delivery = asyncio.create_task(self.transport.deliver(address, message))
        self._deliveries.append(delivery)
        await settle()
        return delivery

    async def close(self) -> None:
        await self.transport.close()
        await asyncio.gather(*self._deliveries, return_exceptions=True)


@asynccontextmanager
async def stage(**options: float) -> AsyncIterator[Stage]:
    """A stage that is cleared afterwards."""
    made = Stage(**options)
    try:
        yield made
    finally:
        await made.close()


async def test_a_delivery_succeeds_one_keep_alive_after_its_writing() -> None:
    """Written at once, but no success before the connection has lived on for a keep-alive."""
    async with stage() as s:
        listener = s.listen("g", "a")
        delivery = await s.send("poll://uni@g/a", b'{"n":1}')
        assert listener.heard == [b'data: {"n":1}\n\n']
        await s.runtime.advance(14.9)
        assert not delivery.done()
        await s.runtime.advance(2)
        assert delivery.done()
        await delivery


async def test_a_delivery_fails_when_its_connection_ends_before_a_keep_alive() -> None:
    """A message that was written to a connection that died is not delivered."""
    async with stage() as s:
        listener = s.listen("g", "a")
        delivery = await s.send("poll://uni@g/a")
        await s.runtime.advance(14)
        s.transport.disconnect(listener.connection)
        with pytest.raises(DeliveryFailedError):
            await delivery


async def test_a_message_for_any_moves_to_another_member_when_its_connection_ends() -> None:
    """any@: the message of a dying connection goes to a living member at once."""
    async with stage() as s:
        first, second = s.listen("g", "a"), s.listen("g", "b")
        delivery = await s.send("poll://any@g/a", b"1")
        assert (first.messages, second.messages) == ([b"1"], [])
        s.transport.disconnect(first.connection)
        await settle()
        assert second.messages == [b"1"]
        await s.runtime.advance(20)
        await delivery


async def test_any_prefers_its_id_and_takes_turns_otherwise() -> None:
    """any@G/ID prefers that member, any@G goes round, and an absent preference goes round too."""
    async with stage() as s:
        members = [s.listen("g", id) for id in "abc"]
        for _ in range(6):
            await s.send("poll://any@g", b"round")
        assert [len(member.messages) for member in members] == [2, 2, 2]
        for _ in range(3):
            await s.send("poll://any@g/b", b"b")
        assert [len(member.messages) for member in members] == [2, 5, 2]
        for _ in range(3):
            await s.send("poll://any@g/gone", b"gone")
        assert [len(member.messages) for member in members] == [3, 6, 3]


async def test_uni_reaches_only_its_id_and_without_one_anybody() -> None:
    """uni@G/ID never goes to another member; uni@G is any@G."""
    async with stage() as s:
        member = s.listen("g", "a")
        assert not s.transport.reachable("poll://uni@g/b")
        with pytest.raises(DeliveryFailedError):
            await s.transport.deliver("poll://uni@g/b", b"1")
        assert s.transport.reachable("poll://uni@g")
        await s.send("poll://uni@g", b"2")
        assert member.messages == [b"2"]


async def test_names_may_hold_blanks_slashes_and_any_letter() -> None:
    """Installed clients put the names of groups and workers into addresses as they are."""
    async with stage() as s:
        member = s.listen("größe eins", "p/1 ü")
        for address in ("poll://any@größe eins", "poll://uni@größe eins/p/1 ü"):
            assert s.transport.reachable(address)
            await s.send(address, b"1")
        assert member.messages == [b"1", b"1"]


async def test_only_groups_that_are_connected_are_reachable() -> None:
    """reachable follows connections as they come and go."""
    async with stage() as s:
        assert not s.transport.reachable("poll://any@g")
        member = s.listen("g", "a")
        assert s.transport.reachable("poll://any@g")
        assert s.transport.reachable("poll://any@g/other")
        assert not s.transport.reachable("poll://any@h")
        assert not s.transport.reachable("http://g")
        s.transport.disconnect(member.connection)
        assert not s.transport.reachable("poll://any@g")
        assert s.transport.connections == 0


async def test_the_newer_connection_of_an_id_replaces_the_older() -> None:
    """The old stream ends, its unconfirmed messages go to the new one, and its late farewell does
    not disconnect the new one."""
    async with stage() as s:
        old = s.listen("g", "a")
        delivery = await s.send("poll://uni@g/a", b"1")
        new = s.listen("g", "a")
        await settle()
        assert old.ended
        assert new.messages == [b"1"]
        s.transport.disconnect(old.connection)
        assert s.transport.connections == 1
        await s.runtime.advance(20)
        await delivery


async def test_keep_alives_are_comments_and_come_in_time() -> None:
    """A silent connection gets a comment at least every keep-alive."""
    async with stage() as s:
        listener = s.listen("g", "a")
        await s.runtime.advance(61)
        assert listener.heard == [KEEP_ALIVE_FRAME] * len(listener.heard)
        assert len(listener.heard) >= 4


async def test_a_stream_ends_before_installed_clients_give_up() -> None:
    """A quiet stream ends after its lifetime; one that is never quiet ends before 300 s."""
    async with stage() as s:
        quiet = s.listen("quiet", "a")
        busy = s.listen("busy", "a")
        for _ in range(30):
            await s.send("poll://any@busy")
            await s.runtime.advance(9)
        assert quiet.ended
        assert not busy.ended
        for _ in range(2):
            await s.send("poll://any@busy")
            await s.runtime.advance(9)
        assert busy.ended


async def test_a_full_connection_is_passed_over() -> None:
    """Whoever does not read gets a bounded number of messages, and others get the next ones."""
    async with stage() as s:
        stuck = s.transport.connect("g", "stuck")
        for _ in range(module.MAX_BUFFERED_MESSAGES):
            await s.send("poll://any@g/stuck")
        assert stuck.full
        with pytest.raises(DeliveryFailedError):
            await s.transport.deliver("poll://any@g/stuck", b"1")
        other = s.listen("g", "other")
        await s.send("poll://any@g/stuck", b"2")
        assert other.messages == [b"2"]


async def test_capacity_is_bounded_but_a_returning_worker_fits() -> None:
    """Beyond the bound a connection is refused, unless it replaces one."""
    async with stage(capacity=2) as s:
        s.listen("g", "a")
        s.listen("h", "a")
        with pytest.raises(PollCapacityError):
            s.transport.connect("g", "b")
        s.listen("g", "a")
        assert s.transport.connections == 2


async def test_whoever_wants_to_know_hears_of_each_connection() -> None:
    """on_connect gets the group, after the connection can be reached."""
    async with stage() as s:
        heard: list[tuple[str, bool]] = []
        s.transport.on_connect = lambda group: heard.append(
            (group, s.transport.reachable(f"poll://any@{group}"))
        )
        s.listen("g", "a")
        assert heard == [("g", True)]


async def test_closing_ends_streams_and_fails_what_is_unconfirmed() -> None:
    """After close nobody is connected, deliveries failed, and nobody can connect."""
    async with stage() as s:
        listener = s.listen("g", "a")
        delivery = await s.send("poll://any@g")
        await s.transport.close()
        await settle()
        assert listener.ended
        with pytest.raises(DeliveryFailedError):
            await delivery
        with pytest.raises(PollCapacityError):
            s.transport.connect("g", "a")


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner)))
def test_a_frame_is_one_ascii_line_with_the_same_meaning(value: object) -> None:
    """Any JSON travels as `data: <one line of ASCII>` and a blank line, and reads back the same."""
    message = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    try:
        message.decode()
    except UnicodeDecodeError:
        return
    frame = event_frame(message)
    assert frame.isascii()
    assert frame.startswith(b"data: ")
    assert frame.endswith(b"\n\n")
    assert frame.decode().count("\n") == 2
    assert len(frame[:-2].decode().splitlines()) == 1
    assert json.loads(frame[6:]) == value


def test_a_pretty_printed_message_becomes_one_line() -> None:
    """Line ends between tokens would end the event early."""
    assert event_frame(b'{\r\n"a": 1\n}') == b'data: {  "a": 1 }\n\n'


async def test_channels_are_the_groups_and_their_members() -> None:
    """What is open is told by the names under which the store keeps messages."""
    async with stage() as made:
        made.listen("g", "a/1")
        listener = made.listen("g", "b")
        for address in ("poll://any@g", "poll://any@g/b", "poll://uni@g/b", "poll://uni@g/a/1"):
            assert channel_of(address) in made.transport.channels()
        made.transport.disconnect(listener.connection)
        assert channel_of("poll://uni@g/b") not in made.transport.channels()
        assert channel_of("poll://any@g/b") in made.transport.channels()
