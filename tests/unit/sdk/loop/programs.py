"""Random workflows: small programs over asyncio, and a workflow that runs one.

Run as a program it plays workflows with seeds and prints what they did, so that two processes can be
compared: `python -m tests.unit.sdk.loop.programs FIRST_SEED LAST_SEED`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from tests.unit.sdk.loop.world import World


class Node(NamedTuple):
    """One operation of a program: its kind, a number that the kind explains, and the programs within."""

    kind: str
    number: int = 0
    parts: tuple[Node, ...] = ()


LEAVES = ("step", "failing", "sleep", "yield", "lock", "put", "get")
BRANCHINGS = (
    *(
        "sequence",
        "gather",
        "group",
        "timeout",
        "first",
        "as_completed",
        "shield",
        "spawn",
        "cancel",
    ),
    "generator",
)
# Without those in which the order of completion decides what is done at all.
INDEPENDENT_LEAVES = ("step", "sleep", "yield")
INDEPENDENT_BRANCHINGS = ("sequence", "gather", "group", "as_completed", "spawn", "generator")


class Shared:
    """What the branches of one run share."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.queue: asyncio.Queue[int] = asyncio.Queue()


async def interpret(world: World, shared: Shared, node: Node) -> Any:
    """Runs a program within a workflow."""
    return await globals()[f"_{node.kind}"](world, shared, node)


async def _step(world: World, shared: Shared, node: Node) -> Any:
    return await world.step(f"step-{node.number}")


async def _failing(world: World, shared: Shared, node: Node) -> Any:
    return await world.step(f"failing-{node.number}", ValueError(node.number))


async def _sleep(world: World, shared: Shared, node: Node) -> Any:
    await asyncio.sleep(1 + node.number)


async def _yield(world: World, shared: Shared, node: Node) -> Any:
    await asyncio.sleep(0)


async def _lock(world: World, shared: Shared, node: Node) -> Any:
    async with shared.lock:
        world.note("locked")
        return await world.step("in-lock")


async def _put(world: World, shared: Shared, node: Node) -> Any:
    shared.queue.put_nowait(node.number)


async def _get(world: World, shared: Shared, node: Node) -> Any:
    async with asyncio.timeout(30):
        return await world.step(f"got-{await shared.queue.get()}")


async def _sequence(world: World, shared: Shared, node: Node) -> Any:
    return [await interpret(world, shared, part) for part in node.parts]


async def _gather(world: World, shared: Shared, node: Node) -> Any:
    parts = (interpret(world, shared, part) for part in node.parts)
    return [repr(item) for item in await asyncio.gather(*parts, return_exceptions=True)]


async def _group(world: World, shared: Shared, node: Node) -> Any:
    try:
        async with asyncio.TaskGroup() as group:
            for part in node.parts:
                group.create_task(_with_cleanup(world, shared, part))
    except* ValueError as failures:
        world.note(f"group failed: {failures.exceptions}")


async def _with_cleanup(world: World, shared: Shared, node: Node) -> Any:
    try:
        return await interpret(world, shared, node)
    except asyncio.CancelledError:
        await world.step("cleanup")
        raise


async def _timeout(world: World, shared: Shared, node: Node) -> Any:
    try:
        async with asyncio.timeout(1 + node.number):
            return await _sequence(world, shared, node)
    except TimeoutError:
        return await world.step("too-late")


async def _first(world: World, shared: Shared, node: Node) -> Any:
    tasks = [asyncio.create_task(interpret(world, shared, part)) for part in node.parts]
    if tasks:
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        for task in {*done, *pending}:
            world.note(task.get_name())
        await asyncio.gather(*tasks, return_exceptions=True)


async def _as_completed(world: World, shared: Shared, node: Node) -> Any:
    found = []
    parts = [interpret(world, shared, part) for part in node.parts]
    for item in asyncio.as_completed(parts):
        try:
            found.append(await item)
        except (ValueError, TimeoutError) as error:
            found.append(repr(error))
        await world.step("one-more")
    return found


async def _shield(world: World, shared: Shared, node: Node) -> Any:
    inner = asyncio.create_task(_sequence(world, shared, node))
    try:
        return await asyncio.wait_for(asyncio.shield(inner), 2)
    except TimeoutError:
        return await inner


async def _spawn(world: World, shared: Shared, node: Node) -> Any:
    for part in node.parts:
        asyncio.create_task(interpret(world, shared, part))  # noqa: RUF006 - the loop keeps it


async def _cancel(world: World, shared: Shared, node: Node) -> Any:
    part = Node("sequence", 0, node.parts)
    task = asyncio.create_task(_with_cleanup(world, shared, part))
    for _ in range(node.number):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _generator(world: World, shared: Shared, node: Node) -> Any:
    async def results() -> Any:
        try:
            for part in node.parts:
                yield await interpret(world, shared, part)
        finally:
            world.note("generator ends")
            await world.step("generator-cleanup")

    async for _ in results():
        if node.number % 2:
            break


def random_program(source: random.Random, depth: int = 4) -> Node:
    """A program of any shape."""
    if depth == 0 or source.random() < 0.2:
        return Node(source.choice(LEAVES), source.randrange(5))
    parts = tuple(random_program(source, depth - 1) for _ in range(source.randrange(5)))
    return Node(source.choice(BRANCHINGS), source.randrange(5), parts)


def play(node: Node, choose: Any, *, eager: bool = False, releases: int | None = None) -> World:
    """Plays a program in a new world, until nothing more can come in; `eager` tasks start at once (3.12)."""

    async def workflow(world: World) -> Any:
        if eager:
            factory = getattr(asyncio, "eager_task_factory", None)
            asyncio.get_running_loop().set_task_factory(factory)
        return await interpret(world, Shared(), node)

    world = World(choose)
    world.start(workflow)
    while world.loop.waiting() and len(world.order) != releases:
        world.release(choose(world.loop.waiting()))
    return world


def story(world: World) -> list[Any]:
    """All that a world's workflow did and came to."""
    root = world.loop.root
    assert root is not None
    if not root.done():
        outcome = "waits"
    elif root.cancelled():
        outcome = "cancelled"
    else:
        outcome = repr(root.exception() or root.result())
    return [world.trace, outcome, [repr(item) for item in world.loop.unhandled]]


def _main(first: int, last: int) -> None:
    garbage: list[Any] = []
    noise = random.Random(os.urandom(8))
    for seed in range(first, last):
        # Addresses in memory differ from one process to the next, and from one run to the next.
        garbage.extend(bytearray(noise.randrange(2_000)) for _ in range(noise.randrange(500)))
        noise.shuffle(garbage)
        del garbage[: len(garbage) // 2]
        source = random.Random(seed)
        program = random_program(source)

        def choose(waiting: Sequence[str], source: random.Random = source) -> str:
            return source.choice(waiting)

        world = play(program, choose, eager=seed % 4 == 0)
        print(json.dumps([seed, *story(world)]))  # noqa: T201 - what this program is for
        world.loop.close()


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]))
