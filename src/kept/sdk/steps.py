"""The steps of one run that are under way: called here, recorded under the lease (protocol B1)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from kept.errors import error_for
from kept.protocol.records import EMPTY, PromiseState, Value
from kept.protocol.responses import Response
from kept.sdk import payload
from kept.sdk.asks import Ask
from kept.sdk.functions import Function
from kept.sdk.services import NOT_STORABLE, Services

# How long a step that is told to stop may take for its own clean-up before it is left behind.
CLOSE_GRACE_SECONDS: Final = 5.0


class _Step:
    """A step that runs. `canceled`: by the code; `recording`: its outcome is on its way."""

    __slots__ = ("canceled", "recording", "task")

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.canceled = False
        self.recording = False


class Steps:
    """Runs steps and records them.

    `record` sends an outcome under the lease, `ended` gets the good answer, and `failed` whatever
    is no outcome of the step but the end of the run, such as a lost lease. `progress` is set
    whenever a step is over.
    """

    def __init__(
        self,
        services: Services,
        record: Callable[[Ask, PromiseState, Value], Awaitable[Response]],
        ended: Callable[[Response], None],
        failed: Callable[[BaseException], None],
        progress: asyncio.Event,
    ) -> None:
        self._services = services
        self._record = record
        self._progress = progress
        self._ended = ended
        self._failed = failed
        self._running: dict[str, _Step] = {}

    def __len__(self) -> int:
        return len(self._running)

    def start(self, ask: Ask) -> None:
        """Runs the step beside the code."""
        step = self._running[ask.id] = _Step()
        step.task = self._services.runtime.spawn(self._run(ask, step), f"kept-step-{ask.id}")
        step.task.add_done_callback(lambda task: self._task_done(ask.id, task))

    def cancel(self, id: str) -> None:
        """The code does not wait for it any more: it is stopped, and that is what is recorded."""
        step = self._running.get(id)
        if step is not None and step.task is not None and not step.recording:
            step.canceled = True
            step.task.cancel()

    async def close(self) -> None:
        """Stops all of them; nothing is recorded any more."""
        tasks = [step.task for step in self._running.values() if step.task is not None]
        self._running.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_GRACE_SECONDS)

    def _task_done(self, id: str, task: asyncio.Task[None]) -> None:
        closed = self._running.pop(id, None) is None
        if not task.cancelled() and (error := task.exception()) is not None and not closed:
            self._failed(error)
        self._progress.set()

    async def _run(self, ask: Ask, step: _Step) -> None:
        with self._services.motion.working():
            await self._run_and_record(ask, step)

    async def _run_and_record(self, ask: Ask, step: _Step) -> None:
        assert isinstance(ask.function, Function)
        try:
            state, value = await self._services.outcome_of(ask.function, ask.args, ask.kwargs)
        except asyncio.CancelledError:
            if not step.canceled or ask.id not in self._running:
                raise
            state, value = PromiseState.REJECTED_CANCELED, EMPTY
        step.recording = True
        response = await self._record(ask, state, value)
        if response.status in NOT_STORABLE:
            # What cannot be stored, such as a result of many megabytes, is the step's failure.
            failure = payload.encode_error(error_for(response.status, str(response.data)))
            response = await self._record(ask, PromiseState.REJECTED, failure)
        self._ended(response)
