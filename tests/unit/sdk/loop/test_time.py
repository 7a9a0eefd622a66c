"""Logical time and durable timers."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from tests.unit.sdk.loop.world import START, World, run


def test_sleep_is_a_durable_timer_and_time_moves_only_by_release() -> None:
    """sleep arms a timer under the branch's next name; loop.time() is the host's, and stands still."""

    async def workflow(world: World) -> Any:
        loop = asyncio.get_running_loop()
        await world.step("before")
        times = [loop.time(), loop.time()]
        await world.sleep(90.5)
        return [time - START for time in [*times, loop.time()]]

    world = World().play(workflow)
    assert world.result() == [0, 0, 90.5]
    assert world.trace == ["ask 1 before", "release 1", "arm 2 90.5", "release 2"]


def test_sleep_zero_only_yields() -> None:
    """sleep(0) lets other tasks run and arms nothing."""

    async def workflow(world: World) -> Any:
        seen: list[str] = []

        async def one(label: str) -> None:
            for _ in range(2):
                seen.append(label)
                await asyncio.sleep(0)

        await asyncio.gather(one("a"), one("b"))
        return seen

    world = World().play(workflow)
    assert world.result() == ["a", "b", "a", "b"]
    assert world.trace == []


def test_a_cancelled_sleep_is_disarmed() -> None:
    """Nobody wakes for a timer that the code no longer waits for, and firing it late does nothing."""

    async def workflow(world: World) -> None:
        sleeper = asyncio.create_task(world.sleep(10))
        await world.step()
        sleeper.cancel()

    world = World()
    world.start(workflow)
    (timer,) = world.loop.timers()
    assert (timer.timer_id, timer.when()) == ("0:1", START + 10)
    world.release("1")
    assert world.trace[-1] == "disarm 0:1"
    assert world.loop.fire("0:1") is False
    assert world.finished


def test_a_timer_already_due_runs_at_once_and_still_takes_a_name() -> None:
    """Names do not depend on the clock: a timer in the past counts like one in the future."""

    async def workflow(world: World) -> Any:
        loop = asyncio.get_running_loop()
        past, due = asyncio.Event(), asyncio.Event()
        loop.call_at(loop.time() - 5, past.set)
        loop.call_later(0, due.set)
        await past.wait()
        await due.wait()
        return await world.step("third")

    world = World().play(workflow)
    assert world.labels() == {"third": "3"}
    assert world.armed == {}


def test_a_timer_for_ever_is_armed_as_such() -> None:
    """sleep(inf) waits until cancelled; it is no deadlock. NaN is an error at once."""

    async def workflow(world: World) -> None:
        with pytest.raises(ValueError, match="NaN"):
            asyncio.get_running_loop().call_later(math.nan, print)
        await asyncio.sleep(math.inf)

    world = World()
    world.start(workflow)
    assert world.armed == {"1": math.inf}
    assert world.loop.deadlock() is None
    world.loop.close()


def test_timers_fire_in_the_order_of_release_not_of_their_instants() -> None:
    """The owner's order is the truth, whatever the instants say."""

    async def workflow(world: World) -> Any:
        seen: list[int] = []

        async def one(seconds: int) -> None:
            await asyncio.sleep(seconds)
            seen.append(seconds)

        await asyncio.gather(one(1), one(2), one(3))
        return seen

    world = World()
    world.start(workflow)
    for name in ("2:1", "0:1", "1:1"):
        world.release(name)
    assert world.result() == [3, 1, 2]
    assert world.clock == START + 3


def test_what_the_host_raises_while_arming_reaches_the_code() -> None:
    """A host that refuses a timer fails the call that asked for it."""

    class Refusing(World):
        def arm(self, timer_id: str, when: float, handle: asyncio.TimerHandle) -> None:
            raise LookupError(timer_id)

    async def workflow(world: World) -> None:
        with pytest.raises(LookupError, match="1"):
            await world.sleep(1)

    assert Refusing().play(workflow).loop.timers() == []


def test_timers_of_callbacks_count_as_the_roots() -> None:
    """call_later from within a callback works: it runs in no task, and takes the root's next name."""

    async def workflow(world: World) -> Any:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        loop.call_later(1, lambda: loop.call_later(1, done.set_result, "later"))
        return await done

    world = World().play(workflow)
    assert world.trace == ["arm 1 1", "release 1", "arm 2 2", "release 2"]
    assert run(workflow) == "later"
