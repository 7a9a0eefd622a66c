"""What durable code may not do, and what it is told."""

from __future__ import annotations

import asyncio
import inspect
import re
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from kept.errors import NotDurableError
from kept.sdk.loop import DurableLoop
from kept.sdk.loop.refusals import Refusals
from tests.unit.sdk.loop.world import World

REFUSED = sorted(name for name in vars(Refusals) if not name.startswith("_"))


def refusal(attempt: Callable[[World], Any]) -> NotDurableError:
    """The error that durable code gets from an attempt, which may be a coroutine."""

    async def tries(world: World) -> None:
        made = attempt(world)
        if inspect.isawaitable(made):
            await made

    async def workflow(world: World) -> NotDurableError:
        with pytest.raises(NotDurableError) as caught:
            await tries(world)
        return caught.value

    world = World().play(workflow)
    error = world.result()
    world.loop.close()
    assert isinstance(error, NotDurableError)
    assert error.code == "not_durable"
    return error


@pytest.mark.parametrize("name", REFUSED)
def test_every_refused_method_names_itself_and_the_line(name: str) -> None:
    """Whatever the arguments, the error names the method, the user's file and line, and what to do."""

    def attempt(world: World) -> Any:
        return getattr(asyncio.get_running_loop(), name)(1, x=2)

    line = inspect.getsourcelines(attempt)[1] + 1
    text = str(refusal(attempt))
    assert text.startswith(f"{__file__}:{line}, in ")
    assert f"loop.{name}() cannot be replayed: " in text
    assert re.search(r"belongs in a step.*ctx\.run|the worker runs this loop", text)


def test_no_method_of_an_event_loop_is_left_without_an_answer() -> None:
    """Every public method of asyncio's loop interface is either implemented or refused here."""
    interface = {name for name in vars(asyncio.AbstractEventLoop) if not name.startswith("__")}
    answered = {
        name
        for name in interface
        if getattr(DurableLoop, name) is not getattr(asyncio.AbstractEventLoop, name)
    }
    assert interface == answered
    assert set(REFUSED) < interface


@pytest.mark.parametrize(
    ("method", "attempt"),
    [
        ("run_in_executor", lambda: asyncio.to_thread(print)),
        ("create_connection", lambda: asyncio.open_connection("127.0.0.1", 1)),
        ("create_unix_connection", lambda: asyncio.open_unix_connection("/nowhere")),
        ("create_server", lambda: asyncio.start_server(print, "127.0.0.1", 0)),
        ("create_unix_server", lambda: asyncio.start_unix_server(print, "/nowhere")),
        ("subprocess_exec", lambda: asyncio.create_subprocess_exec("true")),
        ("subprocess_shell", lambda: asyncio.create_subprocess_shell("true")),
    ],
)
def test_asyncios_own_ways_out_are_refused(method: str, attempt: Any) -> None:
    """Threads, connections, servers and subprocesses fail where the user's code asked, not within asyncio."""
    text = str(refusal(lambda _: attempt()))
    assert text.startswith(f"{__file__}:")
    assert f"loop.{method}()" in text


def test_sockets_are_refused() -> None:
    """A socket that was made before is of no use either."""
    with socket.socket() as sock:
        text = str(refusal(lambda _: asyncio.get_running_loop().sock_recv(sock, 1)))
    assert "sock_recv" in text


def test_a_result_from_a_thread_is_refused_in_the_thread() -> None:
    """call_soon_threadsafe from elsewhere raises; from durable code itself it is call_soon."""
    told: list[BaseException] = []

    async def workflow(world: World) -> Any:
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def from_thread() -> None:
            with pytest.raises(NotDurableError) as caught:
                loop.call_soon_threadsafe(done.set_result, "thread")
            told.append(caught.value)

        thread = threading.Thread(target=from_thread)
        thread.start()
        thread.join()
        loop.call_soon_threadsafe(done.set_result, "own")
        return await done

    assert World().play(workflow).result() == "own"
    assert "another thread" in str(told[0])


@pytest.mark.parametrize(
    ("kind", "name"), [(iter, "list_iterator"), (set, "set"), (frozenset, "frozenset")]
)
def test_as_completed_over_what_has_no_order_is_refused(kind: Any, name: str) -> None:
    """A generator is used up before it makes tasks, and a set has no order: the error says to give a list."""

    async def workflow(world: World) -> None:
        async def one() -> None: ...

        coroutines = [one() for _ in range(3)]
        told = rf"test_refusals.py:\d+, in .*workflow: .* {name} of coroutines .* Give it a list"
        try:
            with pytest.raises(NotDurableError, match=told):
                list(asyncio.as_completed(kind(coroutines)))
        finally:
            for coroutine in coroutines:
                coroutine.close()

    World().play(workflow).result()


@pytest.mark.parametrize("kind", [iter, set])
def test_as_completed_over_tasks_takes_anything(kind: Any) -> None:
    """Tasks carry their order with them."""

    async def workflow(world: World) -> Any:
        async def one(number: int) -> int:
            return number

        tasks = [asyncio.create_task(one(number)) for number in range(20)]
        return [await item for item in asyncio.as_completed(kind(tasks))]

    assert World().play(workflow).result() == list(range(20))


@pytest.mark.parametrize(
    "foreign", [lambda world: asyncio.gather(world.step()), lambda _: asyncio.Future()]
)
def test_waiting_for_futures_without_a_number_is_refused(foreign: Any) -> None:
    """`asyncio.wait` on what gather returns would give sets in the order of addresses."""

    async def attempt(world: World) -> None:
        await asyncio.wait([foreign(world)])

    text = str(refusal(attempt))
    assert "asyncio.wait() for a " in text
    assert "create_task" in text


def test_all_tasks_is_refused_inside_and_works_outside() -> None:
    """all_tasks has no order that a replay could repeat; a worker's own loop is not concerned."""

    async def worker() -> int:
        text = str(refusal(lambda _: asyncio.all_tasks()))
        assert "TaskGroup" in text
        return len(asyncio.all_tasks())

    assert asyncio.run(worker()) == 1


def test_a_task_made_by_hand_cannot_ask_for_anything() -> None:
    """asyncio.Task(…) makes a task without a branch: it may compute, not take steps."""

    async def workflow(world: World) -> None:
        async def step() -> None:
            await world.step()

        with pytest.raises(NotDurableError, match="create_task"):
            await asyncio.Task(step())

    World().play(workflow).result()


def test_a_task_factory_of_ones_own_is_refused() -> None:
    """Its tasks would have no branch."""
    text = str(refusal(lambda _: asyncio.get_running_loop().set_task_factory(print)))  # type: ignore[arg-type]
    assert "branch" in text


def test_the_line_named_is_the_users_even_through_an_installed_library(tmp_path: Any) -> None:
    """Frames of site-packages are skipped in favour of the user's own; alone, they are named."""
    library = tmp_path / "site-packages" / "fetching.py"
    code = (
        "import asyncio\ndef fetch():\n    return asyncio.get_running_loop().getaddrinfo('x', 1)\n"
    )
    namespace: dict[str, Any] = {}
    exec(compile(code, str(library), "exec"), namespace)
    assert str(refusal(lambda _: namespace["fetch"]())).startswith(f"{__file__}:")

    async def bare(world: World) -> None:
        asyncio.get_running_loop().call_soon(namespace["fetch"])

    world = World().play(bare)
    assert str(world.loop.unhandled[0].error).startswith(f"{library}:3, in fetch")
