"""How fast the loop is, in seconds of processor time, which other processes do not lengthen.

The figures are printed; the floors are far below them and catch accidents only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from tests.unit.sdk.loop.world import START, World


class Bare:
    """A host that does nothing."""

    def now(self) -> float:
        return START

    def arm(self, timer_id: str, when: float, handle: asyncio.TimerHandle) -> None: ...

    def disarm(self, timer_id: str) -> None: ...


def best_rate(measure: Callable[[], int]) -> float:
    """Units a second, the best of five."""

    def once() -> float:
        begin = time.process_time()
        units = measure()
        return units / (time.process_time() - begin)

    return max(once() for _ in range(5))


def test_callbacks_per_second() -> None:
    """Tasks that yield to each other: well beyond 300,000 callbacks a second on one core."""

    async def spin() -> None:
        for _ in range(500):
            await asyncio.sleep(0)

    async def workflow(world: World) -> None:
        await asyncio.gather(*(spin() for _ in range(200)))

    def measure() -> int:
        world = World(max_callbacks=1_000_000)
        world.loop.start(workflow(world))
        return world.loop.run_ready()

    rate = best_rate(measure)
    print(f"\n{rate:,.0f} callbacks a second")  # noqa: T201 - read by people, with pytest -s
    assert rate > 100_000


def test_releases_per_second() -> None:
    """One result in, code to quiescence, the next step asked: one step of a workflow."""
    from kept.sdk.loop import DurableLoop

    loop = DurableLoop(Bare())

    async def workflow(steps: int) -> None:
        for _ in range(steps):
            await loop.external(loop.next_step())

    loop.start(workflow(100_001))
    loop.run_ready()
    asked = iter(range(1, 100_001))

    def measure() -> int:
        for _ in range(20_000):
            loop.release(str(next(asked)), None)
            loop.run_ready()
        return 20_000

    rate = best_rate(measure)
    print(f"\n{rate:,.0f} releases a second")  # noqa: T201 - read by people, with pytest -s
    loop.close()
    assert rate > 15_000


def test_a_wide_fan_out_is_linear() -> None:
    """Twenty times the branches take about twenty times as long: nothing walks all tasks for each of them."""

    def cost(branches: int) -> float:
        world = World(max_callbacks=1_000_000)

        async def one() -> None:
            await world.loop.external(world.loop.next_step())

        async def workflow() -> None:
            await asyncio.gather(*(one() for _ in range(branches)))

        begin = time.process_time()
        world.loop.start(workflow())
        world.loop.run_ready()
        for step in world.loop.waiting():
            world.loop.release(step, None)
            world.loop.run_ready()
        spent = time.process_time() - begin
        assert world.finished
        return spent

    small, large = min(cost(1_000) for _ in range(3)), min(cost(20_000) for _ in range(2))
    print(f"\n{large / 20_000 * 1e6:.0f} µs for one of 20,000 branches")  # noqa: T201 - for people
    assert large < small * 20 * 5
