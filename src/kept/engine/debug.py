"""The debug requests: a clock that stands still until it is told to tick (protocol A4)."""

from __future__ import annotations

from kept.engine.background import Background, items_of
from kept.engine.committer import Committer
from kept.engine.config import MAX_DUE_ITEMS, EngineConfig
from kept.engine.outbox import Outbox
from kept.machine.snapshot import snapshot
from kept.protocol import requests as r
from kept.protocol.responses import BAD_REQUEST, FORBIDDEN, OK, Nothing, Response
from kept.protocol.storage import Due
from kept.runtime import Runtime
from kept.stores.base import Store

DebugRequest = r.DebugStart | r.DebugStop | r.DebugReset | r.DebugSnap | r.DebugTick


class Debug:
    """What only a server under test allows."""

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        committer: Committer,
        background: Background,
        outbox: Outbox,
        config: EngineConfig,
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._committer = committer
        self._background = background
        self._outbox = outbox
        self._allowed = config.debug
        # Whether debug.start or debug.stop, or a first debug clock, has said who tells the time.
        self._told = False

    def fixed_now(self, head: r.RequestHead) -> int | None:
        """The instant (ms) that is a request's clock, where debugging is allowed and it has one.

        Such a clock replaces every other source of time: the first one pauses the background, which
        lives by the wall clock, unless debug.start or debug.stop has decided that already.
        """
        if not self._allowed or head.debug_time is None:
            return None
        if not self._told:
            self._pause()
        return head.debug_time

    async def answer(self, request: DebugRequest, head: r.RequestHead, tenant: str) -> Response:
        """403 unless the server runs with --debug."""
        if not self._allowed:
            return Response(FORBIDDEN, "debug requests are off; start the server with --debug")
        match request:
            case r.DebugStart():
                self._pause()
            case r.DebugStop():
                self._resume()
            case r.DebugReset():
                await self._committer.reset(tenant)
            case r.DebugSnap():
                now = self._runtime.now_ms() if head.debug_time is None else head.debug_time
                return Response(OK, snapshot(await self._store.dump(tenant), now))
            case r.DebugTick():
                return await self._tick(request.time, head)
        return Response(OK, Nothing())

    def _pause(self) -> None:
        """Background steps and delivery stand still; edges are drained with settlements still."""
        self._told = True
        self._background.paused = True
        self._committer.dispatching = False
        self._outbox.paused = True

    def _resume(self) -> None:
        self._told = True
        self._committer.dispatching = True
        self._background.resume()
        self._outbox.paused = False
        self._outbox.look()

    async def _tick(self, time: int, head: r.RequestHead) -> Response:
        """Fires what is due at `time`, again and again until nothing is."""
        if head.debug_time is not None and head.debug_time != time:
            return Response(BAD_REQUEST, "data.time: differs from head's resonate:debug_time")
        while True:
            due = await self._store.due(time, MAX_DUE_ITEMS)
            # Pulled tasks are claimable by being due; marking them is not a step of the base.
            due = Due(due.deadlines, due.leases, due.retries, [], due.schedules, due.drains)
            items = items_of(due, fixed_now=time)
            await self._committer.apply(items)
            # Firing what does not change anything would not come to an end.
            if not any(item.progressed for item in items):
                return Response(OK, [])
