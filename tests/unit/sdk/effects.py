"""Workflows of every kind of asyncio code, whose effects on the world are counted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import kept
from tests.unit.sdk.site import RUNTIME

Body = Callable[[kept.Context, "World"], Awaitable[Any]]


class World:
    """What steps do to it: how often each began. The functions of one app work on one world."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self.app = kept.App("memory://", worker=False)
        self.effect = self.app.function(name="effect")(self._effect)
        self.slow = self.app.function(name="slow")(self._slow)
        self.flaky = self.app.function(name="flaky", retry=kept.Constant(attempts=3, delay=0.001))(
            self._flaky
        )
        self.broken = self.app.function(name="broken")(self._broken)

        @self.app.function
        async def job(label: str) -> str:
            self.begun[label] += 1
            return label

        @self.app.function
        async def napper(label: str, seconds: float) -> str:
            await RUNTIME.sleep(seconds)
            return label

        @self.app.function
        async def fib(ctx: kept.Context, n: int) -> int:
            if n < 2:
                return n
            left, right = ctx.call(fib, n - 1), ctx.call(fib, n - 2)
            return await left + await right

        @self.app.function
        async def child(ctx: kept.Context, label: str) -> str:
            first = await ctx.run(self.effect, label + "-1")
            return first + await ctx.run(self.effect, label + "-2")

        @self.app.function
        async def failing(ctx: kept.Context) -> None:
            await ctx.run(self.effect, "before-failure")
            raise LookupError("gone")

        @self.app.batched
        async def batched(labels: list[str]) -> list[str]:
            self.begun.update(labels)
            return labels

        self.batched = batched
        self.job, self.fib, self.child, self.failing = job, fib, child, failing
        self.napper = napper

    async def _effect(self, label: str, seconds: float = 0.0) -> str:
        self.begun[label] += 1
        await RUNTIME.sleep(seconds)
        return label

    async def _slow(self, label: str) -> str:
        self.begun[label] += 1
        await asyncio.Event().wait()
        return "never"

    async def _flaky(self, label: str) -> str:
        self.begun[label] += 1
        if self.begun[label] < 3:
            raise ValueError("not yet")
        return label

    async def _broken(self, label: str) -> str:
        self.begun[label] += 1
        raise ValueError(label)

    def workflow(self, body: Body) -> kept.Function[..., Any]:
        """A durable function with that body."""

        async def workflow(ctx: kept.Context) -> Any:
            return await body(ctx, self)

        return self.app.function(name=body.__name__)(workflow)


async def linear(ctx: kept.Context, world: World) -> Any:
    return [await ctx.run(world.effect, str(i)) for i in range(4)]


async def gathered(ctx: kept.Context, world: World) -> Any:
    results = await asyncio.gather(*(ctx.run(world.effect, f"g{i}") for i in range(5)))
    return [*results, await ctx.run(world.effect, "after")]


async def grouped(ctx: kept.Context, world: World) -> Any:
    found: list[str] = []

    async def branch(name: str) -> None:
        for i in range(3):
            found.append(await ctx.run(world.effect, f"{name}{i}"))

    async with asyncio.TaskGroup() as group:
        for name in "abc":
            group.create_task(branch(name))
    return sorted(found)


async def timed_out(ctx: kept.Context, world: World) -> Any:
    try:
        async with asyncio.timeout(0.05):
            await ctx.run(world.slow, "too slow")
    except TimeoutError:
        late = await ctx.run(world.effect, "compensation")
    async with asyncio.timeout(60):
        return [late, await ctx.run(world.effect, "in time")]


async def raced(ctx: kept.Context, world: World) -> Any:
    async def run(label: str) -> str:
        return await ctx.run(world.effect, label, 0.0 if label == "hare" else 0.02)

    async def nap() -> str:
        await ctx.sleep(0.03)
        return "nap"

    runners = [asyncio.create_task(run("hare")), asyncio.create_task(run("tortoise"))]
    runners.append(asyncio.create_task(nap()))
    done, rest = await asyncio.wait(runners, return_when=asyncio.FIRST_COMPLETED)
    winner = min(task.result() for task in done)
    for task in rest:
        task.cancel()
    await ctx.run(world.effect, f"prize for {winner}")
    return "raced"


async def raced_calls(ctx: kept.Context, world: World) -> Any:
    """The call that is asked for last is done first; the other is done while the prize is given."""

    async def wait_for(label: str, seconds: float) -> str:
        return await ctx.call(world.napper, label, seconds)

    runners = [
        asyncio.create_task(wait_for("tortoise", 0.06)),
        asyncio.create_task(wait_for("hare", 0.0)),
    ]
    done, _ = await asyncio.wait(runners, return_when=asyncio.FIRST_COMPLETED)
    (winner,) = (task.result() for task in done)
    await ctx.run(world.effect, f"prize for {winner}", 0.1)
    return "raced"


async def called(ctx: kept.Context, world: World) -> Any:
    one = ctx.call(world.child, "x")
    two = ctx.call(world.job, "y")
    three = await ctx.run(world.effect, "z")
    return [await one, await two, three]


async def recursive(ctx: kept.Context, world: World) -> Any:
    return await ctx.call(world.fib, 4)


async def retried(ctx: kept.Context, world: World) -> Any:
    return await ctx.run(world.flaky, "flaky")


async def excepted(ctx: kept.Context, world: World) -> Any:
    caught: list[str] = []
    try:
        await ctx.run(world.broken, "broken")
    except kept.PromiseRejectedError as error:
        caught.append(f"{error.type}: {error.message}")
    try:
        await ctx.call(world.failing)
    except kept.PromiseRejectedError as error:
        caught.append(error.type)
    caught.append(await ctx.run(world.effect, "recovered"))
    return caught


async def napping(ctx: kept.Context, world: World) -> Any:
    await ctx.sleep(0.02)
    first = await ctx.run(world.effect, "awake")
    await asyncio.gather(ctx.sleep(0.01), ctx.sleep(0.03))
    return [first, await ctx.run(world.effect, "again")]


async def cancelled_branch(ctx: kept.Context, world: World) -> Any:
    async def branch() -> None:
        try:
            await ctx.run(world.slow, "stopped")
        finally:
            await ctx.run(world.effect, "cleaned up")

    task = asyncio.create_task(branch())
    await ctx.run(world.effect, "meanwhile")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return await ctx.run(world.effect, "end")


async def cancelled_call(ctx: kept.Context, world: World) -> Any:
    waiting = asyncio.ensure_future(ctx.call("nobody.has.this"))
    await ctx.run(world.effect, "first")
    waiting.cancel()
    return await ctx.run(world.effect, "second")


async def left_behind(ctx: kept.Context, world: World) -> Any:
    """Work that nobody awaits is finished before the workflow ends."""
    ctx.run(world.effect, "unawaited", 0.02)
    ctx.call(world.job, "unawaited job")
    return await ctx.run(world.effect, "awaited")


async def consumer(ctx: kept.Context, world: World) -> Any:
    """A branch that waits for ever is cancelled when the rest is done."""
    queue: asyncio.Queue[str] = asyncio.Queue()
    found: list[str] = []

    async def consume() -> None:
        while True:
            found.append(await ctx.run(world.effect, await queue.get()))

    consuming = asyncio.create_task(consume())
    await queue.put("one")
    await ctx.run(world.effect, "other")
    assert not consuming.done()
    return "done"


async def drawing(ctx: kept.Context, world: World) -> Any:
    """What is drawn, and what time it is, is the same in every replay: else a label would differ."""
    draws = ctx.random()
    for number in range(3):
        key = ctx.step_key
        label = f"{draws.random()} {ctx.uuid()} {ctx.now().isoformat()}"
        assert await ctx.run(world.effect, label) == label
        assert key == f"{ctx.id}.{number * 2 + 1}"
        await ctx.sleep(0.001)
    await ctx.sleep_until(ctx.now() + timedelta(milliseconds=1))
    assert draws.choice([ctx.info.root, ctx.info.id]) == ctx.id
    return len({str(ctx.uuid()) for _ in range(9)})


async def detaching(ctx: kept.Context, world: World) -> Any:
    """Work that is let go is there before the code goes on, once, and is not waited for."""
    first, second = ctx.detached(world.job, "free 1"), ctx.detached(world.child, "free 2")
    ids = [await second, await first]
    label = await ctx.run(world.effect, "between")
    last = await ctx.detached("job", "free 3")
    return [label, *(id.removeprefix(ctx.id) for id in (*ids, last))]


async def undoing(ctx: kept.Context, world: World) -> Any:
    """A saga that fails is undone in reverse, here and elsewhere; one that ends well is not."""
    async with ctx.saga() as saga:
        saga.undo(world.effect, "undo kept")
        await ctx.run(world.effect, "kept")
    try:
        async with ctx.saga() as saga:
            saga.undo(world.effect, "undo one")
            await ctx.run(world.effect, "one")
            saga.undo_by_call(world.job, "undo two")
            saga.undo(world.effect, "undo three")
            await ctx.run(world.broken, "two")
    except kept.PromiseRejectedError as error:
        return [error.type, *(label for label in world.begun if label.startswith("undo"))]


async def undoing_in_vain(ctx: kept.Context, world: World) -> Any:
    """A compensation that fails stops no other one, and all of it is told."""
    try:
        async with ctx.saga() as saga:
            saga.undo(world.effect, "undo first")
            saga.undo(world.broken, "undo second")
            raise LookupError("as planned")
    except ExceptionGroup as group:
        return [type(error).__name__ for error in group.exceptions]


async def batching(ctx: kept.Context, world: World) -> Any:
    """Items that are done together are recorded one by one."""
    first = await asyncio.gather(*(ctx.run(world.batched, f"b{number}") for number in range(4)))
    return [*first, await ctx.run(world.batched, "last")]


BODIES: list[Body] = [
    linear,
    gathered,
    grouped,
    timed_out,
    raced,
    raced_calls,
    called,
    recursive,
    retried,
    excepted,
    napping,
    cancelled_branch,
    cancelled_call,
    left_behind,
    consumer,
    drawing,
    detaching,
    undoing,
    undoing_in_vain,
    batching,
]
