"""One run of a durable function under its lease: replay, go on, suspend, or finish.

The code runs on a `DurableLoop`, always to quiescence. What it asked for is then done out here: steps
run on the worker's own loop and are recorded (`task.record`), calls, timers and promises are created
(`task.fence`). Results reach the code one at a time, and the order in which they do is numbered with
the next request (protocol B3), so that a replay can follow it.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

from kept.errors import (
    ConfigurationError,
    InvalidArgumentsError,
    LeaseLostError,
    NondeterminismError,
    RequestError,
    error_for,
)
from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.limits import MAX_INTEGER, NEVER_MS
from kept.protocol.records import EMPTY, PromiseRecord, PromiseState, Value
from kept.protocol.responses import (
    BAD_REQUEST,
    CONFLICT,
    NOT_FOUND,
    RESUME_AT_ONCE,
    FenceResult,
    PreloadResult,
    PromiseResult,
    Response,
)
from kept.sdk import payload
from kept.sdk.asks import Ask, Kind, child_id, stored_arguments
from kept.sdk.context import Context
from kept.sdk.functions import Function
from kept.sdk.lease import Lease
from kept.sdk.loop import DurableLoop
from kept.sdk.services import Services

MS: Final = 1_000


class Execution:
    """The run of one durable function; it outlives a suspension when the worker keeps it."""

    def __init__(self, lease: Lease, function: Function[..., Any], services: Services) -> None:
        self.id = lease.promise.id
        self.lease = lease
        self._function = function
        self._services = services
        self._origin = lease.promise.tags.get(tag.ORIGIN, self.id)
        self._loop = DurableLoop(self)
        self._logical_now = lease.promise.created_at
        self._asks: dict[str, Ask] = {}
        self._new_asks: list[Ask] = []
        # Records that are known by now, and the order in which a former holder released them.
        self._known: dict[str, PromiseRecord] = {}
        self._order: deque[str] = deque()
        self._numbered: set[str] = set()
        self._ready: deque[str] = deque()
        self._awaited: dict[str, Ask] = {}
        self._steps: dict[asyncio.Task[None], Ask] = {}
        self._progress = asyncio.Event()
        self._fault: BaseException | None = None
        self._released: list[str] = []
        self._timers: dict[str, float] = {}

    @property
    def attempt(self) -> int:
        return self.lease.attempt

    # -- the life of a run -------------------------------------------------------------------

    async def begin(self) -> bool:
        """Runs the function from its start, following what is recorded.

        True when the work is finished, False when it is suspended. Raises `LeaseLostError` when
        somebody else may hold the task, `NondeterminismError`, `InvalidArgumentsError`.
        """
        args, kwargs = self._function.converted(payload.decode_arguments(self.lease.promise.param))
        if self.lease.version > 1:
            await self._load_history()
        self._loop.start(self._function.plain(Context(self), *args, **kwargs))
        return await self._drive()

    async def go_on(self, lease: Lease) -> bool:
        """Continues in place after a suspension, under the next lease."""
        self.lease = lease
        await self._look_at_awaited()
        return await self._drive()

    def close(self) -> None:
        """Lets go of everything here; the work goes on later, from its records."""
        for step in self._steps:
            step.cancel()
        self._loop.close()

    async def _load_history(self) -> None:
        """What former holders recorded, page by page, in the order of its release."""
        cursor: str | None = None
        while True:
            request = r.PromiseChildren(self.id, cursor)
            page = self._accepted(await self._services.connection.send(request))
            assert isinstance(page, PreloadResult)
            self._known.update((record.id, record) for record in page.preload)
            self._order.extend(page.released or ())
            cursor = page.more
            if cursor is None:
                break
        self._numbered.update(self._order)

    async def _drive(self) -> bool:
        self._loop.run_ready()
        while True:
            self._raise_fault()
            if self._timers or self._new_asks:
                await self._do_asked()
            elif self._release_next():
                self._loop.run_ready()
            elif self._finished():
                await self._fulfill()
                return True
            elif self._steps:
                await self._wait_for_step()
            elif not await self._suspended():
                continue
            else:
                return False

    def _finished(self) -> bool:
        """The code is done, and all that it started: or it waits for what can never come."""
        deadlock = self._loop.deadlock()
        if deadlock is not None:
            raise deadlock
        root = self._loop.root
        assert root is not None
        return root.done() and not self._loop.open_tasks()

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault

    # -- what the code asks (ContextHost) ------------------------------------------------------

    def ask_run(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> asyncio.Future[Any]:
        step_function = self._services.as_function(function)
        if step_function.durable:
            raise ConfigurationError(
                f"{step_function.name} takes a Context: call it with ctx.call, not ctx.run"
            )
        step_function.check(args, kwargs)
        param = stored_arguments(payload.encode_arguments(args, kwargs))
        step = self._loop.next_step()
        tags = self._child_tags({tag.FUNCTION: step_function.reference})
        create = r.PromiseCreate(child_id(self.id, step), NEVER_MS, param, tags)
        return self._asked(
            Ask(
                Kind.RUN,
                step,
                create,
                expected=step_function.returns,
                function=step_function,
                args=args,
                kwargs=kwargs,
            )
        )

    def ask_call(
        self, function: Callable[..., Any] | str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> asyncio.Future[Any]:
        target = self._services.target_of(function)
        target.check(args, kwargs)
        step = self._loop.next_step()
        param = payload.encode_arguments(args, kwargs, self._services.root_headers)
        tags = self._child_tags(
            {tag.TARGET: f"queue://{target.queue}", tag.FUNCTION: target.reference, **target.tags}
        )
        create = r.PromiseCreate(child_id(self.id, step), NEVER_MS, param, tags)
        return self._asked(Ask(Kind.CALL, step, create, expected=target.returns))

    def ask_promise(
        self, name: str, timeout: float | None, expected: Any
    ) -> asyncio.Future[Any]:
        step = self._loop.next_step()
        deadline = NEVER_MS
        if timeout is not None:
            deadline = min(math.ceil(self._logical_now + timeout * MS), MAX_INTEGER - 1)
        tags = self._child_tags({tag.EXTERNAL: "true"})
        create = r.PromiseCreate(child_id(self.id, name), deadline, EMPTY, tags)
        return self._asked(Ask(Kind.PROMISE, step, create, expected=expected))

    def _child_tags(self, tags: dict[str, str]) -> dict[str, str]:
        lineage = {tag.ORIGIN: self._origin, tag.PARENT: self.id, tag.BRANCH: self.id}
        return {**lineage, **tags}

    def _asked(self, ask: Ask) -> asyncio.Future[Any]:
        if ask.id in self._asks:
            raise ConfigurationError(f"{ask.id} was asked for before: give it another name")
        self._asks[ask.id] = ask
        self._new_asks.append(ask)
        return self._loop.external(ask.step, on_cancel=lambda _: self._canceled(ask))

    def _canceled(self, ask: Ask) -> None:
        """The code does not wait for it any more; a step that runs for it is stopped."""
        self._awaited.pop(ask.id, None)
        for step, running in self._steps.items():
            if running is ask:
                step.cancel()

    # -- time (TimerHost) ----------------------------------------------------------------------

    def now(self) -> float:
        return self._logical_now / MS

    def arm(self, timer_id: str, when: float, handle: asyncio.TimerHandle) -> None:
        self._timers[timer_id] = when

    def disarm(self, timer_id: str) -> None:
        self._timers.pop(timer_id, None)
        self._awaited.pop(child_id(self.id, timer_id), None)

    def _timer_asks(self) -> list[Ask]:
        """Timers that are still armed now that the code is quiet become durable."""
        asks: list[Ask] = []
        for timer_id, when in self._timers.items():
            deadline = NEVER_MS if math.isinf(when) else min(math.ceil(when * MS), NEVER_MS - 1)
            tags = self._child_tags({tag.TIMER: "true"})
            create = r.PromiseCreate(child_id(self.id, timer_id), deadline, EMPTY, tags)
            ask = Ask(Kind.TIMER, timer_id, create)
            self._asks[ask.id] = ask
            asks.append(ask)
        self._timers.clear()
        return asks

    # -- doing what was asked -------------------------------------------------------------------

    async def _do_asked(self) -> None:
        """Starts what is new; what is recorded already only waits for its release."""
        asks = self._new_asks + self._timer_asks()
        self._new_asks = []
        creates: list[Ask] = []
        for ask in asks:
            record = self._known.get(ask.id)
            if record is not None:
                ask.check(record)
            if record is not None and record.state is not PromiseState.PENDING:
                self._settled(record)
            elif ask.kind is Kind.RUN:
                self._start_step(ask)
            elif record is not None:
                self._awaited[ask.id] = ask
            else:
                creates.append(ask)
        responses = await asyncio.gather(*[self._create(ask) for ask in creates])
        for ask, response in zip(creates, responses, strict=True):
            self._created(ask, response)

    async def _create(self, ask: Ask) -> Response:
        action = r.CreateAction(ask.create)
        request = r.TaskFence(self.id, self.lease.version, action, self._take_released())
        return await self._services.connection.send(request)

    def _created(self, ask: Ask, response: Response) -> None:
        result = self._accepted(response)
        assert isinstance(result, FenceResult)
        inner = result.action.data
        if isinstance(inner, str):
            # The same request is refused in the same way in every replay.
            self._loop.release_error(ask.step, error_for(result.action.head.status, inner))
            self._loop.run_ready()
            return
        ask.check(inner.promise)
        self._awaited[ask.id] = ask
        self._learned(inner.promise)

    def _learned(self, record: PromiseRecord) -> None:
        """A record as it is now; a settled one is to be released."""
        self._known[record.id] = record
        if record.state is not PromiseState.PENDING:
            self._settled(record)

    def _settled(self, record: PromiseRecord) -> None:
        self._known[record.id] = record
        self._awaited.pop(record.id, None)
        if record.id not in self._numbered:
            self._ready.append(record.id)

    def _start_step(self, ask: Ask) -> None:
        work: Coroutine[Any, Any, None] = self._run_step(ask)
        step = self._services.runtime.spawn(work, f"kept-step-{ask.id}")
        self._steps[step] = ask
        step.add_done_callback(self._step_ended)

    def _step_ended(self, step: asyncio.Task[None]) -> None:
        self._steps.pop(step, None)
        if not step.cancelled() and (error := step.exception()) is not None and not self._fault:
            self._fault = error
        self._progress.set()

    async def _run_step(self, ask: Ask) -> None:
        """Calls the function, with its retries, and records what came of it."""
        assert isinstance(ask.function, Function)
        state, value = await self._services.outcome_of(ask.function, ask.args, ask.kwargs)
        response = await self._record(ask, state, value)
        if response.status == BAD_REQUEST:
            # What cannot be stored, such as a result of many megabytes, is the step's failure.
            failure = payload.encode_error(error_for(response.status, str(response.data)))
            response = await self._record(ask, PromiseState.REJECTED, failure)
        result = self._accepted(response)
        assert isinstance(result, PromiseResult)
        self._learned(result.promise)

    async def _record(self, ask: Ask, state: PromiseState, value: Value) -> Response:
        request = r.TaskRecordStep(
            self.id, self.lease.version, ask.create, state, value, self._take_released()
        )
        return await self._services.connection.send(request)

    async def _wait_for_step(self) -> None:
        self._progress.clear()
        await self._progress.wait()

    # -- releasing results to the code -----------------------------------------------------------

    def _release_next(self) -> bool:
        """Gives the code its next result: in the recorded order first, then as they come."""
        if self._order:
            id = self._order.popleft()
            if id not in self._asks:
                raise NondeterminismError(
                    f"{id} was recorded, but the code does not ask for it at this place any more"
                )
            if id not in self._known or self._known[id].state is PromiseState.PENDING:
                raise NondeterminismError(f"{id} was released before, but is not settled")
        elif self._ready:
            id = self._ready.popleft()
            self._released.append(id)
        else:
            return False
        self._release(self._asks[id], self._known[id])
        return True

    def _release(self, ask: Ask, record: PromiseRecord) -> None:
        self._logical_now = max(self._logical_now, record.settled_at or 0)
        if ask.kind is Kind.TIMER:
            self._loop.fire(ask.step)
            return
        error = payload.outcome_error(record)
        if error is None:
            try:
                self._loop.release(ask.step, payload.decode(record.value, ask.expected))
            except InvalidArgumentsError as misfit:
                self._loop.release_error(ask.step, misfit)
        else:
            self._loop.release_error(ask.step, error)

    def _take_released(self) -> list[str]:
        released, self._released = self._released, []
        return released

    # -- the end of a lease ------------------------------------------------------------------------

    async def _fulfill(self) -> None:
        root = self._loop.root
        assert root is not None
        state, value = PromiseState.RESOLVED, EMPTY
        if root.cancelled():
            state = PromiseState.REJECTED_CANCELED
        elif (error := root.exception()) is not None:
            if isinstance(error, NondeterminismError | LeaseLostError):
                raise error
            state, value = PromiseState.REJECTED, payload.encode_error(error)
        else:
            try:
                value = payload.encode(root.result())
            except TypeError as misfit:
                state, value = PromiseState.REJECTED, payload.encode_error(misfit)
        await self._services.fulfill(self.lease, state, value, self._take_released())

    async def _suspended(self) -> bool:
        """Parks the task until something awaited settles; False where it has settled already."""
        actions = [
            r.CallbackAction(r.PromiseRegisterCallback(id, self.id)) for id in self._awaited
        ]
        request = r.TaskSuspend(
            self.id, self.lease.version, actions, self._take_released(), preload=0
        )
        response = await self._services.connection.send(request)
        self._accepted(response)
        if response.status != RESUME_AT_ONCE:
            return True
        await self._look_at_awaited()
        return False

    async def _look_at_awaited(self) -> None:
        """Learns which of the awaited promises have settled."""
        looks = [self._services.connection.send(r.PromiseGet(id)) for id in self._awaited]
        for response in await asyncio.gather(*looks):
            result = self._accepted(response)
            assert isinstance(result, PromiseResult)
            if result.promise.state is not PromiseState.PENDING:
                self._learned(result.promise)

    def _accepted(self, response: Response) -> Any:
        """The data of an answer. A conflict under a lease means that the lease is lost."""
        if response.ok:
            return response.data
        if response.status in (CONFLICT, NOT_FOUND):
            raise LeaseLostError(f"{self.id}: {response.data}")
        error: RequestError = error_for(response.status, str(response.data))
        raise error


