"""Dropping a workflow in the midst of its work: quiet, and without effects."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from kept.sdk.loop import EvictedError
from tests.unit.sdk.loop.world import World


def evicted(workflow: Any, *, releases: int = 0) -> World:
    """A world whose workflow was started and dropped; any warning and any log line on the way fails."""
    world = World()
    world.play(workflow, releases=releases)
    before = list(world.trace)
    tasks = [world.loop.root, *world.loop.open_tasks()]
    coroutines: list[Any] = [task.get_coro() for task in tasks if task is not None]
    world.loop.close()
    assert [coroutine.cr_frame for coroutine in coroutines] == [None] * len(tasks)
    del coroutines, tasks
    gc.collect()
    assert [line for line in world.trace[len(before) :] if line.startswith(NOTHING_OUTSIDE)] == []
    return world


NOTHING_OUTSIDE = ("ask", "arm", "disarm", "abandon")


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> Any:
    """Nothing is logged or printed while a workflow is dropped."""
    yield
    assert caplog.records == []
    assert capsys.readouterr() == ("", "")


def test_cleanup_runs_as_far_as_its_next_await() -> None:
    """`finally:` blocks run, youngest task first, until they ask for something."""

    async def workflow(world: World) -> None:
        async def child() -> None:
            try:
                await world.step()
            finally:
                world.note("child")
                await world.step("never asked")
                world.note("never here")

        task = asyncio.create_task(child())
        try:
            await task
        finally:
            world.note("root")

    assert evicted(workflow).trace == ["ask 0:1 ", "child", "root"]


def test_everything_asked_for_during_eviction_is_refused_with_a_clear_error() -> None:
    """Steps, timers, tasks and futures raise EvictedError, which `except Exception` does not swallow."""

    async def workflow(world: World) -> None:
        async def never() -> None:
            world.note("never here")

        loop = asyncio.get_running_loop()
        requests: list[Any] = [
            lambda: world.step(),
            lambda: loop.call_later(1, print),
            lambda: loop.create_future(),
            lambda: asyncio.create_task(never()),
            lambda: asyncio.ensure_future(never()),
            lambda: world.loop.external("9"),
        ]
        try:
            await world.step()
        finally:
            for request in requests:
                with pytest.raises(EvictedError, match="goes on later"):
                    request()
                world.note("refused")
        assert not issubclass(EvictedError, Exception)

    assert evicted(workflow).trace == ["ask 1 "] + ["refused"] * 6


def test_code_that_tries_again_for_ever_still_ends() -> None:
    """`except Exception: retry` around a step, and `except BaseException` around an await, do not hang."""

    async def workflow(world: World) -> None:
        async def persistent() -> None:
            while True:
                try:
                    await world.step()
                except Exception:  # noqa: BLE001 - the point
                    continue

        async def deaf() -> None:
            for _ in range(20):
                try:
                    await never
                except BaseException:  # noqa: BLE001 - the point
                    continue

        never = asyncio.get_running_loop().create_future()
        await asyncio.gather(persistent(), deaf())

    evicted(workflow)


def test_sleep_zero_in_cleanup_does_not_keep_it_alive() -> None:
    """A bare yield in a finally block is closed in turn."""

    async def workflow(world: World) -> None:
        try:
            await world.step()
        finally:
            while True:  # noqa: ASYNC110 - the point
                await asyncio.sleep(0)

    evicted(workflow)


def test_coroutines_that_never_ran_are_dropped_without_a_warning() -> None:
    """A task not yet started, a coroutine kept for later, and one in a list leave silently."""

    async def workflow(world: World) -> None:
        async def later() -> None:
            world.note("never here")

        kept = later()
        listed = [later() for _ in range(3)]
        await world.step()
        await kept
        await asyncio.gather(*listed)

    evicted(workflow)
    world = World()
    world.loop.start(workflow(world))
    world.loop.close()
    gc.collect()
    assert world.trace == []


def test_a_filter_for_warnings_does_not_stay_behind() -> None:
    """Closing leaves the process's warning filters as they were, other threads' changes included."""

    async def workflow(world: World) -> None:
        try:
            await world.step()
        finally:
            warnings.filterwarnings("ignore", message="from another thread")

    before = list(warnings.filters)
    with warnings.catch_warnings():
        evicted(workflow)
        assert warnings.filters[1:] == before
        assert "another thread" in str(warnings.filters[0])
    assert list(warnings.filters) == before


def test_structured_asyncio_is_evicted_cleanly() -> None:
    """Task groups, timeouts, locks, shields, generators and context managers end where they stand."""

    @asynccontextmanager
    async def resource(world: World) -> AsyncIterator[None]:
        try:
            yield
        finally:
            world.note("resource freed")
            await world.step("never asked")

    @contextmanager
    def local(world: World) -> Any:
        try:
            yield
        finally:
            world.note("local freed")

    async def workflow(world: World) -> None:
        lock = asyncio.Lock()

        async def numbers() -> Any:
            try:
                while True:
                    yield await world.step()
            finally:
                await world.step("never asked")

        async def reads() -> None:
            async for _ in numbers():
                await world.sleep(5)

        async def locked() -> None:
            async with lock, resource(world):
                await asyncio.shield(asyncio.gather(world.step(), world.step()))

        with local(world):
            async with asyncio.timeout(50), asyncio.TaskGroup() as group:
                group.create_task(reads())
                group.create_task(locked())
                group.create_task(locked())
                await asyncio.wait_for(world.step(), 10)

    for releases in range(4):
        world = evicted(workflow, releases=releases)
        assert world.trace.count("resource freed") == 1
        assert world.trace.count("local freed") == 1


def test_failures_in_cleanup_reach_nobody() -> None:
    """What user code raises while it is dropped is not reported, and does not stop the others."""

    async def workflow(world: World) -> None:
        async def bad(error: BaseException) -> None:
            try:
                await world.step()
            finally:
                world.note("cleanup")
                raise error

        await asyncio.gather(
            *(bad(error) for error in (ValueError(), SystemExit(), RuntimeError()))
        )

    world = evicted(workflow)
    assert world.trace.count("cleanup") == 3
    assert world.loop.unhandled == []


def test_closing_twice_and_after_the_end_is_fine() -> None:
    """close is idempotent, and a finished loop may be closed; then it takes nothing more."""

    async def workflow(world: World) -> str:
        return str(await world.step("result"))

    world = World().play(workflow)
    world.loop.close()
    world.loop.close()
    assert world.result() == "result"
    for refused in (world.loop.cancel_root, lambda: world.loop.release("1", 2)):
        with pytest.raises(RuntimeError):
            refused()


def test_an_evicted_loop_is_freed() -> None:
    """Nothing in the process holds on to a dropped workflow."""
    import weakref

    async def workflow(world: World) -> None:
        await asyncio.gather(world.step(), world.sleep(5))

    world = World()
    world.start(workflow)
    world.loop.close()
    loop = weakref.ref(world.loop)
    del world
    gc.collect()
    assert loop() is None
