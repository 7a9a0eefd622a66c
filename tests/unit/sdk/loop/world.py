"""A worker in miniature: it owns a durable loop, keeps its time, and decides the order of results."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from kept.sdk.loop import DurableLoop

Workflow = Callable[["World"], Coroutine[Any, Any, Any]]
Choose = Callable[[Sequence[str]], str]

START = 1_000_000.0


def in_order(waiting: Sequence[str]) -> str:
    """Releases what was asked for first."""
    return waiting[0]


def last_first(waiting: Sequence[str]) -> str:
    """Releases what was asked for last."""
    return waiting[-1]


class World:
    """The owner of one loop, and its timer host.

    `trace` holds all that the code did towards the outside, and what came in, in order. `order` is what was
    released; a second world that is given it replays the first.
    """

    def __init__(self, choose: Choose = in_order, *, max_callbacks: int = 100_000) -> None:
        self.choose = choose
        self.loop = DurableLoop(self, max_callbacks=max_callbacks)
        self.clock = START
        self.trace: list[str] = []
        self.order: list[str] = []
        self.armed: dict[str, float] = {}
        self.outcomes: dict[str, Any] = {}

    # -- what the loop asks of its host

    def now(self) -> float:
        return self.clock

    def arm(self, timer_id: str, when: float, handle: asyncio.TimerHandle) -> None:
        assert timer_id not in self.armed
        assert handle.when() == when > self.clock
        self.armed[timer_id] = when
        self.trace.append(f"arm {timer_id} {when - START:g}")

    def disarm(self, timer_id: str) -> None:
        del self.armed[timer_id]
        self.trace.append(f"disarm {timer_id}")

    # -- what a Context would offer to the code

    def step(self, label: object = "", result: object = None) -> Awaitable[Any]:
        """Asks for a step. It will come to `result`, raised if it is an exception."""
        name = self.loop.next_step()
        self.trace.append(f"ask {name} {label}")
        self.outcomes[name] = label if result is None else result
        return self.loop.external(name, on_cancel=lambda step: self.trace.append(f"abandon {step}"))

    async def sleep(self, seconds: float) -> None:
        """asyncio.sleep, on the workflow's clock: no test waits for it."""
        await asyncio.sleep(seconds)

    def note(self, text: object) -> None:
        """Writes down that the code came here."""
        self.trace.append(str(text))

    # -- running

    def start(self, workflow: Workflow) -> None:
        self.loop.start(workflow(self))
        self.loop.run_ready()

    def release(self, name: str) -> None:
        """Lets one result or timer in."""
        self.order.append(name)
        self.trace.append(f"release {name}")
        if name in self.armed:
            self.clock = max(self.clock, self.armed.pop(name))
            assert self.loop.fire(name)
        elif isinstance(outcome := self.outcomes[name], BaseException):
            assert self.loop.release_error(name, outcome)
        else:
            assert self.loop.release(name, outcome)
        self.loop.run_ready()

    @property
    def finished(self) -> bool:
        root = self.loop.root
        return root is not None and root.done() and not self.loop.open_tasks()

    def play(self, workflow: Workflow, *, releases: int | None = None) -> World:
        """Runs to the end, or until that many results are in."""
        self.start(workflow)
        while not self.finished and len(self.order) != releases:
            if deadlock := self.loop.deadlock():
                raise deadlock
            self.release(self.choose(self.loop.waiting()))
        return self

    def result(self) -> Any:
        """What the root returned or raised."""
        assert self.loop.root is not None
        return self.loop.root.result()

    def asked(self) -> list[str]:
        """The names of steps, in the order of asking."""
        return [line.split()[1] for line in self.trace if line.startswith("ask ")]

    def labels(self) -> dict[str, str]:
        """Which name each labelled step got."""
        asks = (line.split(maxsplit=2) for line in self.trace if line.startswith("ask "))
        return {label: name for _, name, label in asks}


def run(workflow: Workflow, choose: Choose = in_order) -> Any:
    """Plays a workflow to its end in a new world, closes it, and returns what it returned."""
    world = World(choose).play(workflow)
    result = world.result()
    assert world.loop.unhandled == []
    world.loop.close()
    return result


def replay(order: Sequence[str], then: Choose = in_order) -> Choose:
    """Chooses in a recorded order, which must be possible, and then otherwise."""
    left = list(order)

    def choose(waiting: Sequence[str]) -> str:
        if not left:
            return then(waiting)
        assert left[0] in waiting
        return left.pop(0)

    return choose
