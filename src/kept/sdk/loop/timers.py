"""Time on a durable loop: it belongs to the loop's owner, and so do the timers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any, Protocol


class TimerHost(Protocol):
    """The owner's side of time. Times are seconds since the epoch on the workflow's logical clock.

    `arm` and `disarm` are called while durable code runs, but on the loop and in the context of whoever
    called `run_ready`. Most timers are disarmed in the same run (a `timeout` around a step that is already
    known), so a host makes a timer durable only if it is still armed once the loop is quiet.
    """

    def now(self) -> float:
        """The logical time. It moves only between two runs of the loop, by what the owner releases."""

    def arm(self, timer_id: str, when: float, handle: asyncio.TimerHandle) -> None:
        """Promises to call `loop.fire(timer_id)` once logical time has reached `when`.

        `timer_id` is a step name of the branch that asked. `when` is after `now()` and may be `math.inf`: a
        timer that is never due. What this raises reaches the code that asked for the timer.
        """

    def disarm(self, timer_id: str) -> None:
        """The code no longer waits for an armed timer."""


class DurableTimer(asyncio.TimerHandle):
    """What `call_at` returns: a timer with a name that a replay repeats."""

    __slots__ = ("timer_id",)

    def __init__(
        self,
        timer_id: str,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        context: Context | None,
    ) -> None:
        super().__init__(when, callback, args, loop, context)
        self.timer_id = timer_id
