"""Everything that asyncio offers to tasks works on a durable loop, and asks for steps under stable names."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.unit.sdk.loop.world import World, in_order, last_first, run

BOTH_WAYS = pytest.mark.parametrize("choose", [in_order, last_first])


@BOTH_WAYS
def test_gather_keeps_its_order(choose: Any) -> None:
    """gather's results and branches follow its arguments, not the order of completion."""

    async def workflow(world: World) -> Any:
        async def one(label: str) -> Any:
            return await world.step(label)

        return await asyncio.gather(*(one(label) for label in "abc"))

    world = World(choose).play(workflow)
    assert world.result() == ["a", "b", "c"]
    assert world.labels() == {"a": "0:1", "b": "1:1", "c": "2:1"}


def test_gather_returns_exceptions_or_raises_the_first() -> None:
    """A failed step fails gather, or is returned when asked for."""

    async def workflow(world: World) -> Any:
        good, bad = world.step("good"), world.step("bad", ValueError("no"))
        both = await asyncio.gather(good, bad, return_exceptions=True)
        with pytest.raises(KeyError):
            await asyncio.gather(world.step(), world.step("", KeyError("x")))
        return both

    good, bad = run(workflow)
    assert (good, str(bad)) == ("good", "no")


@BOTH_WAYS
def test_a_task_group_cancels_the_others_when_one_fails(choose: Any) -> None:
    """All failures arrive as one group, the survivors are cancelled in order, the cleanup's steps run."""

    async def workflow(world: World) -> Any:
        async def survivor(label: str) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await world.step(f"clean-{label}")

        async def failing() -> None:
            await world.step("fails", ValueError("no"))

        async def three() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(survivor("a"))
                group.create_task(failing())
                group.create_task(survivor("b"))

        with pytest.raises(ExceptionGroup) as caught:
            await three()
        return [type(error) for error in caught.value.exceptions]

    world = World(choose).play(workflow)
    assert world.result() == [ValueError]
    assert world.asked() == ["1:1", "0:1", "2:1"]


@BOTH_WAYS
def test_wait_returns_sets_in_order_of_creation(choose: Any) -> None:
    """The sets that `asyncio.wait` returns iterate in the order in which the tasks were made."""

    async def workflow(world: World) -> Any:
        async def one(label: str) -> Any:
            return await world.step(label)

        tasks = [asyncio.create_task(one(label), name=label) for label in "abcdef"]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        first = [task.get_name() for task in done]
        left = [task.get_name() for task in pending]
        await asyncio.wait(pending)
        return first, left

    first, left = run(workflow, choose)
    assert first == (["a"] if choose is in_order else ["f"])
    assert left == (list("bcdef") if choose is in_order else list("abcde"))


def test_wait_times_out_durably() -> None:
    """`asyncio.wait(timeout=…)` is a durable timer, and leaves the tasks alone."""

    async def workflow(world: World) -> Any:
        task = asyncio.create_task(asyncio.Event().wait())
        done, pending = await asyncio.wait([task], timeout=5)
        task.cancel()
        return len(done), len(pending), asyncio.get_running_loop().time()

    assert run(workflow) == (0, 1, 1_000_005.0)


@BOTH_WAYS
@pytest.mark.parametrize("wrap", [list, tuple, dict.fromkeys])
def test_as_completed_makes_branches_in_the_listed_order(choose: Any, wrap: Any) -> None:
    """Coroutines given to as_completed are branches in the order listed, and yielded as they complete."""

    async def workflow(world: World) -> Any:
        async def one(label: str) -> Any:
            return await world.step(label)

        labels = [f"{number:02}" for number in range(40)]
        return [await next_one for next_one in asyncio.as_completed(wrap(map(one, labels)))]

    world = World(choose).play(workflow)
    expected = [f"{number:02}" for number in range(40)]
    assert world.result() == (expected if choose is in_order else expected[::-1])
    assert world.labels() == {label: f"{int(label)}:1" for label in expected}


def test_as_completed_takes_tasks_futures_and_awaitable_objects_together() -> None:
    """Whatever can be awaited can be listed; coroutines become branches, the rest stays what it is."""

    class Later:
        def __init__(self, world: World) -> None:
            self.world = world

        def __await__(self) -> Any:
            return self.world.step("object").__await__()

    async def workflow(world: World) -> Any:
        async def one() -> Any:
            return await world.step("coroutine")

        same = one()
        listed = [Later(world), world.step("future"), same, asyncio.create_task(one()), same]
        return [await item for item in asyncio.as_completed(listed, timeout=60)]

    world = World().play(workflow)
    assert sorted(world.result()) == ["coroutine", "coroutine", "future", "object"]
    assert world.asked() == ["1", "0:1", "1:1", "2:1"]
    assert world.armed == {}


def test_as_completed_times_out() -> None:
    """as_completed with a timeout raises TimeoutError for what is left."""

    async def workflow(world: World) -> Any:
        never = asyncio.create_task(asyncio.Event().wait())
        for item in asyncio.as_completed([never], timeout=1):
            with pytest.raises(TimeoutError):
                await item
        never.cancel()

    run(workflow)


def test_two_as_completed_in_a_row_and_nested_do_not_mix() -> None:
    """One as_completed within another's coroutine, and one after another, keep their tasks apart."""

    async def workflow(world: World) -> Any:
        async def leaf(label: str) -> Any:
            return await world.step(label)

        async def inner(label: str) -> Any:
            some = asyncio.as_completed([leaf(label + "1"), leaf(label + "2")])
            return [await item for item in some]

        first = [await item for item in asyncio.as_completed([inner("a"), inner("b")])]
        second = [await item for item in asyncio.as_completed([leaf("c"), leaf("d")])]
        return first + second

    assert run(workflow) == [["a1", "a2"], ["b1", "b2"], "c", "d"]


@pytest.mark.parametrize("beaten", [True, False])
def test_timeout_is_a_durable_timer(beaten: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """A step in time disarms the timer of `asyncio.timeout`; one too late is cancelled."""

    async def workflow(world: World) -> Any:
        try:
            async with asyncio.timeout(10):
                return await world.step("slow")
        except TimeoutError:
            return "too late"

    world = World(last_first if beaten else in_order).play(workflow)
    assert world.result() == ("too late" if beaten else "slow")
    end = ["release 1", "abandon 2"] if beaten else ["release 2", "disarm 1"]
    assert world.trace == ["arm 1 10", "ask 2 slow", *end]


@BOTH_WAYS
def test_wait_for_returns_or_cancels(choose: Any) -> None:
    """wait_for is bounded by a durable timer, on a coroutine and on a future."""

    async def workflow(world: World) -> Any:
        async def slow() -> Any:
            return await world.step("slow")

        try:
            return await asyncio.wait_for(slow(), 5)
        except TimeoutError:
            return await asyncio.wait_for(world.step("other"), None)

    expected = "slow" if choose is in_order else "other"
    assert run(workflow, choose) == expected


def test_shield_protects_a_step() -> None:
    """Cancelling the one who waits for a shield leaves what it shields alone."""

    async def workflow(world: World) -> Any:
        async def charge() -> Any:
            return await world.step("charge")

        inner = asyncio.create_task(charge())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(inner), 5)
        return await inner

    assert run(workflow, last_first) == "charge"


def test_locks_semaphores_conditions_and_barriers_are_fair() -> None:
    """Whoever came first is served first, whatever completes first outside."""

    async def workflow(world: World) -> Any:
        served: list[str] = []
        lock, slots = asyncio.Lock(), asyncio.BoundedSemaphore(2)
        changed, all_here = asyncio.Condition(), asyncio.Barrier(4)

        async def one(label: str) -> None:
            async with lock:
                served.append(label)
                await world.step(f"locked-{label}")
            async with slots:
                await world.step(f"slot-{label}")
            await all_here.wait()
            async with changed:
                changed.notify_all()

        await asyncio.gather(*(one(label) for label in "abcd"))
        return served

    assert run(workflow, last_first) == list("abcd")


def test_queues_hand_work_from_branch_to_branch() -> None:
    """A bounded queue between a producer and two consumers loses nothing and ends with join."""

    async def workflow(world: World) -> Any:
        queue: asyncio.Queue[int] = asyncio.Queue(2)
        results = []

        async def consume() -> None:
            while True:
                number = await queue.get()
                results.append(await world.step(f"n{number}", number))
                queue.task_done()

        consumers = [asyncio.create_task(consume()) for _ in range(2)]
        for number in range(1, 9):
            await queue.put(number)
        await queue.join()
        for consumer in consumers:
            consumer.cancel()
        await asyncio.gather(*consumers, return_exceptions=True)
        return results

    assert sorted(run(workflow, last_first)) == list(range(1, 9))


def test_tasks_of_tasks_are_named_by_their_parents() -> None:
    """Each task counts its own children and its own steps."""

    async def workflow(world: World) -> None:
        async def leaf() -> None:
            await world.step("leaf")
            await world.step("leaf-again")

        async def parent() -> None:
            children = [asyncio.create_task(leaf()) for _ in range(2)]
            await world.step("parent")
            await asyncio.gather(*children)

        one = asyncio.create_task(parent())
        await world.step("root")
        two = asyncio.create_task(parent())
        await one
        await two

    asked = World().play(workflow).asked()
    assert set(asked) == {
        *("1", "0:1", "0.0:1", "0.0:2", "0.1:1", "0.1:2"),
        *("1:1", "1.0:1", "1.0:2", "1.1:1", "1.1:2"),
    }
    assert len(asked) == len(set(asked))


def test_tasks_have_stable_names_and_know_each_other() -> None:
    """current_task, default task names and equality work; a set of tasks iterates in order of creation."""

    async def workflow(world: World) -> Any:
        async def me() -> Any:
            task = asyncio.current_task()
            assert task is not None
            return task.get_name()

        tasks = [asyncio.create_task(me()) for _ in range(5)]
        assert list({*reversed(tasks)}) == tasks
        assert tasks[0] != tasks[1]
        return await asyncio.gather(*tasks), await me()

    assert run(workflow) == ([f"branch {number}" for number in range(5)], "branch root")


def test_cancelling_a_task_reaches_its_step_and_lets_it_clean_up() -> None:
    """A cancelled branch abandons its step, may ask for others, and is seen as cancelled."""

    async def workflow(world: World) -> Any:
        async def work() -> None:
            try:
                await world.step("work")
            except asyncio.CancelledError:
                await world.step("compensate")
                raise

        task = asyncio.create_task(work())
        await world.step("decide")
        task.cancel("changed my mind")
        with pytest.raises(asyncio.CancelledError):
            await task
        return task.cancelled()

    world = World().play(workflow)
    assert world.result() is True
    assert world.trace[3:5] == ["abandon 0:1", "ask 0:2 compensate"]


def test_an_asynchronous_generator_left_early_is_closed_in_a_branch_of_its_own() -> None:
    """Leaving `async for` early runs the generator's cleanup, steps included, before the workflow ends."""

    async def workflow(world: World) -> Any:
        async def pages() -> Any:
            try:
                for number in range(10):
                    yield await world.step(f"page{number}", number + 1)
            finally:
                await world.step("closed")

        async for page in pages():
            if page == 3:
                break
        await asyncio.create_task(asyncio.sleep(0))
        return page

    world = World().play(workflow)
    assert world.result() == 3
    assert world.asked() == ["1", "2", "3", "0:1"]


def test_an_asynchronous_generator_closed_by_hand_needs_no_branch() -> None:
    """aclose() runs the cleanup in the task that calls it."""

    async def workflow(world: World) -> None:
        async def pages() -> Any:
            try:
                yield await world.step("page")
            finally:
                await world.step("closed")

        generator = pages()
        async for _ in generator:
            await generator.aclose()

    world = World().play(workflow)
    assert world.asked() == ["1", "2"]


def test_two_generators_dropped_together_keep_their_own_branches() -> None:
    """Which branch closes a generator is settled when it begins, not when it is dropped."""

    async def workflow(world: World) -> None:
        async def numbers(label: str) -> Any:
            try:
                yield 1
                yield 2
            finally:
                await world.step(label)

        first, second = numbers("first"), numbers("second")
        await anext(first)
        await anext(second)
        del second
        del first
        await world.step("root")

    assert World().play(workflow).labels() == {"second": "1:1", "first": "0:1", "root": "1"}


def test_eager_tasks_keep_names_and_the_current_task() -> None:
    """With asyncio's eager factory (from Python 3.12) tasks run at once, as current, named as ever."""
    factory = getattr(asyncio, "eager_task_factory", None)

    async def workflow(world: World) -> Any:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(factory)
        assert loop.get_task_factory() is factory
        seen: list[Any] = []

        async def quick() -> str:
            seen.append(asyncio.current_task())
            return "quick"

        async def slow(label: str) -> Any:
            seen.append(asyncio.current_task())
            nested = asyncio.create_task(quick())
            return await world.step(label), await nested

        me = asyncio.current_task()
        tasks = [asyncio.create_task(slow(label)) for label in "ab"]
        assert asyncio.current_task() is me
        assert seen[::2] == ([] if factory is None else tasks)
        listed = asyncio.as_completed([slow("c"), slow("d")])
        return await asyncio.gather(*tasks), [await item for item in listed]

    world = World().play(workflow)
    assert world.labels() == {"a": "0:1", "b": "1:1", "c": "2:1", "d": "3:1"}
    assert world.result()[0] == [("a", "quick"), ("b", "quick")]


def test_failed_futures_of_every_kind_reach_who_awaits_them() -> None:
    """Results and errors released reach the code unchanged, StopIteration as a RuntimeError."""

    async def workflow(world: World) -> Any:
        with pytest.raises(LookupError):
            await world.step("", LookupError("gone"))
        with pytest.raises(RuntimeError, match="StopIteration") as caught:
            await world.step("", StopIteration(3))
        with pytest.raises(asyncio.CancelledError):
            await world.step("", asyncio.CancelledError("far away"))
        return type(caught.value.__cause__)

    assert run(workflow) is StopIteration
