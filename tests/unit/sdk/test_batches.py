"""`@app.batched`: what many ask for one by one is done together, each with a result of its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import kept
from kept.sdk.batches import Motion, each_of
from tests.unit.sdk.site import DEADLINE_SECONDS, site

WIDTH = 40


async def test_what_comes_together_is_done_together() -> None:
    """Of one workflow, of several, and of jobs; each gets its own result, which is recorded."""
    app = kept.App("memory://", worker=False)
    batches: list[list[int]] = []

    @app.batched(max_wait=5)
    async def double(numbers: list[int]) -> list[int]:
        batches.append(numbers)
        return [number * 2 for number in numbers]

    @app.function
    async def flow(ctx: kept.Context, first: int) -> list[int]:
        asked = (ctx.run(double, number) for number in range(first, first + WIDTH))
        return list(await asyncio.gather(*asked))

    async with site() as place, asyncio.timeout(DEADLINE_SECONDS):
        place.worker(app, concurrency=100)
        ours = place.app(app)
        flows = await ours.start_many(flow, [(0,), (1_000,)])
        assert await flows[0] == [number * 2 for number in range(WIDTH)]
        assert await flows[1] == [number * 2 for number in range(1_000, 1_000 + WIDTH)]
        assert sum(map(len, batches)) == 2 * WIDTH
        # Without batches it would be as many as there are items.
        assert len(batches) <= 6
        batches.clear()
        jobs = await ours.start_many(double, [(number,) for number in range(WIDTH)])
        assert [await job for job in jobs] == [number * 2 for number in range(WIDTH)]
        assert len(batches) < WIDTH / 2
        assert await (await ours.enqueue("double", args={"item": 4})) == 8
    assert double.schema["parameters"] == [{"name": "item", "type": "int", "required": True}]
    assert await double(5) == 10


async def test_a_batch_has_a_size() -> None:
    """The others come in the next one."""
    app = kept.App("memory://", worker=False)
    sizes: list[int] = []

    @app.batched(max_size=7, max_wait=5)
    def count(items: list[str]) -> str:
        sizes.append(len(items))
        return "one for all"

    @app.function
    async def flow(ctx: kept.Context) -> set[str]:
        return set(await asyncio.gather(*(ctx.run(count, str(n)) for n in range(17))))

    async with site() as place, asyncio.timeout(DEADLINE_SECONDS):
        place.worker(app)
        assert await place.app(app).run(flow) == {"one for all"}
    assert sizes == [7, 7, 3]


async def test_items_fail_by_themselves() -> None:
    """An exception in the list is the failure of its item, which is tried again by itself; one that is
    raised is the failure of all."""
    app = kept.App("memory://", worker=False)
    seen: list[list[int]] = []

    @app.batched(retry=kept.Constant(attempts=2, delay=0))
    async def picky(numbers: list[int]) -> list[Any]:
        seen.append(numbers)
        return [ValueError(f"not {number}") if number % 2 else number for number in numbers]

    @app.batched
    async def broken(numbers: list[int]) -> None:
        raise LookupError("all of them")

    @app.batched
    async def short(numbers: list[int]) -> list[int]:
        return [1, 2, 3]

    @app.function
    async def flow(ctx: kept.Context) -> list[str]:
        asked = [ctx.run(picky, 1), ctx.run(picky, 2), ctx.run(broken, 3), ctx.run(short, 4)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        return [str(each).partition("(")[0] for each in found]

    async with site() as place, asyncio.timeout(DEADLINE_SECONDS):
        place.worker(app)
        first, second, third, fourth = await place.app(app).run(flow)
    assert "ValueError: not 1" in first
    assert second == "2"
    assert "LookupError: all of them" in third
    assert "3 results for 1 items" in fourth
    assert seen == [[1, 2], [1]]


async def test_a_batch_waits_for_others_only_so_long() -> None:
    """Where something else goes on all the while, an item begins after its time."""
    app = kept.App("memory://", worker=False)
    over = asyncio.Event()

    @app.batched(max_wait=0.01)
    async def item(items: list[int]) -> list[int]:
        return items

    @app.function
    async def busy() -> None:
        await over.wait()

    @app.function
    async def flow(ctx: kept.Context) -> int:
        waiting = ctx.run(busy)
        found = await ctx.run(item, 1)
        await ctx.run(over.set)
        await waiting
        return found

    async with site() as place, asyncio.timeout(DEADLINE_SECONDS):
        place.worker(app)
        assert await place.app(app).run(flow) == 1


async def test_a_cancelled_item_is_left_out() -> None:
    """The others of its batch have their results."""
    app = kept.App("memory://", worker=False)

    @app.batched
    async def item(items: list[int]) -> list[int]:
        return items

    @app.function
    async def flow(ctx: kept.Context) -> list[int]:
        asked = [asyncio.ensure_future(ctx.run(item, number)) for number in range(3)]
        asked[1].cancel()
        found = await asyncio.gather(*asked, return_exceptions=True)
        return [each for each in found if isinstance(each, int)]

    async with site() as place, asyncio.timeout(DEADLINE_SECONDS):
        place.worker(app)
        assert await place.app(app).run(flow) == [0, 2]


def test_what_cannot_be() -> None:
    """Sizes and waits that are none."""
    app = kept.App("memory://")
    with pytest.raises(kept.InvalidArgumentsError, match="max_size"):
        app.batched(max_size=0)
    with pytest.raises(kept.InvalidArgumentsError, match="max_wait"):
        app.batched(max_wait=-1)
    with pytest.raises(ValueError, match="2 results for 3 items"):
        each_of([1, 2], 3)


async def test_rest_is_told_once_it_lasts() -> None:
    """Not while something begins in the same turn of the loop."""
    motion, told = Motion(), []
    motion.on_rest = lambda: told.append(motion.rests)
    with motion.working():
        pass
    with motion.working():
        await asyncio.sleep(0)
        assert told == []
        with motion.waiting():
            await asyncio.sleep(0)
            assert told == [True]
    await asyncio.sleep(0)
    assert told == [True, True]
