"""A durable loop runs inside a callback of another loop and leaves that loop as it was."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import sys
from typing import Any

import pytest
import uvloop

from tests.unit.sdk.loop.world import World, last_first

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

FACTORIES: list[Any] = [None]
if hasattr(asyncio, "eager_task_factory"):

    def eagerly(loop: Any, coro: Any, **kwargs: Any) -> Any:
        """asyncio's eager factory, which does not take every argument that uvloop passes."""
        return asyncio.Task(coro, loop=loop, **{**kwargs, "eager_start": True})

    FACTORIES.append(eagerly)

on_every_loop = [
    pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop]),
    pytest.mark.parametrize("factory", FACTORIES),
]


def on_loops(test: Any) -> Any:
    """Runs a test's coroutine on asyncio's loop and uvloop's, with and without eager tasks."""
    for mark in on_every_loop:
        test = mark(test)
    return test


def outer_run(coro: Any, new_loop: Any, factory: Any) -> Any:
    """Runs a coroutine as a task of the outer loop."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.get_loop().set_task_factory(factory)
        return runner.run(coro)


@on_loops
def test_the_outer_loop_and_its_current_task_are_untouched(new_loop: Any, factory: Any) -> None:
    """Before, during and after a run in a task's midst, each loop has its own state and current task."""

    async def workflow(world: World) -> str:
        inner = asyncio.get_running_loop()
        assert inner is world.loop
        assert asyncio.current_task() is world.loop.root
        assert inner.is_running()
        assert asyncio.current_task(world.outer) is world.outer_task  # type: ignore[attr-defined]
        await asyncio.sleep(0)
        return str(await world.step("value"))

    async def outer() -> str:
        world = World()
        world.outer, world.outer_task = asyncio.get_running_loop(), asyncio.current_task()  # type: ignore[attr-defined]
        hooks = sys.get_asyncgen_hooks()
        world.start(workflow)
        for _ in range(2):
            assert asyncio.get_running_loop() is world.outer  # type: ignore[attr-defined]
            assert asyncio.current_task() is world.outer_task  # type: ignore[attr-defined]
            assert sys.get_asyncgen_hooks() == hooks
            assert not world.loop.is_running()
            await asyncio.sleep(0)
        world.release("1")
        world.loop.close()
        assert asyncio.get_running_loop() is world.outer  # type: ignore[attr-defined]
        return str(world.result())

    assert outer_run(outer(), new_loop, factory) == "value"


@on_loops
def test_results_come_in_from_callbacks_and_tasks_of_the_outer_loop(
    new_loop: Any, factory: Any
) -> None:
    """Many workflows interleave on one outer loop, driven by its callbacks and its tasks."""

    async def workflow(world: World) -> Any:
        async def one(number: int) -> Any:
            return await world.step(number)

        first = await asyncio.gather(*(one(number) for number in range(5)))
        return [*first, asyncio.current_task() is world.loop.root]

    async def drive(world: World) -> None:
        loop = asyncio.get_running_loop()
        world.start(workflow)
        while not world.finished:
            turn = loop.create_future()

            def let_in(turn: Any = turn) -> None:
                world.release(world.loop.waiting()[-1])
                turn.set_result(None)

            loop.call_soon(let_in)
            await turn

    async def outer() -> list[World]:
        worlds = [World() for _ in range(20)]
        await asyncio.gather(*(drive(world) for world in worlds))
        return worlds

    for world in outer_run(outer(), new_loop, factory):
        assert world.result() == [0, 1, 2, 3, 4, True]


@on_loops
def test_outside_is_the_outer_loop_for_as_long_as_it_takes(new_loop: Any, factory: Any) -> None:
    """A worker's code called in the midst of a run starts its tasks on its own loop, eager ones too."""

    async def real_work(done: asyncio.Event) -> None:
        assert asyncio.get_running_loop() is done.loop  # type: ignore[attr-defined]
        assert variable.get() == "worker"
        done.set()

    async def workflow(world: World) -> Any:
        variable.set("workflow")
        loop = world.loop
        task = loop.outside(asyncio.create_task, real_work(world.done))  # type: ignore[attr-defined]
        nested = loop.outside(loop.outside, asyncio.get_running_loop)
        assert asyncio.get_running_loop() is loop
        assert asyncio.current_task() is loop.root
        assert variable.get() == "workflow"
        with pytest.raises(ZeroDivisionError):
            loop.outside(lambda: 1 / 0)
        assert asyncio.get_running_loop() is loop
        return task, nested

    async def outer() -> None:
        variable.set("worker")
        world = World()
        world.done = asyncio.Event()  # type: ignore[attr-defined]
        world.done.loop = asyncio.get_running_loop()  # type: ignore[attr-defined]
        task, nested = world.play(workflow).result()
        await world.done.wait()  # type: ignore[attr-defined]
        await task
        assert nested is asyncio.get_running_loop()
        assert world.loop.outside(asyncio.get_running_loop) is nested

    outer_run(outer(), new_loop, factory)


def test_the_host_is_called_outside() -> None:
    """arm, disarm and on_cancel run on the worker's loop and in its context."""
    seen: list[Any] = []

    class Watching(World):
        def arm(self, timer_id: str, when: float, handle: Any) -> None:
            seen.append((asyncio._get_running_loop(), variable.get(None)))
            super().arm(timer_id, when, handle)

        def disarm(self, timer_id: str) -> None:
            seen.append((asyncio._get_running_loop(), variable.get(None)))
            super().disarm(timer_id)

    async def workflow(world: World) -> None:
        variable.set("workflow")
        loop = world.loop
        future = loop.external(
            loop.next_step(),
            on_cancel=lambda _: seen.append((asyncio._get_running_loop(), variable.get(None))),
        )
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await future
        async with asyncio.timeout(1):
            await asyncio.sleep(0)

    async def outer() -> None:
        variable.set("worker")
        Watching(last_first).play(workflow).result()
        assert seen == [(asyncio.get_running_loop(), "worker")] * 4

    asyncio.run(outer())


def test_context_variables_are_kept_apart() -> None:
    """A workflow starts with none of the worker's variables, branches inherit, nobody writes to another's."""

    async def workflow(world: World) -> Any:
        before = variable.get("none")
        variable.set("root")

        async def child(label: str) -> Any:
            inherited = variable.get()
            variable.set(label)
            await world.step(label)
            return inherited, variable.get()

        children = await asyncio.gather(child("a"), child("b"))
        return before, children, variable.get()

    async def outer() -> None:
        variable.set("worker")
        world = World().play(workflow)
        assert world.result() == ("none", [("root", "a"), ("root", "b")], "root")
        assert variable.get() == "worker"

    asyncio.run(outer())


def test_the_owner_may_give_the_root_a_context() -> None:
    """start(context=…) is where the code's variables come from, and where it writes them."""

    async def workflow() -> str:
        value = variable.get()
        variable.set("changed")
        return value

    context = contextvars.copy_context()
    context.run(variable.set, "given")
    world = World()
    root = world.loop.start(workflow(), context=context)
    world.loop.run_ready()
    assert root.result() == "given"
    assert context[variable] == "changed"


def test_one_durable_loop_runs_within_another() -> None:
    """A loop run from within another's code is like any inner loop."""

    async def inner(world: World) -> Any:
        assert asyncio.get_running_loop() is world.loop
        return await world.step("inner")

    async def outer(world: World) -> Any:
        result = World().play(inner).result()
        assert asyncio.get_running_loop() is world.loop
        assert asyncio.current_task() is world.loop.root
        return result, await world.step("outer")

    assert World().play(outer).result() == ("inner", "outer")


def test_an_outer_generator_stays_the_outer_loops() -> None:
    """A generator that began on the worker's loop is closed there, even when dropped during a run."""
    closed: list[Any] = []

    async def numbers() -> Any:
        try:
            yield 1
        finally:
            closed.append(asyncio.get_running_loop())

    async def workflow(world: World) -> None:
        world.generator = None  # type: ignore[attr-defined]
        await world.step()

    async def outer() -> None:
        world = World()
        world.generator = numbers()  # type: ignore[attr-defined]
        await anext(world.generator)  # type: ignore[attr-defined]
        world.play(workflow)
        while not closed:  # noqa: ASYNC110 - nothing says when a generator is closed
            await asyncio.sleep(0)
        assert closed == [asyncio.get_running_loop()]

    asyncio.run(outer())


def test_a_generator_dropped_between_runs_is_closed_in_the_next() -> None:
    """Whenever the collector comes, the cleanup runs within a run of the loop, in the generator's branch."""
    held: list[Any] = []

    async def workflow(world: World) -> None:
        async def numbers() -> Any:
            variable.set("generator's")
            try:
                yield 1
            finally:
                await world.step(variable.get())

        variable.set("root's")
        generator = numbers()
        held.append(generator)
        await anext(generator)
        del generator
        await world.step("root")
        await world.step("again")

    world = World()
    world.start(workflow)
    held.clear()
    assert world.loop.idle
    world.release("1")
    assert world.labels()["root's"] == "0:1"
    assert [wait.branch for wait in world.loop.blocked()] == ["", "0"]
    while not world.finished:
        world.release(world.loop.waiting()[0])


def test_when_a_generator_is_collected_does_not_shift_the_order_of_others() -> None:
    """One dropped within a cycle is closed sooner or later; other tasks and futures hash the same."""

    async def workflow(world: World, *, collected_early: bool) -> Any:
        async def numbers() -> Any:
            try:
                yield 1
            finally:
                world.note("closed")

        cycle: list[Any] = [numbers()]
        cycle.append(cycle)
        await anext(cycle[0])
        del cycle
        if collected_early:
            gc.collect()
        await world.step()
        task = asyncio.create_task(world.sleep(0))
        await task
        return hash(task), task.get_name(), hash(asyncio.get_running_loop().create_future())

    gc.disable()
    try:
        early = World().play(functools.partial(workflow, collected_early=True))
        late = World().play(functools.partial(workflow, collected_early=False))
    finally:
        gc.enable()
    assert early.trace == ["ask 1 ", "closed", "release 1"]
    assert late.trace == ["ask 1 ", "release 1"]
    assert early.result() == late.result()
    late.loop.close()
    gc.collect()
    assert late.trace == ["ask 1 ", "release 1"]
