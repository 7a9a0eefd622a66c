"""A script: requests on records that nobody else touches, so that each answer is known beforehand.

The expected answers are written down from the protocol's text. A request whose outcome stays unknown
ends a script, and nothing is said of what would have followed.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any, Final, NoReturn, TypeVar

from kept.client.connection import Connection
from kept.client.retry import REFUSED_FOR_NOW
from kept.errors import ConnectionFailedError
from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.records import PromiseRecord, PromiseState, Value
from kept.protocol.responses import (
    INTERNAL,
    NOT_FOUND,
    OK,
    SHED,
    AcquiredTask,
    ClaimResult,
    PromiseResult,
    Response,
    TaskResult,
)
from kept.runtime import Runtime
from kept.sim.breakage import Broken

DataT = TypeVar("DataT")

LIFETIME_MS: Final = 86_400_000
LEASE_MS: Final = 3_600_000
WAIT_MS: Final = 30_000
_UUID_BYTES: Final = 16
ASK_AGAIN_SECONDS: Final = 0.5
MAX_SHED: Final = 8
# What an engine says of a commit about which it could not find out.
UNKNOWN_OUTCOME: Final = "may have been applied"


class Script:
    """One play of a script. `key` is of nobody else: ids, queue and holder are made of it."""

    def __init__(
        self,
        key: str,
        connection: Connection,
        runtime: Runtime,
        random: Random,
        *,
        exact: bool,
        prompt: bool,
        provoked: Counter[tuple[str, int]],
    ) -> None:
        self.key = key
        self.queue = f"queue-{key}"
        self.pid = f"holder-{key}"
        self.runtime = runtime
        self.random = random
        # Whether all clocks agree, so that times can be judged.
        self.exact = exact
        # Whether nothing may come late.
        self.prompt = prompt
        # The refusals that were meant to come.
        self._provoked = provoked
        self._connection = connection

    # -- asking

    async def ask(
        self, request: r.Request, status: int = OK, *, request_id: str | None = None
    ) -> Response:
        """An answer that must have this status; asked again where it was refused for now, under the
        same id, because an earlier try may have been applied and its answer lost. Raises
        `ConnectionFailedError` where nobody knows what was: then the rest cannot be foreseen."""
        request_id = request_id or self.runtime.entropy(_UUID_BYTES).hex()
        response = await self._connection.send(request, request_id=request_id)
        shed = 0
        while response.status in REFUSED_FOR_NOW and response.status != status:
            shed += response.status == SHED
            if shed == MAX_SHED:
                # Nobody is as busy as that for so long.
                self.fail(f"{request}: {response.data}, again and again")
            await self.runtime.sleep(ASK_AGAIN_SECONDS)
            response = await self._connection.send(request, request_id=request_id)
        if response.status == INTERNAL and UNKNOWN_OUTCOME in str(response.data):
            raise ConnectionFailedError(f"{request.kind}: {response.data}")
        if response.status != status:
            self.fail(f"{request}: {response.status} {response.data}, not {status}")
        if status != OK:
            self._provoked[request.kind, status] += 1
        return response

    async def is_there(self, id: str) -> bool:
        """Whether a promise exists, where either may be."""
        response = await self._connection.send(r.PromiseGet(id))
        while response.status in REFUSED_FOR_NOW or response.status == INTERNAL:
            await self.runtime.sleep(ASK_AGAIN_SECONDS)
            response = await self._connection.send(r.PromiseGet(id))
        if response.status not in (OK, NOT_FOUND):
            self.fail(f"{id}: {response.status} {response.data}")
        return response.ok

    async def data(self, request: r.Request, kind: type[DataT], status: int = OK) -> DataT:
        """The data of a good answer."""
        response = await self.ask(request, status)
        if not isinstance(response.data, kind):
            self.fail(f"{request}: {response.data} is no {kind.__name__}")
        return response.data

    async def twice(self, request: r.Request, status: int = OK) -> Response:
        """The same request twice under one id: its answer must be the same."""
        request_id = self.runtime.entropy(_UUID_BYTES).hex()
        first = await self.ask(request, status, request_id=request_id)
        again = await self.ask(request, status, request_id=request_id)
        self.same(f"{request} again", _in_order(again), _in_order(first))
        return first

    def same(self, what: str, found: Any, expected: Any) -> None:
        """Requires that something is as expected."""
        if found != expected:
            self.fail(f"{what}: it is {found}, not {expected}")

    def fail(self, why: str) -> NoReturn:
        """The system answers what it must not."""
        raise Broken("scripts go as written", f"{self.key}: {why}")

    # -- what scripts are made of

    def id(self, name: str) -> str:
        return f"{name}-{self.key}"

    def deadline(self) -> int:
        return self.runtime.now_ms() + LIFETIME_MS

    def job(self, name: str, **tags: str) -> r.PromiseCreate:
        """A job on the script's own queue; tags by their names without the prefix."""
        named = {f"kept:{key}": text for key, text in tags.items()}
        param = Value(headers={"x-name": name}, data=f"param of {name}")
        all_tags = {tag.TARGET: f"queue://{self.queue}", **named}
        return r.PromiseCreate(self.id(name), self.deadline(), param, all_tags)

    def external(self, name: str) -> r.PromiseCreate:
        """A promise that somebody settles."""
        return r.PromiseCreate(self.id(name), self.deadline(), tags={tag.EXTERNAL: "true"})

    def claim(self, limit: int = 1, wait: int = 0, **fields: Any) -> r.TaskClaim:
        return r.TaskClaim([self.queue], self.pid, LEASE_MS, limit, wait, **fields)

    async def promise_of(self, create: r.PromiseCreate) -> PromiseRecord:
        """What a create is answered."""
        return (await self.data(create, PromiseResult)).promise

    async def promise(self, id: str) -> PromiseRecord:
        return (await self.data(r.PromiseGet(id), PromiseResult)).promise

    async def settled(self, id: str) -> PromiseResult:
        """Waits until a promise is settled, in as many requests as it takes."""
        while True:
            result = await self.data(r.PromiseWait(id, WAIT_MS), PromiseResult)
            if result.promise.state is not PromiseState.PENDING:
                return result

    async def task_is(self, id: str, **expected: Any) -> None:
        """Requires that fields of a task are as expected."""
        task = (await self.data(r.TaskGet(id), TaskResult)).task
        for name, value in expected.items():
            self.same(f"{id}.{name}", getattr(task, name), value)

    async def claimed(self, id: str, **fields: Any) -> AcquiredTask:
        """Claims one task, which must be this one. A server that stops ends a wait before its time:
        then another is asked."""
        until = self.runtime.monotonic() + fields.get("wait", 0) / 1_000
        result = await self.data(self.claim(**fields), ClaimResult)
        while not result.tasks and self.runtime.monotonic() < until:
            result = await self.data(self.claim(**fields), ClaimResult)
        self.same(f"claimed from {self.queue}", [t.task.id for t in result.tasks], [id])
        return result.tasks[0]

    async def nothing_to_claim(self) -> None:
        result = await self.data(self.claim(10), ClaimResult)
        self.same(f"claimed from {self.queue}", [t.task.id for t in result.tasks], [])


def _in_order(response: Response) -> Any:
    """An answer's data. What a claim took has no order when it is answered again."""
    if isinstance(response.data, ClaimResult):
        return sorted(response.data.tasks, key=lambda taken: taken.task.id)
    return response.data
