"""What starting work says of duplicates, and `app.dead`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import kept
from kept.protocol.entries import LetterFilter


async def test_starts_under_one_dedupe_key_are_one() -> None:
    """The handles are to the same work, in the window after its end too; other arguments are a
    conflict."""
    app = kept.App("memory://")
    ran: list[int] = []

    @app.function
    async def pay(cents: int) -> int:
        ran.append(cents)
        return cents

    async with app:
        first = await app.start(pay, 5, dedupe="event-1", dedupe_window=60)
        assert await first == 5
        second = await app.start(pay, 5, dedupe="event-1", id="another")
        assert second.id == first.id
        assert await second == 5
        by_name = await app.enqueue("pay", args={"cents": 5}, id="third")
        assert by_name.id == "third"
        with pytest.raises(kept.ConflictError, match="event-1"):
            await app.start(pay, 6, dedupe="event-1")
        assert await by_name == 5
    assert ran == [5, 5]


async def test_a_singleton_of_a_function() -> None:
    """As the function says, or as a start says against it."""
    app = kept.App("memory://")
    gate = asyncio.Event()

    @app.function(singleton="return")
    async def sync() -> str:
        await gate.wait()
        return "done"

    async with app:
        first = await app.start(sync)
        assert (await app.start(sync)).id == first.id
        assert (await app.enqueue("sync")).id == first.id
        with pytest.raises(kept.ConflictError, match="under way"):
            await app.start(sync, singleton="skip")
        other = await app.start(sync, singleton=kept.Singleton("skip", "elsewhere"))
        assert other.id != first.id
        newer = await app.start(sync, singleton="replace")
        with pytest.raises(kept.PromiseCanceledError):
            await first
        gate.set()
        assert await newer == "done"


async def test_debounced_starts_become_one() -> None:
    """Replaced: the last arguments win, and who holds an earlier handle is told."""
    app = kept.App("memory://")
    seen: list[str] = []

    @app.function
    async def index(text: str) -> str:
        seen.append(text)
        return text

    async with app:
        said = kept.Debounce("doc", delay=0.1, longest=5, mode="replace")
        first = await app.start(index, "a", debounce=said)
        last = await app.start(index, "b", debounce=said)
        assert await last == "b"
        with pytest.raises(kept.PromiseCanceledError):
            await first
        one = await app.start(index, "c", debounce=kept.Debounce("doc", 0.05))
        two = await app.start(index, "d", debounce=kept.Debounce("doc", 0.1))
        assert one.id == two.id
        assert await two == "c"
    assert seen == ["b", "c"]


@pytest.mark.parametrize(
    "said",
    [
        {"dedupe": ""},
        {"dedupe_window": 1},
        {"dedupe": "k", "dedupe_window": -1},
        {"singleton": "one"},
        {"singleton": kept.Singleton("skip", "")},
        {"debounce": "k"},
        {"debounce": kept.Debounce("k", -1)},
        {"debounce": kept.Debounce("k", 1, mode="bounce")},  # type: ignore[arg-type]
    ],
)
async def test_what_makes_no_sense_is_refused_before_it_is_asked(said: dict[str, Any]) -> None:
    """With the name of the option in the error."""
    app = kept.App("memory://", worker=False)

    @app.function
    async def job() -> None: ...

    async with app:
        with pytest.raises(kept.InvalidArgumentsError, match=r"dedupe|debounce|singleton"):
            await app.start(job, **said)
    if said.get("singleton") == "one":
        with pytest.raises(kept.InvalidArgumentsError, match="skip, replace, return"):
            app.function(singleton="one")(lambda: None)  # type: ignore[call-overload]


async def test_dead_letters_of_an_app() -> None:
    """Listed, read, replayed by id and by filter, purged."""
    app = kept.App("memory://")
    works = False

    @app.function
    async def job(number: int) -> int:
        if not works:
            raise ValueError("not yet")
        return number

    async with app:
        for number in range(3):
            handle = await app.start(job, number, id=f"j{number}")
            with pytest.raises(kept.PromiseRejectedError):
                await handle
        letters = [letter.id async for letter in app.dead.list(reason="exhausted")]
        assert letters == ["j0", "j1", "j2"]
        assert [letter.id async for letter in app.dead.list(prefix="j1")] == ["j1"]
        assert (await app.dead.get("j0")).failures == 1
        works = True
        (replay,) = await app.dead.replay("j0")
        assert replay.replayed_as is not None
        assert await app.handle(replay.replayed_as) == 0
        wanted = LetterFilter(prefix="j")
        assert (await app.dead.replay_where(wanted, dry_run=True)).done == 3
        assert (await app.dead.replay_where(wanted)).done == 3
        assert await app.handle("j2~1") == 2
        assert [purge.status for purge in await app.dead.purge("j0")] == [200]
        assert (await app.dead.purge_where(wanted)).done == 2
        assert [letter async for letter in app.dead.list()] == []
