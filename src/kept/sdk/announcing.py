"""Announcing what a worker runs, and finding who runs a name (protocol B9)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec

from kept.client.connection import Connection
from kept.errors import ConnectionFailedError
from kept.protocol import worker_requests as w
from kept.protocol.entries import AnnouncedFunction
from kept.protocol.limits import MAX_ANNOUNCED_FUNCTIONS, MAX_ANNOUNCEMENT_BYTES
from kept.protocol.responses import FunctionResult
from kept.runtime import Runtime
from kept.sdk.functions import Registry

log = logging.getLogger("kept.worker")

TTL_MS: Final = 60_000
PERIOD_SECONDS: Final = 20.0
# How long it is believed who runs a name.
BELIEVED_SECONDS: Final = 10.0
MAX_BELIEVED: Final = 1_000


class Announcer:
    """Says again and again what a worker runs, until it takes its leave."""

    def __init__(
        self,
        connection: Connection,
        runtime: Runtime,
        registry: Registry,
        pid: str,
        queues: Sequence[str],
    ) -> None:
        self._connection = connection
        self._runtime = runtime
        self._registry = registry
        self._pid = pid
        self._queues = list(queues)

    async def announce_always(self) -> None:
        """Runs until it is cancelled."""
        while True:
            await self._send(self._queues, self._functions(), TTL_MS)
            await self._runtime.sleep(PERIOD_SECONDS)

    async def leave(self) -> None:
        """The worker runs nothing any more."""
        await self._send([], [], 1)

    def _functions(self) -> list[AnnouncedFunction]:
        functions = [
            AnnouncedFunction(
                each.name, each.version, each.queue or self._queues[0], schema=each.schema
            )
            for each in self._registry.all()[:MAX_ANNOUNCED_FUNCTIONS]
        ]
        if len(msgspec.json.encode(functions)) > MAX_ANNOUNCEMENT_BYTES:
            # Who runs what matters more than how it is called.
            functions = [msgspec.structs.replace(each, schema=None) for each in functions]
        return functions

    async def _send(self, queues: list[str], functions: list[AnnouncedFunction], ttl: int) -> None:
        request = w.WorkerAnnounce(self._pid, queues, functions, ttl)
        try:
            response = await self._connection.send(request)
        except ConnectionFailedError as error:
            log.warning("cannot announce what runs here: %s", error)
            return
        if not response.ok:
            # Such as a server that does not know of it: the work goes on.
            log.info("cannot announce what runs here: %s", response.data)


class Routes:
    """In which queue a name's work waits, as workers announce it."""

    def __init__(self, connection: Connection, runtime: Runtime) -> None:
        self._connection = connection
        self._runtime = runtime
        self._believed: dict[str, tuple[float, str | None]] = {}

    async def queue_of(self, reference: str) -> str | None:
        """The queue that most workers announce for `name` or `name@version`; None where nobody
        does. Raises `ConnectionFailedError`."""
        now = self._runtime.monotonic()
        until, queue = self._believed.get(reference, (now, None))
        if until > now:
            return queue
        name, _, version = reference.partition("@")
        response = await self._connection.send(w.FunctionGet(name))
        queue = None
        if isinstance(response.data, FunctionResult):
            queues = Counter(
                runner.queue
                for runner in response.data.runners
                if version in ("", str(runner.version))
            )
            queue = min(queues, key=lambda each: (-queues[each], each), default=None)
        if len(self._believed) >= MAX_BELIEVED:
            self._believed.clear()
        self._believed[reference] = (now + BELIEVED_SECONDS, queue)
        return queue
