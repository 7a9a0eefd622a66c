"""One run of a durable function under its lease: replay, go on, suspend, or finish.

The code runs on a `DurableLoop`, always to quiescence. What it asked for is then done out here:
steps run on the worker's own loop and are recorded (`task.record`), calls, timers and promises are
created (`task.fence`). Results reach the code one at a time, and the order in which they do is
numbered (protocol B3), so that a replay can follow it. A step begins only once every number that
its replay could need is stored.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any, Final

from kept.errors import (
    ConfigurationError,
    InvalidArgumentsError,
    LeaseLostError,
    NondeterminismError,
    NotDurableError,
    error_for,
)
from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.limits import MAX_INTEGER, NEVER_MS
from kept.protocol.mailboxes import message_id, message_tags
from kept.protocol.records import EMPTY, PromiseRecord, PromiseState, Value
from kept.protocol.responses import (
    CONFLICT,
    NOT_FOUND,
    RESUME_AT_ONCE,
    UNPROCESSABLE,
    FenceResult,
    HeartbeatResult,
    PreloadResult,
    PromiseResult,
    Response,
)
from kept.sdk import payload
from kept.sdk.annotations import Annotations
from kept.sdk.asks import Ask, Kind, child_id, promise_name, stored_arguments
from kept.sdk.audit import Audit, audit_of, carried_tags
from kept.sdk.cancellation import Cancellation
from kept.sdk.context import Context
from kept.sdk.durable_values import Draws, Info, info_of
from kept.sdk.functions import Function
from kept.sdk.history import History
from kept.sdk.lease import Lease
from kept.sdk.loop import DurableLoop
from kept.sdk.mailboxes import Mailboxes
from kept.sdk.patches import Patches
from kept.sdk.releases import Releases
from kept.sdk.services import NOT_STORABLE, Services
from kept.sdk.steps import Steps
from kept.sdk.verdicts import RejectJob, RetryJob
from kept.sdk.watching import LOOK_SECONDS, Watch

log = logging.getLogger("kept.worker")

MS: Final = 1_000

# Things that one run may have asked for and not got yet. Each suspension names them all, so more
# would cost the engine too much at once, and soon not fit into a request.
MAX_OPEN_ASKS: Final = 10_000
# Creates that are under way at one time.
MAX_CONCURRENT_CREATES: Final = 500
# Numbers that each of several requests may carry; more are stored by one request of their own.
MAX_CARRIED_BY_EACH: Final = 32
# Above so many it is cheaper to page through all children than to look at each awaited promise.
MAX_SINGLE_LOOKS: Final = 64
# After a wake-up, looking at many promises waits this many times as long as the last look took, so
# that a wide fan-in whose parts end one by one spends its time working, not looking.
LOOK_REST_FACTOR: Final = 3.0
LONGEST_LOOK_REST_SECONDS: Final = 1.0
# A replay gives results to the code in one go; others on the worker's loop get a turn in between.
RELEASES_PER_TURN: Final = 64


class Execution:
    """The run of one durable function; it outlives a suspension when the worker keeps it."""

    def __init__(self, lease: Lease, function: Function[..., Any], services: Services) -> None:
        self.id = lease.promise.id
        self.lease = lease
        self._function = function
        self._services = services
        self._origin = lease.promise.tags.get(tag.ORIGIN, self.id)
        self._loop = DurableLoop(self)
        self._annotations = Annotations()
        self._mailboxes = Mailboxes(self, self._loop)
        self._logical_now = lease.promise.created_at
        self.draws = Draws(lease.promise)
        self._asks: dict[str, Ask] = {}
        self._new_asks: list[Ask] = []
        self._timers: dict[str, float] = {}
        # Calls that nobody waits for any more, to be canceled where they run.
        self._abandoned: dict[str, Ask] = {}
        self._held_back: list[Ask] = []
        self._history = History()
        self._patches = Patches(self.id, self._history)
        self._releases = Releases()
        self._released_count = 0
        # What the code waits for, and what of it is settled and can be given to it. Recorded steps
        # come first: what else a replay finds settled may have settled since.
        self._open_steps: set[str] = set()
        self._open_others: set[str] = set()
        self._ready_steps: deque[str] = deque()
        self._ready: deque[str] = deque()
        self._awaited: dict[str, Ask] = {}
        self._cancellation = Cancellation(lease)
        self._progress = asyncio.Event()
        self._fault: BaseException | None = None
        self._steps = Steps(services, self._record, self._recorded, self._failed, self._progress)
        self._watch = Watch(services, self._learned, self._failed)
        self._look_seconds = 0.0

    @property
    def attempt(self) -> int:
        return self.lease.attempt

    @property
    def audit(self) -> Audit:
        return audit_of(self.lease.promise.tags)

    @property
    def info(self) -> Info:
        return info_of(self.lease.promise, self.attempt)

    @property
    def step_key(self) -> str:
        return child_id(self.id, self._loop.coming_step())

    # -- the life of a run -------------------------------------------------------------------

    async def begin(self) -> bool:
        """Runs the function from its start, following what is recorded.

        True when the work is finished, False when it is suspended. Raises `LeaseLostError` when
        somebody else may hold the task, `NondeterminismError`, `InvalidArgumentsError`, and the
        loop's `DeadlockError` and `NoProgressError`.
        """
        args, kwargs = self._function.converted(payload.decode_arguments(self.lease.promise.param))
        if self.lease.version > 1:
            self._check_numbering()
            await self._history.load(self._services.connection, self.id)
        self._loop.start(self._function.plain(Context(self), *args, **kwargs))
        self._loop.run_ready()
        return await self._drive()

    def _check_numbering(self) -> None:
        """What a former holder recorded can only be followed by code that names steps as it did."""
        headers = self.lease.promise.param.headers or {}
        for name, ours in self._services.root_headers.items():
            recorded = headers.get(name, ours)
            if recorded == ours:
                continue
            if name == payload.NUMBERING_HEADER:
                raise NondeterminismError(
                    f"{self.id} numbers its steps by scheme {recorded}, this version of kept by "
                    f"{ours}: let a worker of the version that started it finish it"
                )
            # Most code names its steps alike on both; what differs is found when it is asked for.
            log.warning("%s was started on Python %s and goes on on %s", self.id, recorded, ours)

    async def go_on(self, lease: Lease) -> bool:
        """Continues in place after a suspension, under the next lease. Raises as `begin` does."""
        self.lease = lease
        self._cancellation.hear(lease)
        if len(self._awaited) > MAX_SINGLE_LOOKS:
            rest = min(self._look_seconds * LOOK_REST_FACTOR, LONGEST_LOOK_REST_SECONDS)
            await self._services.runtime.sleep(rest)
        await self._look_at_awaited()
        return await self._drive()

    def cancel(self) -> None:
        """The work is asked to stop: the code hears it at its next rest (B3)."""
        self._cancellation.ask()
        self._progress.set()

    async def close(self) -> None:
        """Stops what runs here and lets go; the work goes on later, from its records."""
        self._watch.stop()
        try:
            await self._steps.close()
        finally:
            self._loop.close()

    def drop(self) -> None:
        """Lets go of a suspended run, which has nothing to stop."""
        self._loop.close()

    async def _drive(self) -> bool:
        while True:
            if self._fault is not None:
                raise self._fault
            if self._mailboxes.release_returned():
                self._loop.run_ready()
            elif self._annotations.waiting and not self._history.is_followed:
                await self._annotate()
            elif self._patches:
                await self._mark_patches()
            elif self._timers or self._new_asks or self._abandoned:
                await self._do_asked()
            elif self._cancel_branches():
                self._loop.run_ready()
            elif self._release_next():
                self._loop.run_ready()
                if self._released_count % RELEASES_PER_TURN == 0:
                    await asyncio.sleep(0)
            elif self._cancellation.set_aside:
                await self._release_canceled()
            elif self._held_back:
                await self._start_steps()
            elif self._is_stuck():
                self._loop.run_ready()
            elif len(self._steps):
                await self._wait_for_progress()
            elif self._is_finished():
                await self._fulfill()
                return True
            elif await self._suspended():
                return False

    def _is_stuck(self) -> bool:
        """What the code waits for cannot come: branches that outlive their root are cancelled."""
        deadlock = self._loop.deadlock()
        if deadlock is None:
            return False
        root = self._loop.root
        assert root is not None
        if not root.done() or not self._loop.cancel_root():
            raise deadlock
        return True

    def _is_finished(self) -> bool:
        """The code is done, and so is all that it started (structured concurrency)."""
        root = self._loop.root
        assert root is not None
        if not root.done() or self._loop.open_tasks():
            return False
        return not any(ask.kind is Kind.CALL for ask in self._awaited.values())

    def _failed(self, error: BaseException) -> None:
        self._fault = self._fault or error
        self._progress.set()

    # -- what the code asks (ContextHost) ------------------------------------------------------

    def ask_run(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> asyncio.Future[Any]:
        step_function = self._services.as_function(function)
        if step_function.durable:
            raise ConfigurationError(
                f"{step_function.name} takes a Context: call it with ctx.call, not ctx.run"
            )
        if step_function.timeout_ms is not None:
            raise ConfigurationError(
                f"{step_function.name}: timeout is for calls; put ctx.run into asyncio.timeout()"
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
        self,
        function: Callable[..., Any] | str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        detached: bool = False,
    ) -> asyncio.Future[Any]:
        target = self._services.target_of(function)
        target.check(args, kwargs)
        param = payload.encode_arguments(args, kwargs, self._services.root_headers)
        step = self._loop.next_step()
        carried = carried_tags(self.lease.promise.tags)
        tags = self._child_tags({**carried, **target.all_tags})
        if detached:
            tags[tag.DETACHED] = "true"
        now = self._wall_now()
        deadline = NEVER_MS if target.function is None else target.function.deadline_at(now)
        create = r.PromiseCreate(child_id(self.id, step), deadline, param, tags)
        kind = Kind.DETACHED if detached else Kind.CALL
        return self._asked(Ask(kind, step, create, expected=target.returns, target=target))

    def ask_promise(self, name: str, timeout: float | None, expected: Any) -> asyncio.Future[Any]:
        id = child_id(self.id, promise_name(name))
        deadline = NEVER_MS
        if timeout is not None:
            deadline = min(math.ceil(self._wall_now() + timeout * MS), MAX_INTEGER - 1)
        step = self._loop.next_step()
        create = r.PromiseCreate(id, deadline, EMPTY, self._child_tags({tag.EXTERNAL: "true"}))
        return self._asked(Ask(Kind.PROMISE, step, create, expected=expected))

    def patched(self, name: str) -> bool:
        return self._patches.takes(name, self.step_key)

    async def _mark_patches(self) -> None:
        """Before anything else that the code has asked for since."""
        for create in self._patches.take_unstored(self._child_tags({})):
            self._accepted(await self._stored(create, PromiseState.RESOLVED, EMPTY))

    def ask_until(self, instant: int) -> asyncio.Future[Any]:
        step = self._loop.next_step()
        tags = self._child_tags({tag.TIMER: "true"})
        create = r.PromiseCreate(child_id(self.id, step), max(instant, 0), EMPTY, tags)
        return self._asked(Ask(Kind.TIMER, step, create))

    async def receive(self, name: str, expected: Any) -> Any:
        return await self._mailboxes.receive(name, expected)

    def annotate(
        self, values: dict[str, str | float | bool | None], progress: float | None
    ) -> None:
        self._annotations.set(values)
        if progress is not None:
            self._annotations.progress(progress)

    async def _annotate(self) -> None:
        request = self._annotations.take(self.id, self.lease.version)
        response = await self._services.connection.send(request)
        if response.status == UNPROCESSABLE:
            # Too many, with those of a former version of the code. No reason for the work to fail.
            log.warning("%s: what it says of itself is not stored: %s", self.id, response.data)
        else:
            self._accepted(response)

    # -- messages (MailboxHost) ------------------------------------------------------------------

    def message_ask(self, name: str, number: int) -> Ask:
        id = message_id(self.id, name, number)
        # As the sender makes it: whoever comes first creates it.
        tags = message_tags(self.id, name, self._origin)
        create = r.PromiseCreate(id, self.lease.promise.timeout_at, EMPTY, tags)
        ask = self._asks[id] = Ask(Kind.MESSAGE, "", create)
        return ask

    def ask_message(self, ask: Ask) -> None:
        self._new_asks.append(ask)
        self._open_others.add(ask.id)

    def withdraw_message(self, ask: Ask) -> None:
        self._closed(ask.id)
        self._watch.forget(ask.id)
        self._awaited.pop(ask.id, None)

    def _child_tags(self, tags: dict[str, str]) -> dict[str, str]:
        lineage = {tag.ORIGIN: self._origin, tag.PARENT: self.id, tag.BRANCH: self.id}
        if self._cancellation.delivered:
            # What canceled code asks for, it needs to clean up: it is not canceled with the rest.
            lineage[tag.COMPENSATION] = "true"
        return {**lineage, **tags}

    def _asked(self, ask: Ask) -> asyncio.Future[Any]:
        if ask.id in self._asks:
            raise ConfigurationError(f"{ask.id} was asked for before: give it another name")
        if len(self._open_steps) + len(self._open_others) >= MAX_OPEN_ASKS:
            raise ConfigurationError(
                f"the workflow waits for {MAX_OPEN_ASKS:,} things at one time already; divide the "
                "work among calls that each wait for a part"
            )
        self._asks[ask.id] = ask
        self._new_asks.append(ask)
        (self._open_steps if ask.kind is Kind.RUN else self._open_others).add(ask.id)
        return self._loop.external(ask.step, on_cancel=lambda _: self._canceled(ask))

    def _closed(self, id: str) -> None:
        self._open_steps.discard(id)
        self._open_others.discard(id)

    def _canceled(self, ask: Ask) -> None:
        """The code does not wait for it any more: what works on it is stopped."""
        self._closed(ask.id)
        self._watch.forget(ask.id)
        if ask.kind is Kind.RUN:
            self._steps.cancel(ask.id)
        if ask.kind is not Kind.CALL:
            self._awaited.pop(ask.id, None)
        elif ask.id in self._awaited:
            # It stays among the awaited: this work does not end before it has stopped.
            self._abandoned[ask.id] = ask

    # -- time (TimerHost) ----------------------------------------------------------------------

    def now(self) -> float:
        return self._logical_now / MS

    def arm(self, timer_id: str, when: float, handle: asyncio.TimerHandle) -> None:
        self._timers[timer_id] = when

    def disarm(self, timer_id: str) -> None:
        id = child_id(self.id, timer_id)
        self._timers.pop(timer_id, None)
        self._closed(id)
        self._awaited.pop(id, None)
        self._watch.forget(id)

    def _wall_now(self) -> int:
        return max(self._services.runtime.now_ms(), self._logical_now)

    def _take_timers(self) -> list[Ask]:
        """Timers that are still armed now that the code is quiet become durable.

        Their time counts from now. Logical time stands where the last result left it, which may be
        long ago when no worker was there; a replay takes the deadline that was recorded.
        """
        late = self._wall_now() - self._logical_now
        asks: list[Ask] = []
        for timer_id, when in self._timers.items():
            deadline = NEVER_MS
            if not math.isinf(when):
                deadline = min(math.ceil(when * MS) + late, NEVER_MS - 1)
            tags = self._child_tags({tag.TIMER: "true"})
            create = r.PromiseCreate(child_id(self.id, timer_id), deadline, EMPTY, tags)
            ask = Ask(Kind.TIMER, timer_id, create)
            self._asks[ask.id] = ask
            self._open_others.add(ask.id)
            asks.append(ask)
        self._timers.clear()
        return asks

    # -- doing what was asked -------------------------------------------------------------------

    async def _do_asked(self) -> None:
        """Starts what is new; what is recorded already only waits for its release."""
        asks = [*self._new_asks, *self._take_timers()]
        self._new_asks = []
        steps: list[Ask] = []
        creates: list[Ask] = []
        detached: list[Ask] = []
        for ask in asks:
            if not self._loop.waits_for(ask.step):
                # Cancelled in the same breath, as it will be in every replay.
                continue
            record = self._history.get(ask.id)
            if record is not None:
                ask.check(record)
            if ask.kind is Kind.DETACHED:
                detached.append(ask)
                creates += [ask] if record is None else []
            elif record is not None and record.state is not PromiseState.PENDING:
                self._settled(ask, record)
            elif ask.kind is Kind.RUN:
                steps.append(ask)
            elif record is not None:
                self._awaited[ask.id] = ask
            else:
                creates.append(ask)
        await self._create_all(creates)
        self._let_go(detached)
        await self._cancel_abandoned()
        self._held_back += steps
        if not self._history.is_followed and not self._cancellation.waits:
            await self._start_steps()

    async def _start_steps(self) -> None:
        """Begins steps, as far as the code still waits for them.

        Not while a replay follows the recorded order, because what comes next in it may cancel them.
        """
        steps, self._held_back = self._held_back, []
        steps = [ask for ask in steps if self._loop.waits_for(ask.step)]
        if steps and self._releases.ambiguous:
            await self._store_releases()
        for ask in steps:
            self._steps.start(ask)

    async def _create_all(self, asks: list[Ask]) -> None:
        remaining = iter(asks)
        while some := list(islice(remaining, MAX_CONCURRENT_CREATES)):
            if len(self._releases) > MAX_CARRIED_BY_EACH:
                await self._store_releases()
            responses = await asyncio.gather(*[self._create(ask) for ask in some])
            for ask, response in zip(some, responses, strict=True):
                self._created(ask, response)

    async def _create(self, ask: Ask) -> Response:
        if ask.target is not None:
            # A replay finds the promise as it was made: who is announced then does not matter.
            target = await self._services.routed(ask.target)
            ask.create.tags.update(target.all_tags)
        return await self._fence(r.CreateAction(ask.create))

    async def _fence(self, action: r.CreateAction | r.SettleAction | r.CancelAction) -> Response:
        version = self.lease.version
        return await self._releases.carried(
            lambda released: self._services.connection.send(
                r.TaskFence(self.id, version, action, released)
            )
        )

    async def _store_releases(self) -> None:
        """Stores the order by itself: settling what is settled already changes nothing else."""
        last = self._releases.last
        again = r.PromiseSettle(last, PromiseState.RESOLVED)
        if last == self.id:
            # The cancellation is no promise; and into this state nobody can settle anything.
            again = r.PromiseSettle(child_id(self.id, "!"), PromiseState.PENDING)
        self._accepted(await self._fence(r.SettleAction(again)))

    async def _cancel_abandoned(self) -> None:
        """Calls that the code cancelled are canceled where they run."""
        abandoned, self._abandoned = self._abandoned, {}
        for id in abandoned:
            result = self._accepted(await self._fence(r.CancelAction(r.PromiseCancel(id))))
            assert isinstance(result, FenceResult)
            if isinstance(result.action.data, PromiseResult):
                self._learned(result.action.data.promise)

    def _created(self, ask: Ask, response: Response) -> None:
        if response.status in NOT_STORABLE:
            self._refused(ask, response.status, str(response.data))
            return
        result = self._accepted(response)
        assert isinstance(result, FenceResult)
        inner = result.action.data
        if isinstance(inner, str):
            self._refused(ask, result.action.head.status, inner)
            return
        ask.check(inner.promise)
        if ask.kind is Kind.DETACHED:
            return
        if self._loop.waits_for(ask.step):
            self._awaited[ask.id] = ask
        self._learned(inner.promise)

    def _let_go(self, detached: list[Ask]) -> None:
        """Who detached work is told that it is there, at once, as in every replay."""
        for ask in detached:
            if self._loop.release(ask.step, ask.id):
                self._closed(ask.id)
                self._loop.run_ready()

    def _refused(self, ask: Ask, status: int, text: str) -> None:
        """The code gets the error at once: the same request is refused alike in every replay."""
        self._closed(ask.id)
        step = self._mailboxes.take(ask) if ask.kind is Kind.MESSAGE else ask.step
        if self._loop.release_error(step, error_for(status, text)):
            self._loop.run_ready()

    def _learned(self, record: PromiseRecord) -> None:
        """A record as it is now; a settled one is to be given to the code."""
        self._history.put(record)
        if record.state is not PromiseState.PENDING:
            self._settled(self._asks[record.id], record)
            self._progress.set()

    def _settled(self, ask: Ask, record: PromiseRecord) -> None:
        self._awaited.pop(record.id, None)
        if self._history.numbered(record.id):
            return
        if ask.kind is not Kind.RUN:
            if not self._cancellation.sets_aside(record):
                self._ready.append(record.id)
        elif record.state is not PromiseState.REJECTED_CANCELED:
            # The others were cancelled by the code, which will do so again.
            self._ready_steps.append(record.id)

    # -- steps ---------------------------------------------------------------------------------

    async def _record(self, ask: Ask, state: PromiseState, value: Value) -> Response:
        return await self._stored(ask.create, state, value)

    async def _stored(self, step: r.PromiseCreate, state: PromiseState, value: Value) -> Response:
        version = self.lease.version
        return await self._releases.carried(
            lambda released: self._services.connection.send(
                r.TaskRecordStep(self.id, version, step, state, value, released)
            )
        )

    def _recorded(self, response: Response) -> None:
        result = self._accepted(response)
        assert isinstance(result, PromiseResult)
        self._learned(result.promise)

    async def _wait_for_progress(self) -> None:
        """Until a step is over, or something else that the code waits for."""
        timers = [ask for ask in self._awaited.values() if ask.kind is Kind.TIMER]
        records = [record for ask in timers if (record := self._history.get(ask.id))]
        earliest = min(records, key=lambda record: record.timeout_at, default=None)
        others = (id for id, ask in self._awaited.items() if ask.kind is not Kind.TIMER)
        self._watch.look_at(others, earliest)
        try:
            with self._services.motion.waiting():
                async with asyncio.timeout(LOOK_SECONDS if self._watch.full else None):
                    await self._progress.wait()
        except TimeoutError:
            await self._look_at_awaited()
        self._progress.clear()

    # -- releasing results to the code -----------------------------------------------------------

    def _release_next(self) -> bool:
        """Gives the code its next result: in the recorded order first, then as they come."""
        if self._history.take(self.id):
            # Its own id stands for the cancellation.
            self._deliver_cancellation()
            return True
        record = self._history.next(self._asks, self._loop.waiting)
        if record is None:
            record = self._next_ready()
        if record is None:
            if not self._cancellation.waits:
                return False
            self._releases.add(self.id, ambiguous=True)
            self._deliver_cancellation()
            return True
        self._released_count += 1
        self._release(self._asks[record.id], record)
        return True

    def _next_ready(self) -> PromiseRecord | None:
        """The next result that has no number yet and that the code waits for."""
        while self._ready_steps or self._ready:
            id = self._ready_steps.popleft() if self._ready_steps else self._ready.popleft()
            ask, record = self._asks[id], self._history.get(id)
            assert record is not None
            if not self._loop.waits_for(ask.step):
                continue
            self._closed(id)
            ambiguous = bool(self._open_steps)
            if ask.kind is not Kind.RUN:
                ambiguous = bool(self._open_steps or self._open_others)
            self._releases.add(id, ambiguous=ambiguous)
            return record
        return None

    def _release(self, ask: Ask, record: PromiseRecord) -> None:
        self._closed(ask.id)
        self._logical_now = max(self._logical_now, record.settled_at or 0)
        if ask.kind is Kind.TIMER:
            # asyncio's, or one that the code awaits by itself.
            if not self._loop.fire(ask.step):
                self._loop.release(ask.step, None)
            return
        if ask.kind is Kind.MESSAGE:
            self._loop.release(self._mailboxes.take(ask), record)
            return
        error = payload.outcome_error(record)
        if error is None:
            try:
                self._loop.release(ask.step, payload.decode(record.value, ask.expected))
            except InvalidArgumentsError as misfit:
                self._loop.release_error(ask.step, misfit)
        else:
            self._loop.release_error(ask.step, error)

    # -- cancellation ------------------------------------------------------------------------------

    def _deliver_cancellation(self) -> None:
        """The code sees `CancelledError` where it waits; what it has called is canceled too."""
        self._ready += self._cancellation.deliver()
        for id, ask in self._awaited.items():
            if ask.kind is Kind.CALL:
                self._abandoned[id] = ask
        self._loop.cancel_root()

    def _cancel_branches(self) -> bool:
        """Branches that outlive their canceled root are canceled too, once."""
        root = self._loop.root
        assert root is not None
        if not root.done() or not self._cancellation.take_branches():
            return False
        return self._loop.cancel_root()

    async def _release_canceled(self) -> None:
        """Something was canceled that the code did not cancel: perhaps because this work is. Then
        the code hears that first."""
        ref = r.TaskRef(self.id, self.lease.version)
        request = r.TaskHeartbeat(self.lease.pid, [ref], report=True)
        result = self._accepted(await self._services.connection.send(request))
        assert isinstance(result, HeartbeatResult)
        if result.lost:
            raise LeaseLostError(f"{self.id}: {result.lost[0].reason}")
        if self.id in (result.cancel or ()):
            self._cancellation.ask()
        else:
            self._ready += self._cancellation.take_aside()

    # -- the end of a lease ------------------------------------------------------------------------

    async def _fulfill(self) -> None:
        root = self._loop.root
        assert root is not None
        state, value = PromiseState.RESOLVED, EMPTY
        if root.cancelled():
            state = PromiseState.REJECTED_CANCELED
        elif isinstance(error := root.exception(), RejectJob):
            raise error
        elif error is not None:
            state, value = PromiseState.REJECTED, payload.encode_error(_refused(error))
        else:
            try:
                value = payload.encode(root.result())
            except TypeError as misfit:
                state, value = PromiseState.REJECTED, payload.encode_error(misfit)
        await self._services.fulfill(self.lease, state, value, self._releases)

    async def _suspended(self) -> bool:
        """Parks the task until something awaited settles; False where it has settled already."""
        if not self._awaited:
            raise NondeterminismError(
                f"the code waits for step {', '.join(self._loop.waiting())}, which it cancelled "
                "when it ran before: it took another way this time"
            )
        self._watch.stop()
        actions = [r.CallbackAction(r.PromiseRegisterCallback(id, self.id)) for id in self._awaited]
        version = self.lease.version
        self.lease.ending = True
        response = await self._releases.carried(
            lambda released: self._services.connection.send(
                r.TaskSuspend(self.id, version, actions, released, preload=0)
            )
        )
        self._accepted(response)
        if response.status != RESUME_AT_ONCE:
            return True
        self.lease.ending = False
        if self.lease.lost is not None:
            # The answer was so late that another worker may have begun.
            raise LeaseLostError(f"{self.id}: {self.lease.lost} while it was being suspended")
        await self._look_at_awaited()
        return False

    async def _look_at_awaited(self) -> None:
        """Learns which of the awaited promises have settled."""
        started = self._services.runtime.monotonic()
        if len(self._awaited) > MAX_SINGLE_LOOKS:
            await self._look_at_children()
        else:
            looks = [self._services.connection.send(r.PromiseGet(id)) for id in self._awaited]
            for response in await asyncio.gather(*looks):
                result = self._accepted(response)
                assert isinstance(result, PromiseResult)
                self._look_at(result.promise)
        self._look_seconds = self._services.runtime.monotonic() - started

    async def _look_at_children(self) -> None:
        cursor: str | None = None
        while True:
            request = r.PromiseChildren(self.id, cursor)
            page = self._accepted(await self._services.connection.send(request))
            assert isinstance(page, PreloadResult)
            for record in page.preload:
                self._look_at(record)
            cursor = page.more
            if cursor is None:
                return

    def _look_at(self, record: PromiseRecord) -> None:
        if record.state is not PromiseState.PENDING and record.id in self._awaited:
            self._learned(record)

    def _accepted(self, response: Response) -> Any:
        """The data of an answer. A conflict under a lease means that the lease is lost."""
        if response.ok:
            return response.data
        if response.status in (CONFLICT, NOT_FOUND):
            raise LeaseLostError(f"{self.id}: {response.data}")
        raise error_for(response.status, str(response.data))


def _refused(error: BaseException) -> BaseException:
    """What durable code ended with; as a replay ends in the same way, it cannot be tried again."""
    if not isinstance(error, RetryJob):
        return error
    return NotDurableError("RetryJob is for jobs and steps: durable code waits with ctx.sleep()")
