"""What the loop promises to its owner: one thing at a time, to quiescence, and a word about what hangs."""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import Any

import pytest

from kept.sdk.loop import NoProgressError
from tests.unit.sdk.loop.world import World

THIS_FILE = __file__


async def two_steps(world: World) -> Any:
    """One step after the other."""
    return [await world.step("a"), await world.step("b")]


def test_nothing_runs_before_run_ready() -> None:
    """start only makes the root task; run_ready says how many callbacks ran."""
    world = World()
    root = world.loop.start(two_steps(world))
    assert (world.trace, world.loop.idle, root.branch) == ([], False, "")
    assert world.loop.run_ready() == 1
    assert (world.loop.waiting(), world.loop.idle) == (["1"], True)
    assert world.loop.run_ready() == 0
    world.loop.close()


def test_results_come_in_one_at_a_time() -> None:
    """A second release before run_ready is refused, and so is release within a run."""

    async def workflow(world: World) -> None:
        with pytest.raises(RuntimeError, match="one thing at a time"):
            world.loop.release("1", None)
        with pytest.raises(RuntimeError, match="running"):
            world.loop.run_ready()
        with pytest.raises(RuntimeError, match="running"):
            world.loop.close()
        first, second = world.step("a"), world.step("b")
        await asyncio.gather(first, second)

    world = World()
    world.start(workflow)
    assert world.loop.release("1", "a")
    for refused in (world.loop.release, world.loop.release_error):
        with pytest.raises(RuntimeError, match="one thing at a time"):
            refused("2", ValueError())
    with pytest.raises(RuntimeError, match="one thing at a time"):
        world.loop.fire("2")
    with pytest.raises(RuntimeError, match="one thing at a time"):
        world.loop.cancel_root()
    world.loop.run_ready()
    assert world.loop.release("2", "b")
    world.loop.run_ready()
    assert world.finished


def test_a_result_nobody_waits_for_is_refused_quietly() -> None:
    """release tells the owner when a step was never asked for, was cancelled, or is settled already."""

    async def workflow(world: World) -> Any:
        task = asyncio.ensure_future(world.step("a"))
        task.cancel()
        await world.step("b")

    world = World()
    world.start(workflow)
    assert world.loop.release("1", "too late") is False
    assert world.loop.release_error("7", ValueError()) is False
    assert world.loop.release("2", None) is True
    assert world.loop.run_ready() > 0


def test_a_step_waits_under_one_name_only() -> None:
    """Two futures for one step are an error of the owner."""

    async def workflow(world: World) -> None:
        name = world.loop.next_step()
        future = world.loop.external(name)
        with pytest.raises(RuntimeError, match="already"):
            world.loop.external(name)
        future.cancel()

    World().play(workflow)


def test_a_loop_runs_one_workflow_once() -> None:
    """A second start is refused, and names need a root."""
    world = World()
    with pytest.raises(RuntimeError, match="start"):
        world.loop.next_step()
    world.play(two_steps)
    second = two_steps(world)
    with pytest.raises(RuntimeError, match="once"):
        world.loop.start(second)
    second.close()


def test_open_tasks_outlive_the_root() -> None:
    """Work that the root left open is listed, goes on, and ends."""

    async def workflow(world: World) -> str:
        async def background() -> None:
            await world.step("background")

        world.background = asyncio.create_task(background())  # type: ignore[attr-defined]
        return "done"

    world = World()
    world.start(workflow)
    assert world.result() == "done"
    assert [task.branch for task in world.loop.open_tasks()] == ["0"]
    assert not world.finished
    world.release("0:1")
    assert world.finished


def test_tasks_that_nobody_holds_are_not_collected() -> None:
    """The loop keeps its tasks: one that only waits for itself does not vanish in the garbage collector."""

    async def workflow(world: World) -> None:
        async def waits() -> None:
            own = asyncio.get_running_loop().create_future()
            await asyncio.gather(own, world.step())

        asyncio.create_task(waits())  # noqa: RUF006 - the point

    world = World()
    world.start(workflow)
    gc.collect()
    assert len(world.loop.open_tasks()) == 1
    world.loop.close()


def test_cancelling_the_root_cancels_what_it_awaits_and_lets_it_compensate() -> None:
    """CancelledError arrives with its message; cleanup may ask for steps; the root is cancelled."""

    async def workflow(world: World) -> None:
        async def child() -> None:
            try:
                await world.step("child")
            finally:
                world.note("child cleans up")

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(child())
                await world.sleep(60)
        except asyncio.CancelledError as error:
            world.note(f"cancelled: {error}")
            await world.step("compensate")
            raise

    world = World()
    world.start(workflow)
    assert world.loop.cancel_root("operator") is True
    world.loop.run_ready()
    assert world.trace[2:] == [
        "disarm 1",
        "abandon 0:1",
        "child cleans up",
        "cancelled: operator",
        "ask 2 compensate",
    ]
    world.release("2")
    assert world.finished
    assert world.loop.root is not None
    assert world.loop.root.cancelled()
    assert world.loop.cancel_root() is False


def test_cancelling_after_the_root_cancels_what_it_left_open() -> None:
    """When the root is done, cancel_root means its open tasks, in order of creation."""

    async def workflow(world: World) -> None:
        async def background(label: str) -> None:
            try:
                await world.step(label)
            finally:
                world.note(f"end {label}")

        for label in "ab":
            asyncio.create_task(background(label))  # noqa: RUF006 - the loop keeps it

    world = World()
    world.start(workflow)
    assert world.loop.cancel_root() is True
    world.loop.run_ready()
    assert world.trace[-2:] == ["end a", "end b"]
    assert world.finished


def test_a_deadlock_is_reported_with_the_lines_that_wait() -> None:
    """Tasks that wait for each other only are a deadlock; the error names branch, line and reason."""

    async def workflow(world: World) -> None:
        lock = asyncio.Lock()

        async def takes() -> None:
            async with lock:
                await lock.acquire()

        await world.step()
        task = asyncio.create_task(takes())
        await task

    world = World()
    assert world.loop.deadlock() is None
    world.start(workflow)
    assert world.loop.deadlock() is None
    world.release("1")
    error = world.loop.deadlock()
    assert error is not None
    assert error.code == "deadlock"
    first, root, child = str(error).splitlines()
    assert "nothing that can still happen" in first
    assert f"branch root at {THIS_FILE}:" in root
    assert root.endswith("workflow: branch 0")
    assert child.endswith("takes: a future that other code of the workflow settles")
    assert [wait.branch for wait in world.loop.blocked()] == ["", "0"]
    world.loop.close()
    assert world.loop.deadlock() is None


def test_a_deadlock_of_very_many_tasks_stays_readable() -> None:
    """The error shows the first ten and counts the rest."""

    async def workflow(world: World) -> None:
        await asyncio.gather(*(asyncio.Event().wait() for _ in range(500)))

    world = World()
    world.start(workflow)
    lines = str(world.loop.deadlock()).splitlines()
    assert len(lines) == 12
    assert lines[-1].strip() == "and 491 more"
    world.loop.close()


def test_what_a_branch_waits_for_is_told() -> None:
    """blocked() tells a step from a branch, with the user's innermost line."""

    async def workflow(world: World) -> None:
        async def inner() -> None:
            await world.step()

        async def outer() -> None:
            await inner()

        await asyncio.create_task(outer())

    world = World()
    world.start(workflow)
    root, child = world.loop.blocked()
    assert (root.waits_for, child.waits_for) == ("branch 0", "step 0:1")
    assert child.line.startswith(THIS_FILE)
    assert child.line.endswith("inner")
    world.loop.close()


def test_a_loop_that_never_waits_is_stopped() -> None:
    """Polling with sleep(0) ends in an error that names the line and says what to do."""

    async def workflow(world: World) -> None:
        while True:  # noqa: ASYNC110 - the point
            await asyncio.sleep(0)

    world = World(max_callbacks=1_000)
    with pytest.raises(
        NoProgressError, match=r"workflow: 1,000 callbacks .* does not wait"
    ) as caught:
        world.start(workflow)
    assert THIS_FILE in str(caught.value)
    assert asyncio._get_running_loop() is None
    world.loop.close()


def test_callbacks_that_call_themselves_are_stopped_too() -> None:
    """The bound holds outside of tasks, and exactly the bound is allowed."""

    async def workflow(world: World) -> None:
        loop = asyncio.get_running_loop()

        def again() -> None:
            loop.call_soon(again)

        again()

    world = World(max_callbacks=50)
    with pytest.raises(NoProgressError, match="again: 50 callbacks") as caught:
        world.start(workflow)
    # Where it is in memory differs from run to run, and errors are stored.
    assert "0x" not in str(caught.value)
    world.loop.close()
    counted = World()
    counted.loop.start(two_steps(counted))
    needed = counted.loop.run_ready()
    counted.loop.close()
    exact = World(max_callbacks=needed)
    exact.start(two_steps)
    exact.loop.close()


def test_failures_nobody_looked_at_are_collected() -> None:
    """A lost exception of a task or a callback is the owner's to report; one that was retrieved is not."""

    async def workflow(world: World) -> None:
        async def fails(text: str) -> None:
            raise ValueError(text)

        def broken() -> None:
            raise KeyError("callback")

        asyncio.create_task(fails("lost"))  # noqa: RUF006 - the point
        kept = asyncio.create_task(fails("seen"))
        asyncio.get_running_loop().call_soon(broken)
        with pytest.raises(ValueError, match="seen"):
            await kept
        lost = asyncio.get_running_loop().create_future()
        lost.set_exception(ValueError("dropped"))
        del lost

    world = World().play(workflow)
    found = {(str(item.error), item.branch) for item in world.loop.unhandled}
    assert found == {("lost", "0"), ("'callback'", None), ("dropped", None)}
    world.loop.close()
    assert len(world.loop.unhandled) == 3


def test_a_failure_seen_later_is_no_longer_unhandled() -> None:
    """Whether an exception counts is decided when the owner asks, not when the task ends."""

    async def workflow(world: World) -> None:
        async def fails() -> None:
            raise ValueError("late")

        task = asyncio.create_task(fails())
        await world.step()
        with pytest.raises(ValueError, match="late"):
            await task

    world = World()
    world.start(workflow)
    assert len(world.loop.unhandled) == 1
    world.release("1")
    assert world.result() is None
    assert world.loop.unhandled == []


def test_a_failure_the_owner_looked_at_is_no_longer_unhandled() -> None:
    """The owner, too, may look at an open task's exception, without another run."""

    async def workflow(world: World) -> None:
        async def fails() -> None:
            await world.step("", ValueError("no"))

        asyncio.create_task(fails())  # noqa: RUF006 - the loop keeps it
        await world.step()

    world = World()
    world.start(workflow)
    (task,) = world.loop.open_tasks()
    world.release("0:1")
    assert len(world.loop.unhandled) == 1
    assert isinstance(task.exception(), ValueError)
    assert world.loop.unhandled == []
    world.loop.close()


def test_reports_are_bounded() -> None:
    """A million lost failures do not fill the memory: the first hundred are kept."""

    async def workflow(world: World) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(500):
            loop.default_exception_handler({"message": "again"})

    assert len(World().play(workflow).loop.unhandled) == 100


def test_sys_exit_fails_the_workflow_and_not_the_worker() -> None:
    """SystemExit in a task is its exception; in a callback it is reported."""

    async def workflow(world: World) -> None:
        asyncio.get_running_loop().call_soon(sys.exit, 1)
        await world.step()
        sys.exit(2)

    world = World().play(workflow)
    assert [type(item.error) for item in world.loop.unhandled] == [SystemExit]
    with pytest.raises(SystemExit, match="2"):
        world.result()


def test_a_keyboard_interrupt_passes_through() -> None:
    """Ctrl-C during a run reaches the worker, whose own loop is the running one again."""

    async def workflow(world: World) -> None:
        raise KeyboardInterrupt

    world = World()
    with pytest.raises(KeyboardInterrupt):
        world.start(workflow)
    assert asyncio._get_running_loop() is None
    world.loop.close()


def test_a_hundred_workflows_do_not_meet_in_asyncios_registry() -> None:
    """Tasks of many loops hash alike and stay cheap: asyncio's process-wide registry does not hold them."""
    worlds = [World() for _ in range(100)]
    for world in worlds:
        world.start(two_steps)
    assert [asyncio.all_tasks(world.loop) for world in worlds] == [set()] * 100
    for world in worlds:
        world.loop.close()


def test_what_is_waited_for_can_be_asked_by_name() -> None:
    """waits_for tells of steps and timers; one that the code settled by itself is no longer waited for."""

    async def workflow(world: World) -> None:
        mine = world.loop.external(world.loop.next_step())
        sleeper = asyncio.create_task(world.sleep(5))
        await world.step()
        mine.set_result("by hand")
        await sleeper

    world = World()
    world.start(workflow)
    names = ["1", "2", "3", "0:1"]
    assert [name for name in names if world.loop.waits_for(name)] == ["1", "2", "0:1"]
    assert world.loop.waiting() == ["1", "2", "0:1"]
    world.release("2")
    assert world.loop.waiting() == ["0:1"]
    assert world.loop.release("1", "too late") is False
    world.release("0:1")
    assert world.finished


def test_the_loop_works_in_asyncios_debug_mode() -> None:
    """Debug mode is a setting of the loop like any other, and changes nothing but the tracebacks."""
    world = World()
    loop = world.loop
    assert (loop.get_debug(), loop.is_running(), loop.is_closed()) == (False, False, False)
    loop.set_debug(True)
    assert loop.get_debug()
    assert loop.get_exception_handler() is None
    assert loop.get_task_factory() is None
    assert world.play(two_steps).result() == ["a", "b"]
    loop.close()
    assert loop.is_closed()
    with pytest.raises(RuntimeError, match="closed"):
        loop.run_ready()
