"""Durable functions whose branches meet: groups, locks, queues, cancellation, all of asyncio's own."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any, Final

from kept.errors import PromiseRejectedError
from kept.sdk.app import App
from kept.sdk.context import Context
from kept.sdk.functions import Function
from kept.sim.programs.program import Drawn, Program
from kept.sim.programs.steps import Steps

LONG_SECONDS: Final = 300.0


def register(app: App, steps: Steps) -> list[Function[..., Any]]:
    """The functions of this theme."""
    return [*_together(app, steps), *_canceling(app, steps)]


def _together(app: App, steps: Steps) -> list[Function[..., Any]]:
    step = steps.step

    @app.function
    async def group(ctx: Context, width: int) -> int:
        async def branch(number: int) -> int:
            await ctx.sleep(0.1 * number)
            done: int = await ctx.run(step, f"{ctx.id}/{number}")
            return done

        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(branch(number)) for number in range(width)]
        return sum(task.result() for task in running)

    @app.function
    async def locked(ctx: Context, width: int) -> int:
        """A counter that two could spoil; at most two others at one time."""
        lock, slots = asyncio.Lock(), asyncio.Semaphore(2)
        counter = inside = most = 0

        async def branch(number: int) -> None:
            nonlocal counter, inside, most
            async with slots:
                inside += 1
                most = max(most, inside)
                await ctx.run(step, f"{ctx.id}/slot/{number}")
                inside -= 1
            async with lock:
                before = counter
                await ctx.run(step, f"{ctx.id}/lock/{number}")
                counter = before + 1

        await asyncio.gather(*map(branch, range(width)))
        return counter if most <= 2 else -most

    @app.function
    async def piped(ctx: Context, count: int) -> list[int]:
        """A producer and two consumers on a queue, which an event ends."""
        queue: asyncio.Queue[int | None] = asyncio.Queue(maxsize=2)
        seen: list[int] = []

        async def consume() -> None:
            while (number := await queue.get()) is not None:
                await ctx.run(step, f"{ctx.id}/{number}")
                seen.append(number)

        consumers = [asyncio.ensure_future(consume()) for _ in range(2)]
        for number in range(count):
            await ctx.sleep(0.05)
            await queue.put(number)
        for _ in consumers:
            await queue.put(None)
        await asyncio.gather(*consumers)
        return sorted(seen)

    return [group, locked, piped]


def _canceling(app: App, steps: Steps) -> list[Function[..., Any]]:
    step = steps.step

    async def failing_step(key: str) -> int:
        await steps.take_time()
        raise ValueError(key)

    @app.function
    async def failing_group(ctx: Context, width: int) -> str:
        """One branch fails; the others are cancelled and clean up, by a step."""
        cleaned = 0

        async def patient(number: int) -> None:
            nonlocal cleaned
            try:
                await ctx.sleep(LONG_SECONDS)
            except asyncio.CancelledError:
                done: int = await ctx.run(step, f"{ctx.id}/cleaned/{number}")
                cleaned += done
                raise

        try:
            async with asyncio.TaskGroup() as tasks:
                for number in range(width):
                    tasks.create_task(patient(number))
                await ctx.run(failing_step, ctx.id)
        except* PromiseRejectedError as errors:
            first = errors.exceptions[0]
            assert isinstance(first, PromiseRejectedError)
            text = f"{first.type} {cleaned}"
        return text

    @app.function
    async def canceler(ctx: Context, seconds: float) -> str:
        """Cancels a branch that waits, one that works, and one that has not begun."""

        async def branch(name: str) -> None:
            try:
                await ctx.sleep(LONG_SECONDS)
            except asyncio.CancelledError:
                await ctx.run(step, f"{ctx.id}/{name} stops")
                raise

        waiting = asyncio.create_task(branch("first"))
        stepping = asyncio.ensure_future(ctx.run(steps.echo, "slow"))
        await ctx.sleep(seconds)
        late = asyncio.create_task(branch("late"))
        for task in (waiting, stepping, late):
            task.cancel()
        outcomes = await asyncio.gather(waiting, stepping, late, return_exceptions=True)
        kinds = ["slow" if each == "slow" else type(each).__name__ for each in outcomes]
        await ctx.run(step, f"{ctx.id}/{kinds[1]}")
        return f"{kinds[0]} {kinds[2]}"

    return [failing_group, canceler]


def _group(random: Random) -> Program:
    width = random.randint(1, 6)
    return Program("group", (width,), (width,), effects=tuple(map(str, range(width))))


def _locked(random: Random) -> Program:
    width = random.randint(2, 4)
    return Program("locked", (width,), (width,))


def _piped(random: Random) -> Program:
    count = random.randint(1, 6)
    return Program("piped", (count,), (list(range(count)),))


def _failing_group(random: Random) -> Program:
    width = random.randint(1, 3)
    effects = tuple(f"cleaned/{number}" for number in range(width))
    return Program("failing_group", (width,), (f"ValueError {width}",), effects=effects)


def _canceler(random: Random) -> Program:
    results = ("CancelledError CancelledError",)
    return Program("canceler", (random.choice((0.1, 1.0)),), results, effects=("first stops",))


CHOICES: Final[tuple[Drawn, ...]] = (_group, _locked, _piped, _failing_group, _canceler)
