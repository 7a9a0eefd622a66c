"""Plain functions for steps and jobs: what they do outside is seen at the boundary."""

from __future__ import annotations

from random import Random
from typing import Any, Final

from kept.runtime import Runtime
from kept.sdk.app import App
from kept.sdk.functions import Function
from kept.sdk.retry import Constant
from kept.sim.ledger import Boundary

# A step's own time in seconds, mostly; now and then it takes longer than a lease.
STEP_SECONDS: Final = (0.0, 0.5)
LONG_STEP_SECONDS: Final = 20.0
SHARE_OF_LONG_STEPS: Final = 0.02


class Steps:
    """The plain functions of one process. `step` is the registered one that all programs use. `new`:
    the process runs the new program, of which a part has new versions."""

    def __init__(
        self, app: App, runtime: Runtime, random: Random, boundary: Boundary, *, new: bool
    ) -> None:
        self.new = new
        self.random = random
        self.boundary = boundary
        self._runtime = runtime
        self.step: Function[..., Any] = app.function(
            name="step", retry=Constant(attempts=None, delay=0.2)
        )(self._step)

    async def _step(self, key: str) -> int:
        await self.take_time()
        self.boundary.apply(key, key)
        await self.take_time()
        return 1

    async def echo(self, text: str) -> str:
        """Gives back what it was given."""
        await self.take_time()
        return text

    def plain_echo(self, text: str, *, twice: bool = False) -> str:
        """The same, without `async`."""
        return text * 2 if twice else text

    async def take_time(self) -> None:
        """A moment, seldom a long one."""
        seconds = self.random.uniform(*STEP_SECONDS)
        if self.random.random() < SHARE_OF_LONG_STEPS:
            seconds = LONG_STEP_SECONDS
        await self._runtime.sleep(seconds)
