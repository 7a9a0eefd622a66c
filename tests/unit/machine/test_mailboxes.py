"""Messages to running work (protocol B8)."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kept.machine.background import LookAtEntry
from kept.machine.mailboxes import mailbox_key, message_key
from kept.protocol import requests as r
from kept.protocol.limits import (
    MAILBOX_LOOK_MS,
    MAX_PASSED_NUMBERS,
    MESSAGE_KEY_RETENTION_MS,
    NEVER_MS,
)
from kept.protocol.mailboxes import message_tags
from kept.protocol.records import EMPTY, PromiseState, Value
from kept.protocol.responses import FenceResult, SignalResult
from tests.unit.machine.world import START_MS, World, fulfill, record, suspend

OWNER = "o"


def send(
    world: World, name: str = "box", data: str = "x", *, key: str | None = None, id: str = OWNER
) -> int:
    request = r.SignalSend(id, name, Value(data=data), key)
    return world.ok(request, SignalResult).number


def await_message(world: World, number: int, version: int = 1, name: str = "box") -> PromiseState:
    """What the SDK does to wait for a message; answers the message's state."""
    tags = message_tags(OWNER, name, OWNER)
    timeout_at = world.stored(OWNER).timeout_at
    message = r.PromiseCreate(f"{OWNER}!{name}.{number}", timeout_at, EMPTY, tags)
    result = world.ok(r.TaskFence(OWNER, version, r.CreateAction(message)), FenceResult)
    assert not isinstance(result.action.data, str)
    return result.action.data.promise.state


def test_messages_are_numbered_in_order_and_hold_their_values() -> None:
    """Each mailbox counts for itself; message n is the promise ID!NAME.n, resolved when sent."""
    world = World()
    world.started(OWNER, timeout_at=START_MS + 500)
    assert [send(world, "a", "1"), send(world, "a", "2"), send(world, "b", "3")] == [1, 2, 1]
    world.pass_time(7)
    assert send(world, "a", "4") == 3
    message = world.promise(f"{OWNER}!a.3").promise
    assert (message.state, message.value) == (PromiseState.RESOLVED, Value(data="4"))
    assert (message.created_at, message.settled_at) == (START_MS + 7, START_MS + 7)
    assert message.timeout_at == START_MS + 500
    assert message.tags == message_tags(OWNER, "a", OWNER)


def test_messages_travel_in_the_preload_of_their_owner() -> None:
    """Whoever takes the work over gets what was sent so far with the lease."""
    world = World()
    world.create(OWNER, target="queue://q", origin="root")
    send(world)
    (lease,) = world.claim("q")
    assert [each.id for each in lease.preload] == ["o!box.1"]
    assert lease.preload[0].tags["resonate:origin"] == "root"


def test_a_message_wakes_whoever_awaits_it() -> None:
    """A promise that the receiver made first is settled by the send."""
    world = World()
    world.started(OWNER)
    assert await_message(world, 1) is PromiseState.PENDING
    assert world.status(suspend(OWNER, 1, "o!box.1")) == 200
    assert send(world, data="now") == 1
    assert world.state_of(OWNER) == "pending"
    assert world.promise("o!box.1").promise.value == Value(data="now")


def test_a_message_that_was_sent_before_is_there_at_once() -> None:
    """Creating it finds it resolved, and a suspend on it goes on at once."""
    world = World()
    world.started(OWNER)
    send(world)
    assert await_message(world, 1) is PromiseState.RESOLVED
    assert world.status(suspend(OWNER, 1, "o!box.1")) == 300


@pytest.mark.parametrize("end", ["pending", "acquired", "suspended", "halted"])
def test_work_that_is_not_over_takes_messages(end: str) -> None:
    """In every state of its task, and also a promise without one."""
    world = World()
    if end == "pending":
        world.create(OWNER, target="queue://q")
    else:
        world.started(OWNER)
    if end == "suspended":
        await_message(world, 1)
        world.status(suspend(OWNER, 1, "o!box.1"))
    if end == "halted":
        world.status(r.TaskHalt(OWNER))
    assert send(world) == 1
    world.create("slot", external="true")
    assert send(world, id="slot") == 1


def test_work_that_is_over_takes_none() -> None:
    """Settled or past its deadline: 409; never heard of: 404. Nothing is stored."""
    world = World()
    assert world.status(r.SignalSend("nobody", "box")) == 404
    world.started(OWNER)
    world.ask(fulfill(OWNER, 1))
    world.create("late", timeout_at=START_MS + 1, external="true")
    world.pass_time(1)
    assert world.status(r.SignalSend(OWNER, "box")) == 409
    assert world.status(r.SignalSend("late", "box")) == 409
    assert world.stored("late").state is PromiseState.REJECTED_TIMEDOUT
    assert world.entries == {}


def test_a_key_is_one_message() -> None:
    """A repeated key answers the same number, in another mailbox it is another message, and where
    the owner has settled since it still answers: the first answer may have been lost."""
    world = World()
    world.started(OWNER)
    assert [send(world, key="k"), send(world, key="l"), send(world, data="y", key="k")] == [1, 2, 1]
    assert send(world, "other", key="k") == 1
    assert world.promise("o!box.1").promise.value == Value(data="x")
    world.ask(fulfill(OWNER, 1))
    assert send(world, key="l") == 2
    assert world.status(r.SignalSend(OWNER, "box", key="new")) == 409


def test_keys_are_forgotten_after_a_week_and_mailboxes_after_their_owner() -> None:
    """Neither before, and nothing is left in the end."""
    world = World()
    world.started(OWNER, target="queue://q", ttl=10**12)
    send(world, key="k")
    look = LookAtEntry(mailbox_key(OWNER, "box"))
    forget = LookAtEntry(message_key(OWNER, "box", "k"))
    world.pass_time(MAILBOX_LOOK_MS)
    world.fire(look, forget)
    assert len(world.entries) == 2
    world.pass_time(MESSAGE_KEY_RETENTION_MS - MAILBOX_LOOK_MS)
    world.fire(look, forget)
    assert list(world.entries) == [look.key]
    assert send(world, key="k") == 2
    world.ask(fulfill(OWNER, 1))
    world.pass_time(MESSAGE_KEY_RETENTION_MS)
    world.fire(look, forget)
    assert world.entries == {}


def test_numbers_that_are_taken_are_passed_over() -> None:
    """A message that somebody settled by hand, or a promise that is none: never written over."""
    world = World()
    world.started(OWNER)
    await_message(world, 1)
    world.settle("o!box.1", PromiseState.REJECTED)
    world.create("o!box.2", external="true")
    assert send(world) == 3
    assert world.stored("o!box.1").state is PromiseState.REJECTED
    assert world.stored("o!box.2").pending
    for number in range(4, 4 + MAX_PASSED_NUMBERS):
        world.create(f"o!box.{number}")
    assert world.status(r.SignalSend(OWNER, "box")) == 409


@pytest.mark.parametrize(
    "request_",
    [
        r.SignalSend(OWNER, "Upper"),
        r.SignalSend(OWNER, "a.b"),
        r.SignalSend(OWNER, "a!b"),
        r.SignalSend(OWNER, ""),
        r.SignalSend(OWNER, "box\n"),
        r.SignalSend(OWNER, "n" * 65),
        r.SignalSend("i" * 1_010, "box"),
        r.SignalSend(OWNER, "box", Value(data="\0")),
        r.SignalSend(OWNER, "box", key=""),
        r.SignalSend(OWNER, "box", key="k" * 257),
        r.SignalSend("", "box"),
    ],
    ids=lambda request: str(msgspec.structs.asdict(request))[:60],
)
def test_what_cannot_be_a_message_is_refused(request_: r.SignalSend) -> None:
    """Names, ids that leave no room for a number, values and keys."""
    world = World()
    world.started(OWNER)
    assert world.status(request_) == 400


def test_an_unsent_message_has_the_deadline_of_its_owner() -> None:
    """With none it stays until it is taken away with its tree; with one it times out."""
    world = World()
    world.started(OWNER)
    await_message(world, 1)
    assert world.stored("o!box.1").timeout_at == NEVER_MS


# -- against a naive model ---------------------------------------------------------------------------

_STEPS = st.one_of(
    st.tuples(st.just("send"), st.sampled_from("ab"), st.sampled_from([None, None, "k", "l"])),
    st.tuples(st.just("await"), st.sampled_from("ab"), st.integers(1, 4)),
    st.tuples(st.just("settle"), st.sampled_from("ab"), st.integers(1, 4)),
    st.just(("record", "", 0)),
    st.just(("fulfill", "", 0)),
)


@given(st.lists(_STEPS, max_size=25))
def test_any_order_of_sends_and_awaits(steps: list[tuple[str, str, int | str | None]]) -> None:
    """Numbers, values and refusals are those of a list of slots for each mailbox."""
    world = World()
    world.started(OWNER)
    slots: dict[tuple[str, int], str | None] = {}
    keys: dict[tuple[str, str], int] = {}
    is_over = False
    for place, (what, name, detail) in enumerate(steps):
        if what == "send":
            key = detail if isinstance(detail, str) else None
            response = world.ask(r.SignalSend(OWNER, name, Value(data=str(place)), key))
            known = keys.get((name, key)) if key is not None else None
            if known is None and is_over:
                assert response.status == 409
                continue
            number = known or next(n for n in range(1, 99) if slots.get((name, n)) is None)
            assert response.data == SignalResult(number)
            if known is None:
                slots[name, number] = str(place)
                if key is not None:
                    keys[name, key] = number
        elif what == "await" and not is_over:
            assert isinstance(detail, int)
            state = await_message(world, detail, name=name)
            assert (state is PromiseState.PENDING) == (slots.get((name, detail)) is None)
            slots.setdefault((name, detail), None)
        elif what == "settle" and slots.get((name, int(detail or 0)), "") is None:
            world.settle(f"{OWNER}!{name}.{detail}")
            slots[name, int(detail or 0)] = ""
        elif what == "record" and not is_over:
            world.ask(record(OWNER, 1, f"o.{place}"))
        elif what == "fulfill":
            world.ask(fulfill(OWNER, 1))
            is_over = True
    for (name, number), text in slots.items():
        stored = world.stored(f"{OWNER}!{name}.{number}")
        assert stored.pending == (text is None)
        assert (stored.value.data or "") == (text or "")
