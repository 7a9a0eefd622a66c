"""`ctx.receive`: messages to running work, in order, each once, whatever happens (protocol B8)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import kept
from kept.errors import (
    BadRequestError,
    ConflictError,
    InvalidArgumentsError,
    NotFoundError,
    PromiseRejectedError,
)
from kept.protocol import requests as r
from kept.protocol.responses import PromiseResult
from tests.unit.sdk.site import DEADLINE_SECONDS, Site, eventually, site

ID = "work"
MAX_REQUESTS = 100
Workflow = Callable[..., Awaitable[Any]]


def new_app() -> kept.App:
    return kept.App("memory://", worker=False)


async def result_of(
    workflow: Workflow, *sent: tuple[str, Any], cache: int = 100, before: bool = False
) -> Any:
    """The workflow's result where these messages are sent to it, one after the other."""
    app = new_app()
    function = app.function(workflow)  # type: ignore[arg-type]
    async with site() as place, asyncio.timeout(DEADLINE_SECONDS):
        client = place.app(app)
        handle = await client.start(function, id=ID)
        if not before:
            place.worker(app, cache=cache)
        for name, value in sent:
            await client.send(ID, name, value)
        if before:
            place.worker(app, cache=cache)
        return await handle


async def all_three(ctx: kept.Context) -> list[Any]:
    return [await ctx.receive("box"), await ctx.receive("box"), await ctx.receive("box")]


@pytest.mark.parametrize("cache", [100, 0], ids=["kept in memory", "replayed each time"])
@pytest.mark.parametrize("before", [True, False], ids=["sent before", "sent during"])
async def test_messages_come_in_order(*, cache: int, before: bool) -> None:
    """Sent before it began or while it waits."""
    sent = [("box", 1), ("box", {"two": 2}), ("box", None)]
    assert await result_of(all_three, *sent, cache=cache, before=before) == [1, {"two": 2}, None]


@pytest.mark.parametrize("cache", [100, 0], ids=["kept in memory", "replayed each time"])
async def test_a_receive_that_times_out_takes_nothing(cache: int) -> None:
    """The message that comes later goes to the next receive, and no number is skipped."""

    async def patient(ctx: kept.Context) -> list[Any]:
        got: list[Any] = []
        while len(got) < 3:
            try:
                got.append(await ctx.receive("box", timeout=0.02))
            except TimeoutError:
                got.append(await ctx.receive("box"))
        return got

    app = new_app()
    function = app.function(patient)
    async with site() as place, asyncio.timeout(DEADLINE_SECONDS):
        place.worker(app, cache=cache)
        client = place.app(app)
        handle = await client.start(function, id=ID)
        for number in range(3):
            await asyncio.sleep(0.04 * number)
            assert await handle.send("box", number) == number + 1
        assert await handle == [0, 1, 2]


async def test_concurrent_receives_are_served_in_the_order_of_asking() -> None:
    """Those that are cancelled meanwhile drop out of the line."""

    async def crowd(ctx: kept.Context) -> list[Any]:
        async with asyncio.TaskGroup() as group:
            first, second, third, fourth = [group.create_task(ctx.receive("box")) for _ in range(4)]
            await asyncio.sleep(0)
            first.cancel()
            third.cancel()
        return [second.result(), fourth.result()]

    assert await result_of(crowd, ("box", "a"), ("box", "b")) == ["a", "b"]


@pytest.mark.parametrize("cache", [100, 0], ids=["kept in memory", "replayed each time"])
async def test_a_receive_that_is_cancelled_with_its_message_in_hand_gives_it_back(
    cache: int,
) -> None:
    """Its message is there already when the cancellation reaches it."""

    async def thief(ctx: kept.Context) -> list[Any]:
        victim = ctx.receive("box")
        # Begun by hand, so that the cancellation comes between the message and its receiver.
        future = victim.send(None)
        future._asyncio_future_blocking = False
        arrived = asyncio.Event()
        future.add_done_callback(lambda _: arrived.set())
        await arrived.wait()
        with contextlib.suppress(asyncio.CancelledError):
            victim.throw(asyncio.CancelledError())
        return [await ctx.receive("box"), await ctx.receive("box")]

    assert await result_of(thief, ("box", 1), ("box", 2), cache=cache) == [1, 2]


async def test_mailboxes_are_apart() -> None:
    """Each name has its own order."""

    async def two(ctx: kept.Context) -> list[Any]:
        return list(await asyncio.gather(ctx.receive("b"), ctx.receive("a"), ctx.receive("b")))

    assert await result_of(two, ("a", 1), ("b", 2), ("b", 3)) == [2, 1, 3]


async def test_a_message_of_the_wrong_type_counts_as_received() -> None:
    """It raises once; the next message follows."""

    async def typed(ctx: kept.Context) -> Any:
        try:
            await ctx.receive("box", type=int)
        except InvalidArgumentsError:
            return await ctx.receive("box", type=int)

    assert await result_of(typed, ("box", "text"), ("box", 7)) == 7


async def test_a_mailbox_with_an_impossible_name_is_refused() -> None:
    """The code hears it where it asks."""

    async def wrong(ctx: kept.Context) -> Any:
        return await ctx.receive("No such name!")

    with pytest.raises(PromiseRejectedError, match="ConfigurationError"):
        await result_of(wrong)


async def test_what_cannot_be_sent() -> None:
    """To nobody, to work that is over, under a name that is none."""

    async def quick(ctx: kept.Context) -> None:
        """Over at once."""

    app = new_app()
    function = app.function(quick)
    async with site() as place, asyncio.timeout(DEADLINE_SECONDS):
        client = place.app(app)
        with pytest.raises(NotFoundError):
            await client.send("nobody", "box")
        handle = await client.start(function, id=ID)
        assert [await handle.send("box", key="k"), await handle.send("box", key="k")] == [1, 1]
        with pytest.raises(BadRequestError):
            await handle.send("NO")
        place.worker(app)
        await handle
        with pytest.raises(ConflictError):
            await handle.send("box")


# -- crashes -----------------------------------------------------------------------------------------


def conversation(app: kept.App) -> tuple[kept.Function[..., Any], list[str]]:
    """Steps between receives, one of which times out; and what the steps were called with."""
    heard: list[str] = []

    @app.function
    async def note(text: str) -> str:
        heard.append(text)
        return text

    @app.function
    async def talk(ctx: kept.Context) -> list[str]:
        said = [await ctx.run(note, f"first {await ctx.receive('box')}")]
        try:
            await ctx.receive("never", timeout=0.01)
        except TimeoutError:
            said.append(await ctx.run(note, "nothing"))
        pair = await asyncio.gather(ctx.receive("box"), ctx.receive("box"))
        said += [await ctx.run(note, f"pair {text}") for text in pair]
        return said

    return talk, heard


EXPECTED = ["first 0", "nothing", "pair 1", "pair 2"]


@pytest.mark.parametrize("applied", [False, True], ids=["lost request", "lost answer"])
@pytest.mark.parametrize("before", [True, False], ids=["sent before", "sent during"])
@pytest.mark.timeout(120)
async def test_crash_at_every_request(*, applied: bool, before: bool) -> None:
    """A worker that falls silent at its n-th request is replaced, for every n: one outcome."""
    for limit in range(1, MAX_REQUESTS):
        if not await _with_crash(limit, applied=applied, before=before):
            assert limit > 5
            return
    raise AssertionError("the worker never got to its end")


async def _with_crash(limit: int, *, applied: bool, before: bool) -> bool:
    app = new_app()
    talk, heard = conversation(app)
    async with site() as place, asyncio.timeout(DEADLINE_SECONDS):
        client = place.app(app)
        handle = await client.start(talk, id=ID)
        if before:
            await _send_all(client)
        connection = place.connection(limit, applied=applied)
        place.worker(app, connection, ttl=0.2, cache=0)
        if not before:
            await _send_all(client)
        crashed = await _until_broken_or_done(place, connection.broken)
        if crashed:
            place.worker(app, ttl=0.2, cache=0)
        assert await handle == EXPECTED
        assert sorted(set(heard)) == sorted(EXPECTED)
        return crashed


async def _send_all(client: kept.App) -> None:
    for number in range(3):
        await client.send(ID, "box", number)


async def _until_broken_or_done(place: Site, broken: asyncio.Event) -> bool:
    async def look() -> bool:
        response = await place.engine.submit(r.PromiseGet(ID))
        assert isinstance(response.data, PromiseResult)
        return broken.is_set() or response.data.promise.settled_at is not None

    await eventually(look)
    return broken.is_set()
