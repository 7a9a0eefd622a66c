"""The engine: requests in, answers out, over a store (design section 2).

It owns nothing but its parts: the committer applies requests in batches, the background fires what
is due, the outbox sends messages, waiters wait. All of them run on the caller's event loop.
"""

from __future__ import annotations

from collections.abc import Sequence

from kept.engine.background import Background
from kept.engine.committer import Committer, Item
from kept.engine.config import MAX_WAITERS, EngineConfig
from kept.engine.debug import Debug
from kept.engine.outbox import Outbox
from kept.engine.returns import WATCHED, Returns
from kept.engine.searching import SEARCHES, Searching
from kept.engine.statistics import Statistics
from kept.engine.waiters import Waiters
from kept.engine.waiting import Waiting
from kept.errors import BadRequestError, StoreError
from kept.machine.background import LeaveLine
from kept.machine.step import MachineConfig
from kept.protocol import guard_requests as g
from kept.protocol import requests as r
from kept.protocol.addresses import BASE_SCHEMES
from kept.protocol.kinds import wait_of
from kept.protocol.responses import BAD_REQUEST, CONFLICT, SHED, UNAVAILABLE, Response
from kept.protocol.storage import DEFAULT_TENANT, Notice, StepObserver
from kept.protocol.validation import problem_with
from kept.runtime import Runtime
from kept.stores.base import Store
from kept.transports.base import Transport

_NO_HEAD = r.RequestHead()
_DEBUG = (r.DebugStart, r.DebugStop, r.DebugReset, r.DebugSnap, r.DebugTick)
_MAY_WAIT = (r.TaskClaim, r.PromiseWait, g.LockAcquire, g.SlotAcquire)
# All others are applied by the committer, and that is all.
_NOT_PLAIN = frozenset((*SEARCHES, *_DEBUG, *_MAY_WAIT))


class Engine:
    """Applies requests to a store. `start` it before use, `stop` it after."""

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        config: EngineConfig | None = None,
        transports: Sequence[Transport] = (),
        observer: StepObserver | None = None,
    ) -> None:
        self.config = config or EngineConfig()
        self.store = store
        self.runtime = runtime
        self.statistics = Statistics()
        self.transports = tuple(transports)
        self._stopping = False
        self._waiters = Waiters()
        installed = frozenset(scheme for t in transports for scheme in t.schemes)
        # The base schemes are valid targets even where this process cannot deliver to them.
        machine_config = MachineConfig(
            self.config.retry_timeout_ms,
            BASE_SCHEMES | installed,
            self.config.unregistered_grace_ms,
            retention_ms=self.config.retention_ms,
        )
        self._schemes = machine_config.schemes
        self._committer = Committer(
            store,
            runtime,
            machine_config,
            self.statistics,
            self._noticed,
            observer,
            self._waiters,
        )
        self._background = Background(store, runtime, self._committer, self.config, self.statistics)
        self._returns = Returns()
        self._outbox = Outbox(
            store,
            runtime,
            self._committer,
            transports,
            self.config,
            self.statistics,
            self._returns,
        )
        self._waiting = Waiting(self._waiters, runtime, lambda: self._stopping)
        self._searching = Searching(store, self.statistics.work.pace)
        self._debug = Debug(
            store, runtime, self._committer, self._background, self._outbox, self.config
        )

    async def start(self) -> None:
        """Opens the store and starts the background. Raises `StoreError`."""
        await self.store.open()
        self.store.on_notice = self._noticed
        self._committer.start()
        self._background.start()
        if self.transports:
            self._outbox.start()

    async def stop(self) -> None:
        """Answers those who wait, finishes what is in flight, closes transports and store."""
        self._stopping = True
        self._waiters.wake_all()
        await self._background.stop()
        await self._outbox.stop()
        # The answers of those who were woken need one more look each.
        while len(self._waiters):
            await self._waiters.empty.wait(None)
        await self._committer.stop()
        for transport in self.transports:
            await transport.close()
        await self.store.close()

    @property
    def stopping(self) -> bool:
        return self._stopping

    def receiver_connected(self) -> None:
        """A poll connection came: messages may have waited for it."""
        self._outbox.look()

    async def submit(
        self,
        request: r.Request,
        head: r.RequestHead = _NO_HEAD,
        tenant: str = DEFAULT_TENANT,
        prefix: str | None = None,
    ) -> Response:
        """The answer to one request, after its commit; errors are answers too.

        `prefix` limits searches to ids that the caller may see (A8).
        """
        problem = problem_with(request, self._schemes)
        if problem is not None:
            response = Response(BAD_REQUEST, problem)
        elif type(request) in _NOT_PLAIN:
            response = await self._answer(request, head, tenant, prefix)
        else:
            response = await self._look(request, head, tenant)
        return self._counted(request, response, tenant)

    async def submit_batch(
        self, items: Sequence[tuple[r.Request, r.RequestHead]], tenant: str = DEFAULT_TENANT
    ) -> list[Response]:
        """The answers to several requests, applied in order and committed together (B1)."""
        answers: list[Response | None] = [None] * len(items)
        gathered: list[tuple[int, Item]] = []
        for index, (request, head) in enumerate(items):
            if wait_of(request) > 0:
                text = "a request that waits travels alone, not in a batch"
                answers[index] = self._counted(request, Response(BAD_REQUEST, text), tenant)
            elif problem := problem_with(request, self._schemes):
                answers[index] = self._counted(request, Response(BAD_REQUEST, problem), tenant)
            elif type(request) in _NOT_PLAIN and not isinstance(request, _MAY_WAIT):
                await self._apply(gathered, answers, items)
                answers[index] = await self.submit(request, head, tenant)
            else:
                gathered.append((index, self._item(request, head, tenant)))
        await self._apply(gathered, answers, items)
        return [answer for answer in answers if answer is not None]

    async def _apply(
        self,
        gathered: list[tuple[int, Item]],
        answers: list[Response | None],
        items: Sequence[tuple[r.Request, r.RequestHead]],
    ) -> None:
        await self._committer.apply([item for _, item in gathered])
        for index, item in gathered:
            assert isinstance(item.outcome, Response)
            answers[index] = self._counted(items[index][0], item.outcome, item.tenant)
        gathered.clear()

    def _counted(self, request: r.Request, response: Response, tenant: str) -> Response:
        self.statistics.requests[request.kind, response.status] += 1
        if response.status == CONFLICT:
            self.statistics.work.refused(request, response)
        if type(request) in WATCHED:
            self._returns.note(tenant, request, response)
        return response

    async def _answer(
        self, request: r.Request, head: r.RequestHead, tenant: str, prefix: str | None
    ) -> Response:
        if wait_of(request) > 0:
            return await self._wait(request, head, tenant)
        try:
            if isinstance(request, SEARCHES):
                now = self._debug.fixed_now(head)
                now = self._committer.now_ms() if now is None else now
                return await self._searching.answer(request, now, tenant, prefix)
            if isinstance(request, _DEBUG):
                return await self._debug.answer(request, head, tenant)
        except BadRequestError as error:
            return Response(BAD_REQUEST, str(error))
        except StoreError as error:
            return Response(UNAVAILABLE, f"ask again: {error}")
        return await self._look(request, head, tenant)

    async def _wait(self, request: r.Request, head: r.RequestHead, tenant: str) -> Response:
        if len(self._waiters) >= MAX_WAITERS:
            return Response(SHED, "too many requests are waiting; ask again later")
        self.statistics.waiting = len(self._waiters) + 1
        try:
            if isinstance(request, r.TaskClaim):
                return await self._waiting.claim(
                    request, tenant, lambda: self._look(request, head, tenant)
                )
            if isinstance(request, g.LockAcquire | g.SlotAcquire):
                return await self._waiting.line(
                    self._item(request, head, tenant),
                    lambda now: self._look(now, head, tenant),
                    lambda key, holder: self._committer.post(Item(tenant, LeaveLine(key, holder))),
                )
            assert isinstance(request, r.PromiseWait)
            return await self._waiting.promise(
                request, tenant, lambda: self._look(request, head, tenant)
            )
        finally:
            self.statistics.waiting = len(self._waiters)

    async def _look(self, request: r.Request, head: r.RequestHead, tenant: str) -> Response:
        item = self._item(request, head, tenant)
        await self._committer.apply((item,))
        assert isinstance(item.outcome, Response)
        return item.outcome

    def _item(self, request: r.Request, head: r.RequestHead, tenant: str) -> Item:
        return Item(tenant, request, self._debug.fixed_now(head), head.request_id)

    def _committed(self, notice: Notice) -> None:
        """Wakes who waits for what a commit did."""
        self.statistics.wakeups += self._waiters.wake(notice)
        self._background.expect(notice.due_at)
        if notice.messages:
            self._outbox.look()

    def _noticed(self, notice: Notice) -> None:
        """A commit of this process or another: who should look again."""
        if notice.everything:
            self._waiters.wake_all()
            self._background.expect(0)
            self._outbox.look()
        else:
            self._committed(notice)
