"""The worker: claims tasks, runs their functions, keeps their leases, and lets go in good order."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import OrderedDict
from typing import Final

import msgspec

from kept.errors import (
    ConfigurationError,
    ConnectionFailedError,
    InvalidArgumentsError,
    KeptError,
    LeaseLostError,
    NondeterminismError,
    RequestError,
    UnregisteredError,
)
from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.limits import MAX_CLAIM_TASKS, MAX_INTEGER
from kept.protocol.records import EMPTY, PromiseState
from kept.protocol.responses import ClaimResult, HeartbeatResult, NackResult
from kept.sdk import payload
from kept.sdk.announcing import Announcer
from kept.sdk.audit import JobFields, enter_job
from kept.sdk.execution import Execution
from kept.sdk.functions import Function
from kept.sdk.lease import Lease
from kept.sdk.loop import DeadlockError, NoProgressError
from kept.sdk.releases import Releases
from kept.sdk.retry import may_retry, next_wait
from kept.sdk.services import HOLDER, Services
from kept.sdk.verdicts import RejectJob, RetryJob

log = logging.getLogger("kept.worker")
log.addFilter(JobFields())

MIN_TTL_SECONDS: Final = 0.1
CLAIM_WAIT_MS: Final = 20_000
HEARTBEATS_PER_TTL: Final = 3
# Suspended workflows that a worker keeps in memory, to continue them without a replay.
MAX_CACHED: Final = 1_000
# A claim looks at each function's place in a queue; with more functions it takes whatever is there.
MAX_CLAIMED_FUNCTIONS: Final = 200
UNREGISTERED_DELAY_MS: Final = 5_000
FAULT_DELAY_SECONDS: Final = 1.0
STOP_GRACE_SECONDS: Final = 10.0
# How long work that is told to stop may take for its own clean-up.
HAND_BACK_SECONDS: Final = 6.0
_UUID_BYTES: Final = 16


class Worker:
    """Works on the tasks of some queues with the functions of a registry.

    `ttl` is how long, in seconds, a lease lasts without a heartbeat: after a crash, the work goes
    on elsewhere once it has passed. `concurrency` bounds the tasks held at one time, `cache` the
    suspended workflows that are kept in memory.
    """

    def __init__(
        self,
        services: Services,
        *,
        queues: tuple[str, ...],
        ttl: float = 30.0,
        concurrency: int = 100,
        cache: int = MAX_CACHED,
    ) -> None:
        if ttl < MIN_TTL_SECONDS:
            raise ConfigurationError(f"ttl: must be at least {MIN_TTL_SECONDS} seconds")
        self._services = services
        self._queues = queues
        self._ttl = ttl
        self._concurrency = min(concurrency, MAX_CLAIM_TASKS)
        self._cache = cache
        self.pid = f"worker-{services.runtime.entropy(8).hex()}"
        self._announcer = Announcer(
            services.connection, services.runtime, services.registry, self.pid, queues
        )
        self._held: dict[str, tuple[Lease, asyncio.Task[None]]] = {}
        # In the order in which they began: that of a set of tasks is their place in memory.
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._cached: OrderedDict[str, Execution] = OrderedDict()
        self._room = asyncio.Event()
        self._stopping = False
        self._loops: list[asyncio.Task[None]] = []
        # A claim whose answer is not known: asked again under the same id, it answers the same.
        self._unanswered: tuple[r.TaskClaim, str] | None = None

    def start(self) -> None:
        """Begins to claim and to send heartbeats."""
        spawn = self._services.runtime.spawn
        self._loops = [
            spawn(self._claim_always(), "kept-claim"),
            spawn(self._announcer.announce_always(), "kept-announce"),
            spawn(self._beat_always(), "kept-heartbeat"),
            spawn(self._look_always(), "kept-leases"),
        ]

    async def stop(self, grace: float = STOP_GRACE_SECONDS) -> None:
        """Claims no more, gives what runs `grace` seconds, and hands back the rest."""
        self._stopping = True
        claiming, announcing, *others = self._loops
        claiming.cancel()
        announcing.cancel()
        await asyncio.gather(claiming, announcing, return_exceptions=True)
        leaving = self._services.runtime.spawn(self._announcer.leave(), "kept-leave")
        await self._return_unanswered()
        if self._tasks and grace > 0:
            await asyncio.wait(self._tasks, timeout=grace)
        await self._hand_back()
        for loop in others:
            loop.cancel()
        await asyncio.gather(leaving, *others, return_exceptions=True)
        for execution in self._cached.values():
            execution.drop()
        self._cached.clear()

    async def _return_unanswered(self) -> None:
        """What a claim took while it was being given up goes back at once."""
        if self._unanswered is None:
            return
        request, request_id = self._unanswered
        again = msgspec.structs.replace(request, limit=1, wait=0)
        try:
            response = await self._services.connection.send(again, request_id=request_id)
        except ConnectionFailedError as error:
            log.warning("cannot hand back what was just claimed; its lease will expire: %s", error)
            return
        if isinstance(response.data, ClaimResult):
            await self._release([Lease(acquired) for acquired in response.data.tasks])

    async def _hand_back(self) -> None:
        left = [lease for lease, _ in self._held.values()]
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=HAND_BACK_SECONDS)
        stuck = [lease for lease in left if self._services.is_in_thread(lease.id)]
        for lease in stuck:
            # Handed back, it would run here and elsewhere at the same time.
            log.warning("%s: its function still runs in a thread; the lease will expire", lease.id)
        await self._release([lease for lease in left if lease not in stuck])

    async def _release(self, leases: list[Lease]) -> None:
        releases = [r.TaskRelease(lease.id, lease.version) for lease in leases]
        send = self._services.connection.send
        await asyncio.gather(*(send(release) for release in releases), return_exceptions=True)

    # -- claiming and beating --------------------------------------------------------------------

    async def _claim_always(self) -> None:
        while not self._stopping:
            room = self._concurrency - len(self._tasks)
            if room <= 0:
                self._room.clear()
                await self._room.wait()
                continue
            try:
                await self._claim(room)
            except (ConnectionFailedError, RequestError) as error:
                log.warning("cannot claim, trying again: %s", error)
                await self._services.runtime.sleep(FAULT_DELAY_SECONDS)
            except Exception:
                # Whatever it is, a worker that stopped claiming would look alive and do nothing.
                log.exception("cannot claim, trying again")
                await self._services.runtime.sleep(FAULT_DELAY_SECONDS)

    async def _claim(self, room: int) -> None:
        if self._unanswered is None:
            request = r.TaskClaim(
                list(self._queues),
                self.pid,
                int(self._ttl * 1_000),
                limit=room,
                wait=CLAIM_WAIT_MS,
                functions=self._functions(),
                preload=0,
            )
            entropy = self._services.runtime.entropy(_UUID_BYTES)
            self._unanswered = request, str(uuid.UUID(bytes=entropy, version=4))
        request, request_id = self._unanswered
        response = await self._services.connection.send(request, request_id=request_id)
        self._unanswered = None
        if not isinstance(response.data, ClaimResult):
            raise RequestError(str(response.data), response.status)
        now = self._services.runtime.monotonic()
        for acquired in response.data.tasks:
            lease = Lease(acquired, now)
            self._supersede(lease)
            task = self._services.runtime.spawn(self._work(lease), f"kept-task-{lease.id}")
            self._held[lease.id] = (lease, task)
            self._tasks[task] = None
            task.add_done_callback(self._task_ended)

    def _supersede(self, lease: Lease) -> None:
        """A task that comes again while it is held is lost under its former version: that run hears
        of no heartbeat any more, and must not go on beside the new one."""
        former = self._held.get(lease.id)
        if former is not None:
            self._lose(former[0], f"version {lease.version} has been claimed")

    def _functions(self) -> list[str] | None:
        """What this worker can run; others may have what it cannot (B9)."""
        names = self._services.registry.names()
        return names if 0 < len(names) <= MAX_CLAIMED_FUNCTIONS else None

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        self._room.set()

    async def _beat_always(self) -> None:
        runtime, pause = self._services.runtime, self._ttl / HEARTBEATS_PER_TTL
        rest = pause
        while True:
            await runtime.sleep(rest)
            started = runtime.monotonic()
            try:
                await self._beat()
            except (ConnectionFailedError, RequestError) as error:
                log.warning("a heartbeat failed: %s", error)
            except Exception:
                # Without heartbeats, all work would be lost to other workers again and again.
                log.exception("a heartbeat failed")
            # From start to start: after a slow answer, a whole pause more could outlast the lease.
            rest = max(0.0, pause - (runtime.monotonic() - started))

    async def _look_always(self) -> None:
        """Beside the heartbeats: one that is not answered may take much longer than a lease."""
        while True:
            await self._services.runtime.sleep(self._ttl / HEARTBEATS_PER_TTL)
            self._stop_expired()

    async def _beat(self) -> None:
        """Extends all leases; stops the work of those that are lost."""
        held = [lease for lease, _ in self._held.values()]
        if not held:
            return
        started = self._services.runtime.monotonic()
        refs = [r.TaskRef(lease.id, lease.version) for lease in held]
        request = r.TaskHeartbeat(self.pid, refs, report=True)
        response = await self._services.connection.send(request)
        if not isinstance(response.data, HeartbeatResult):
            raise RequestError(str(response.data), response.status)
        lost = {(one.id, one.version): one.reason for one in response.data.lost or ()}
        for lease in held:
            reason = lost.get((lease.id, lease.version))
            if reason is None:
                lease.confirmed_at = started
            else:
                self._lose(lease, reason)
        for id in response.data.cancel or ():
            self._cancel(id)

    def _cancel(self, id: str) -> None:
        """Asks work to stop, where it can; it is told so by every heartbeat."""
        lease, _ = self._held.get(id, (None, None))
        if lease is not None and lease.on_cancel is not None and not lease.ending:
            log.info("%s: asked to stop", id, extra={"lease": lease})
            on_cancel, lease.on_cancel = lease.on_cancel, None
            on_cancel()

    def _stop_expired(self) -> None:
        """Without an answer for a whole ttl, another worker may have begun already."""
        now = self._services.runtime.monotonic()
        for lease, _ in list(self._held.values()):
            if now - lease.confirmed_at > self._ttl:
                self._lose(lease, "no heartbeat was answered for its ttl")

    def _lose(self, lease: Lease, reason: str) -> None:
        held = self._held.get(lease.id)
        lease.lost = lease.lost or reason
        if held is not None and held[0] is lease and not lease.ending:
            about = {"lease": lease}
            log.warning("%s: the lease is lost (%s), stopping", lease.id, reason, extra=about)
            # Once: a second cancellation would break into the stopping.
            lease.ending = True
            held[1].cancel()

    # -- working ------------------------------------------------------------------------------------

    async def _work(self, lease: Lease) -> None:
        """Works on one task until it is finished, suspended, failed or lost."""
        HOLDER.set(lease.id)
        enter_job(lease)
        try:
            with self._services.motion.working():
                await self._run(lease)
        except LeaseLostError as error:
            log.info("another worker may go on: %s", error)
        except ConnectionFailedError as error:
            log.warning("%s: broken off: %s", lease.id, error)
            # The server may be back: then nobody has to wait for the lease to expire.
            lease.ending = True
            await self._release([lease])
        except Exception as error:
            # A fault of ours, or of the engine: others get the task, each time after a longer wait.
            log.exception("%s: a fault of the worker", lease.id)
            await self._nack_fault(lease, error)
        finally:
            held = self._held.get(lease.id)
            if held is not None and held[0] is lease:
                del self._held[lease.id]

    async def _nack_fault(self, lease: Lease, error: Exception) -> None:
        try:
            await self._nack(lease, error, "fault")
        except KeptError as second:
            log.warning("%s: cannot be handed back, its lease will expire: %s", lease.id, second)

    async def _run(self, lease: Lease) -> None:
        try:
            function = self._function_of(lease)
            if function.durable:
                await self._run_durable(lease, function)
            else:
                await self._run_job(lease, function)
        except UnregisteredError as error:
            # Another worker may have it; this is no failure of the work.
            await self._nack(
                lease, error, "unregistered", delay=UNREGISTERED_DELAY_MS, consume=False
            )
        except RejectJob as error:
            await self._nack(lease, error, error.reason, final="reject")
        except InvalidArgumentsError as error:
            await self._nack(lease, error, "invalid_arguments", final="reject")
        except NondeterminismError as error:
            log.error("%s: halted: %s", lease.id, error)
            await self._nack(lease, error, "nondeterministic", final="halt")
        except (DeadlockError, NoProgressError) as error:
            failure = payload.encode_error(error)
            await self._services.fulfill(lease, PromiseState.REJECTED, failure, Releases())

    def _function_of(self, lease: Lease) -> Function[..., object]:
        reference = lease.promise.tags.get(tag.FUNCTION)
        if reference is None:
            raise UnregisteredError(f"{lease.id} names no function (tag {tag.FUNCTION})")
        return self._services.registry.by_reference(reference)

    async def _run_job(self, lease: Lease, function: Function[..., object]) -> None:
        """A plain function: its result, or a failure that its policy may try again."""
        args, kwargs = function.converted(payload.decode_arguments(lease.promise.param))
        call = _StoppableCall()
        if function.asynchronous:
            # A thread cannot be stopped: it has until the end of the grace.
            lease.on_cancel = call.stop
        try:
            if lease.cancel_requested_at is not None:
                call.stop()
            value = payload.encode(await self._services.call(function, args, kwargs))
        except asyncio.CancelledError:
            if not call.was_all():
                raise
            await self._services.fulfill(lease, PromiseState.REJECTED_CANCELED, EMPTY, Releases())
            return
        except Exception as error:  # noqa: BLE001 - whatever the job raised is its failure
            lease.on_cancel = None
            await self._failed(lease, function, error, is_last=call.stopped)
            return
        lease.on_cancel = None
        await self._services.fulfill(lease, PromiseState.RESOLVED, value, Releases())

    async def _failed(
        self, lease: Lease, function: Function[..., object], error: Exception, *, is_last: bool
    ) -> None:
        """Another try of a job, or none: as the error says, as its start said, or as the function's
        policy does."""
        policy, delay = function.retry, None
        counts = not isinstance(error, RetryJob) or error.counted
        if isinstance(error, RetryJob):
            delay = error.delay_ms
        is_over = is_last or not may_retry(policy, error)
        if not is_over and counts and tag.BACKOFF not in lease.promise.tags:
            wait = next_wait(policy, lease.attempt, error, self._services.runtime.entropy)
            is_over, delay = (
                wait is None,
                None if wait is None else int(min(wait * 1_000, MAX_INTEGER)),
            )
        if is_over:
            reason, final = "exhausted", lease.promise.tags.get(tag.EXHAUSTED, "reject")
            if isinstance(error, RejectJob):
                reason, final = error.reason, "reject"
            await self._nack(lease, error, reason, final=final)
            log.warning("%s: failed for good: %s", lease.id, _said(error))
            return
        # Not final, it may still be: the engine counts what its start said, and lost workers.
        result = await self._nack(lease, error, None, delay=delay, consume=counts)
        if result.retry_at is None:
            log.warning("%s: failed for good: %s", lease.id, _said(error))
        else:
            left = max(result.retry_at - self._services.runtime.now_ms(), 0) / 1_000
            log.info("%s: failed, again in %.1f s: %s", lease.id, left, _said(error))

    async def _run_durable(self, lease: Lease, function: Function[..., object]) -> None:
        execution = self._cached.pop(lease.id, None)
        if execution is not None and execution.lease.version + 1 != lease.version:
            # Somebody else had it in between and knows more.
            execution.drop()
            execution = None
        going_on = execution is not None
        if execution is None:
            execution = Execution(lease, function, self._services)
        lease.on_cancel = execution.cancel
        try:
            finished = await (execution.go_on(lease) if going_on else execution.begin())
        except BaseException:
            await execution.close()
            raise
        if finished:
            await execution.close()
        else:
            self._keep(execution)

    def _keep(self, execution: Execution) -> None:
        held = self._held.get(execution.id)
        if held is None or held[0] is not execution.lease or self._stopping:
            # Its next lease has come already, and did not find it here.
            execution.drop()
            return
        self._cached[execution.id] = execution
        while len(self._cached) > self._cache:
            _, oldest = self._cached.popitem(last=False)
            oldest.drop()

    async def _nack(
        self,
        lease: Lease,
        error: BaseException,
        reason: str | None,
        *,
        delay: int | None = None,
        final: str | None = None,
        consume: bool = True,
    ) -> NackResult:
        """Files a failed attempt under the lease (B2)."""
        lease.ending = True
        stored = payload.encode_error(error)
        request = r.TaskNack(lease.id, lease.version, delay, stored, reason, final, consume)
        response = await self._services.connection.send(request)
        if not isinstance(response.data, NackResult):
            raise LeaseLostError(f"{lease.id}: {response.data}")
        return response.data


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {payload.error_text(error)}"


class _StoppableCall:
    """A job that runs in the current task and may be asked to stop, as asyncio does it."""

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self.stopped = False

    def stop(self) -> None:
        self.stopped = True
        self._task.cancel()

    def was_all(self) -> bool:
        """Whether nothing else ends the task; then it goes on."""
        if not self.stopped or self._task.cancelling() != 1:
            return False
        self._task.uncancel()
        return True
