"""The worker: claims tasks, runs their functions, keeps their leases, and lets go in good order."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import Final

from kept.errors import (
    ConnectionFailedError,
    InvalidArgumentsError,
    LeaseLostError,
    NondeterminismError,
    RequestError,
    UnregisteredError,
)
from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.limits import MAX_CLAIM_TASKS
from kept.protocol.records import PromiseState
from kept.protocol.responses import ClaimResult, HeartbeatResult
from kept.sdk import payload
from kept.sdk.execution import Execution
from kept.sdk.functions import Function
from kept.sdk.lease import Lease
from kept.sdk.retry import next_wait
from kept.sdk.services import Services

log = logging.getLogger("kept.worker")

CLAIM_WAIT_MS: Final = 20_000
HEARTBEATS_PER_TTL: Final = 3
# Suspended workflows that a worker keeps in memory, to continue them without a replay.
MAX_CACHED: Final = 1_000
UNREGISTERED_DELAY_MS: Final = 5_000
FAULT_DELAY_SECONDS: Final = 1.0
STOP_GRACE_SECONDS: Final = 10.0


class Worker:
    """Works on the tasks of some queues with the functions of a registry.

    `ttl` is how long, in seconds, a lease lasts without a heartbeat: after a crash, the work goes
    on elsewhere once it has passed. `concurrency` bounds the tasks held at one time.
    """

    def __init__(
        self,
        services: Services,
        *,
        queues: tuple[str, ...],
        ttl: float = 30.0,
        concurrency: int = 100,
    ) -> None:
        if ttl < 0.1:
            raise ValueError("ttl: must be at least 0.1 seconds")
        self._services = services
        self._queues = queues
        self._ttl = ttl
        self._concurrency = min(concurrency, MAX_CLAIM_TASKS)
        self.pid = f"worker-{services.runtime.entropy(8).hex()}"
        self._held: dict[str, tuple[Lease, asyncio.Task[None]]] = {}
        self._cached: OrderedDict[str, Execution] = OrderedDict()
        self._room = asyncio.Event()
        self._stopping = False
        self._loops: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins to claim and to send heartbeats."""
        spawn = self._services.runtime.spawn
        self._loops = [
            spawn(self._claim_always(), "kept-claim"),
            spawn(self._beat_always(), "kept-heartbeat"),
        ]

    async def stop(self, grace: float = STOP_GRACE_SECONDS) -> None:
        """Claims no more, gives what runs `grace` seconds, and hands back the rest."""
        self._stopping = True
        claiming, beating = self._loops
        claiming.cancel()
        await asyncio.gather(claiming, return_exceptions=True)
        running = [task for _, task in self._held.values()]
        if running and grace > 0:
            await asyncio.wait(running, timeout=grace)
        await self._hand_back()
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        for execution in self._cached.values():
            execution.close()
        self._cached.clear()

    async def _hand_back(self) -> None:
        left = list(self._held.values())
        for _, task in left:
            task.cancel()
        await asyncio.gather(*(task for _, task in left), return_exceptions=True)
        releases = [r.TaskRelease(lease.id, lease.version) for lease, _ in left]
        send = self._services.connection.send
        await asyncio.gather(*(send(release) for release in releases), return_exceptions=True)

    # -- claiming and beating --------------------------------------------------------------------

    async def _claim_always(self) -> None:
        while not self._stopping:
            room = self._concurrency - len(self._held)
            if room <= 0:
                self._room.clear()
                await self._room.wait()
                continue
            try:
                await self._claim(room)
            except (ConnectionFailedError, RequestError) as error:
                log.warning("cannot claim, trying again: %s", error)
                await self._services.runtime.sleep(FAULT_DELAY_SECONDS)

    async def _claim(self, room: int) -> None:
        request = r.TaskClaim(
            list(self._queues),
            self.pid,
            int(self._ttl * 1_000),
            limit=room,
            wait=CLAIM_WAIT_MS,
            preload=0,
        )
        response = await self._services.connection.send(request)
        if not isinstance(response.data, ClaimResult):
            raise RequestError(str(response.data), response.status)
        for acquired in response.data.tasks:
            lease = Lease(acquired)
            work = self._work(lease)
            task = self._services.runtime.spawn(work, f"kept-task-{lease.id}")
            self._held[lease.id] = (lease, task)

    async def _beat_always(self) -> None:
        while True:
            await self._services.runtime.sleep(self._ttl / HEARTBEATS_PER_TTL)
            try:
                await self._beat()
            except (ConnectionFailedError, RequestError) as error:
                log.warning("a heartbeat failed: %s", error)

    async def _beat(self) -> None:
        """Extends all leases; stops the work of those that are lost."""
        refs = [r.TaskRef(lease.id, lease.version) for lease, _ in self._held.values()]
        if not refs:
            return
        request = r.TaskHeartbeat(self.pid, refs, report=True)
        response = await self._services.connection.send(request)
        if not isinstance(response.data, HeartbeatResult):
            raise RequestError(str(response.data), response.status)
        for lost in response.data.lost or ():
            held = self._held.get(lost.id)
            if held is not None and held[0].version == lost.version:
                log.warning("%s: the lease is lost (%s), stopping", lost.id, lost.reason)
                held[1].cancel()

    # -- working ------------------------------------------------------------------------------------

    async def _work(self, lease: Lease) -> None:
        """Works on one task until it is finished, suspended, failed or lost."""
        try:
            await self._run(lease)
        except LeaseLostError as error:
            log.info("another worker may go on: %s", error)
            self._forget(lease.id)
        except asyncio.CancelledError:
            self._forget(lease.id)
            raise
        except (ConnectionFailedError, RequestError) as error:
            log.warning("%s: broken off, the lease will expire: %s", lease.id, error)
            self._forget(lease.id)
        except Exception:
            log.exception("%s: a fault of the worker", lease.id)
            self._forget(lease.id)
        finally:
            self._held.pop(lease.id, None)
            self._room.set()

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
        except InvalidArgumentsError as error:
            await self._nack(lease, error, "invalid_arguments", final="reject")
        except NondeterminismError as error:
            log.error("%s", error)
            self._forget(lease.id)
            await self._nack(lease, error, "nondeterministic", final="halt")

    def _function_of(self, lease: Lease) -> Function[..., object]:
        reference = lease.promise.tags.get(tag.FUNCTION)
        if reference is None:
            raise UnregisteredError(f"{lease.id} names no function (tag {tag.FUNCTION})")
        return self._services.registry.by_reference(reference)

    async def _run_job(self, lease: Lease, function: Function[..., object]) -> None:
        """A plain function: its result, or a failure that its policy may try again."""
        args, kwargs = function.converted(payload.decode_arguments(lease.promise.param))
        try:
            value = payload.encode(await self._services.call(function, args, kwargs))
        except Exception as error:
            wait = next_wait(function.retry, lease.attempt, error)
            if wait is None:
                await self._nack(lease, error, "exhausted", final="reject")
            else:
                await self._nack(lease, error, None, delay=int(wait * 1_000))
            return
        await self._services.fulfill(lease, PromiseState.RESOLVED, value, [])

    async def _run_durable(self, lease: Lease, function: Function[..., object]) -> None:
        execution = self._cached.pop(lease.id, None)
        if execution is not None and execution.lease.version + 1 != lease.version:
            # Somebody else had it in between and knows more.
            execution.close()
            execution = None
        going_on = execution is not None
        if execution is None:
            execution = Execution(lease, function, self._services)
        try:
            finished = await (execution.go_on(lease) if going_on else execution.begin())
        except BaseException:
            execution.close()
            raise
        if finished:
            execution.close()
        else:
            self._keep(execution)

    def _keep(self, execution: Execution) -> None:
        self._cached[execution.id] = execution
        while len(self._cached) > MAX_CACHED:
            _, oldest = self._cached.popitem(last=False)
            oldest.close()

    def _forget(self, id: str) -> None:
        execution = self._cached.pop(id, None)
        if execution is not None:
            execution.close()

    async def _nack(
        self,
        lease: Lease,
        error: BaseException,
        reason: str | None,
        *,
        delay: int | None = None,
        final: str | None = None,
        consume: bool = True,
    ) -> None:
        """Files a failed attempt under the lease (B2)."""
        stored = payload.encode_error(error)
        request = r.TaskNack(lease.id, lease.version, delay, stored, reason, final, consume)
        response = await self._services.connection.send(request)
        if not response.ok:
            raise LeaseLostError(f"{lease.id}: {response.data}")


