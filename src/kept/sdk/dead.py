"""`app.dead`: work that was given up on (protocol B4)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Final, TypeVar

from kept.client.connection import call
from kept.errors import ConnectionFailedError
from kept.protocol import requests as r
from kept.protocol import responses as a
from kept.protocol.entries import LetterFilter
from kept.protocol.limits import MAX_SEARCH_ROWS
from kept.protocol.records import DeadLetter, Value
from kept.sdk.services import Services

R = TypeVar("R", bound=a.Result)

POLL_SECONDS: Final = 0.05


class DeadLetters:
    """The dead letters of an engine. `since` and `until` bound when they died."""

    def __init__(self, services: Callable[[], Services]) -> None:
        self._services = services

    async def list(
        self,
        *,
        queue: str | None = None,
        function: str | None = None,
        reason: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        prefix: str | None = None,
    ) -> AsyncIterator[DeadLetter]:
        """Those that match, by id: `async for letter in app.dead.list(queue="mail")`. Their ids
        begin with `prefix`."""
        bounds = (_ms(since), _ms(until))
        cursor: str | None = None
        while True:
            rows = MAX_SEARCH_ROWS
            request = r.DeadList(queue, function, reason, *bounds, rows, cursor, prefix)
            page = await self._ask(request, a.DeadLetterPage)
            for letter in page.letters:
                yield letter
            cursor = page.cursor
            if cursor is None:
                return

    async def get(self, id: str) -> DeadLetter:
        """One of them. Raises `NotFoundError`."""
        return (await self._ask(r.DeadGet(id), a.DeadLetterResult)).letter

    async def replay(self, *ids: str, param: Value | None = None) -> Sequence[a.Replay]:
        """Does the work of these again, each by itself: halted work goes on where it stood, the
        other runs under a new id. `param` replaces what it was given."""
        return (await self._ask(r.DeadReplay([*ids], param), a.ReplayResult)).replays

    async def purge(self, *ids: str) -> Sequence[a.Purge]:
        """Forgets these. Their promises stay as they are."""
        return (await self._ask(r.DeadPurge([*ids]), a.PurgeResult)).purges

    async def replay_where(
        self, wanted: LetterFilter, *, param: Value | None = None, dry_run: bool = False
    ) -> a.BulkRecord:
        """Replays all that match, in the background of the engine, and waits for it. It goes on
        where the caller does not wait. With `dry_run` it counts only."""
        request = r.DeadReplay([], param, wanted, dry_run, self._new_id())
        return await self._finished((await self._ask(request, a.ReplayResult)).bulk)

    async def purge_where(self, wanted: LetterFilter, *, dry_run: bool = False) -> a.BulkRecord:
        """Forgets all that match, as `replay_where` replays them."""
        request = r.DeadPurge([], wanted, dry_run, self._new_id())
        return await self._finished((await self._ask(request, a.PurgeResult)).bulk)

    def _new_id(self) -> str:
        return self._services().runtime.entropy(16).hex()

    async def _finished(self, bulk: a.BulkRecord | None) -> a.BulkRecord:
        assert bulk is not None
        while bulk.finished_at is None:
            await self._services().runtime.sleep(POLL_SECONDS)
            bulk = (await self._ask(r.DeadBulk(bulk.id), a.BulkResult)).bulk
        return bulk

    async def _ask(self, request: r.Request, result: type[R]) -> R:
        data = (await call(self._services().connection, request)).data
        if not isinstance(data, result):
            raise ConnectionFailedError(f"the answer to {request.kind} is not of this protocol")
        return data


def _ms(instant: datetime | None) -> int | None:
    return None if instant is None else max(0, int(instant.timestamp() * 1_000))
