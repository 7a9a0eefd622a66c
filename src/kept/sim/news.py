"""What processes on one disk hear of each other's commits: late, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from kept.protocol.storage import Notice
from kept.sim.loop import SimulatedLoop
from kept.sim.process import Process

# What other processes are told of a commit arrives by then; what was lost is noticed by then, too.
NOTICE_SECONDS: Final = 0.02
REPAIR_SECONDS: Final = 1.0


class News:
    """Carries notices between processes. `loses` draws whether one is lost; where the stores do not
    look for themselves (`repairs`), what was lost is made up for a while later."""

    def __init__(
        self, loop: SimulatedLoop, random: Random, loses: Callable[[], bool], *, repairs: bool
    ) -> None:
        self._loop = loop
        self._random = random
        self._loses = loses
        self._repairs = repairs
        self._hearers: dict[Process, Callable[[Notice], None]] = {}

    def join(self, process: Process, hear: Callable[[Notice], None]) -> None:
        """`hear` is called, in its process, with what others commit from now on."""
        self._hearers[process] = hear

    def leave(self, process: Process) -> None:
        """Hears no more; idempotent."""
        self._hearers.pop(process, None)

    def tell(self, teller: Process, notice: Notice) -> None:
        """A process has committed."""
        for process, hear in self._hearers.items():
            if process is teller:
                continue
            delay, told = self._random.uniform(0, NOTICE_SECONDS), notice
            if self._loses():
                if not self._repairs:
                    continue
                delay, told = self._random.uniform(delay, REPAIR_SECONDS), Notice(everything=True)
            self._loop.call_later(delay, hear, told, context=process.context.copy())
