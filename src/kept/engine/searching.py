"""Searches and pages: read-committed, off the writer, bounded (protocol A10)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar, get_args

import msgspec

from kept.engine.config import MAX_PAGE_BYTES, MAX_PAYLOAD_SCAN_ROWS, MAX_SCAN_ROWS
from kept.engine.explaining import Explaining
from kept.engine.lookup import Lookup
from kept.engine.pace import Pace
from kept.engine.workers import WorkerSearch, answer_workers
from kept.machine import search
from kept.machine.guards import guard_record
from kept.machine.limits import rate_key, settings_key
from kept.machine.locks import lock_record
from kept.machine.preload import children_cursor, fitting_count, payload_size
from kept.machine.queue_settings import queue_record
from kept.protocol import guard_requests as g
from kept.protocol import requests as r
from kept.protocol import worker_requests as w
from kept.protocol.attributes import index_prefix
from kept.protocol.entries import Attributes, Entry, EntryKind, QueueSettings, Starts
from kept.protocol.inquiries import TaskExplain
from kept.protocol.limits import DEFAULT_SEARCH_ROWS, MAX_PRELOAD_RECORDS, MAX_SEARCH_SCAN_ROWS
from kept.protocol.records import DeadLetter, Promise, PromiseRecord
from kept.protocol.responses import (
    OK,
    DeadLetterPage,
    GuardPage,
    LockPage,
    PreloadResult,
    PromisePage,
    QueueNumbers,
    QueuePage,
    QueueRate,
    QueueStatsResult,
    Response,
    SchedulePage,
    TaskPage,
)
from kept.protocol.storage import Slots
from kept.stores.base import Store

SearchRequest = (
    r.PromiseSearch
    | r.TaskSearch
    | r.ScheduleSearch
    | r.DeadList
    | r.PromiseChildren
    | r.QueueList
    | r.QueueStats
    | g.LockSearch
    | g.GuardSearch
    | WorkerSearch
    | TaskExplain
)
SEARCHES: Final = get_args(SearchRequest)
Row = TypeVar("Row")
Found = TypeVar("Found")


class Searching:
    """Answers the searches of a store at a given instant."""

    def __init__(self, store: Store, pace: Pace) -> None:
        self._store = store
        self._explaining = Explaining(store, pace)

    async def answer(
        self, request: SearchRequest, now: int, tenant: str, prefix: str | None
    ) -> Response:
        """One page; `prefix` limits it to ids that the caller may see (A8)."""
        match request:
            case r.PromiseSearch():
                return await self._promises(request, now, tenant, prefix or "")
            case r.TaskSearch():
                return await self._tasks(request, now, tenant, prefix or "")
            case r.ScheduleSearch():
                return await self._schedules(request, tenant, prefix or "")
            case r.DeadList():
                return await self._dead_letters(request, tenant, prefix or "")
            case r.PromiseChildren():
                return await self._children(request, now, tenant)
            case r.QueueList():
                return await self._queues(request, tenant, prefix or "")
            case r.QueueStats():
                return await self._queue_stats(request, now, tenant)
            case g.LockSearch():
                return await self._locks(request, now, tenant, prefix or "")
            case g.GuardSearch():
                return await self._guards(request, now, tenant, prefix or "")
            case w.WorkerList() | w.FunctionList() | w.FunctionGet():
                return await answer_workers(self._store, request, now, tenant, prefix or "")
            case TaskExplain():
                return await self._explaining.answer(request, now, tenant, prefix)

    async def _promises(
        self, request: r.PromiseSearch, now: int, tenant: str, prefix: str
    ) -> Response:
        if request.attributes:
            return await self._described(request, request.attributes, now, tenant, prefix)
        equals = search.columns_of(request.tags)
        if prefix:
            equals["prefix"] = prefix
        found, cursor = await _page(
            lambda after, limit: self._store.scan_promises(tenant, after, limit, equals),
            lambda promise: promise.id,
            lambda promise: search.found_promise(request, promise, now),
            request,
            _promise_bytes,
        )
        return Response(OK, PromisePage(found, cursor))

    async def _described(
        self,
        request: r.PromiseSearch,
        wanted: dict[str, str],
        now: int,
        tenant: str,
        prefix: str,
    ) -> Response:
        """Promises whose work says all that is wanted of itself; the index is read for one of it."""
        index = index_prefix(*min(wanted.items()))

        async def scan(after: str | None, limit: int) -> list[tuple[str, Promise | None]]:
            beyond = None if after is None else index + after
            entries = await self._store.scan_entries(
                tenant, EntryKind.ATTRIBUTE, beyond, limit, index + prefix
            )
            ids = [entry.key.name.removeprefix(index) for entry in entries]
            return [(id, await self._saying(tenant, id, wanted)) for id in ids]

        def match(row: tuple[str, Promise | None]) -> PromiseRecord | None:
            return search.found_promise(request, row[1], now) if row[1] is not None else None

        found, cursor = await _page(scan, lambda row: row[0], match, request, _promise_bytes)
        return Response(OK, PromisePage(found, cursor))

    async def _saying(self, tenant: str, id: str, wanted: dict[str, str]) -> Promise | None:
        """The promise, if its work says all that is wanted; of all ids that begin with its own it
        is the first."""
        kind = EntryKind.ATTRIBUTES
        entries = await self._store.scan_entries(tenant, kind, None, 1, id)
        if not entries or entries[0].key.name != id:
            return None
        said = entries[0].data
        assert isinstance(said, Attributes)
        if not search.has_tags(said.attributes, wanted):
            return None
        promises = await self._store.scan_promises(tenant, None, 1, {"prefix": id})
        return promises[0] if promises and promises[0].id == id else None

    async def _tasks(self, request: r.TaskSearch, now: int, tenant: str, prefix: str) -> Response:
        found, cursor = await _page(
            lambda after, limit: self._store.scan_tasks(tenant, after, limit, prefix),
            lambda row: row[0].id,
            lambda row: search.found_task(request, row[0], row[1], now),
            request,
        )
        return Response(OK, TaskPage(found, cursor))

    async def _schedules(self, request: r.ScheduleSearch, tenant: str, prefix: str) -> Response:
        found, cursor = await _page(
            lambda after, limit: self._store.scan_schedules(tenant, after, limit, prefix),
            lambda schedule: schedule.id,
            lambda schedule: search.found_schedule(request, schedule),
            request,
        )
        return Response(OK, SchedulePage(found, cursor))

    async def _dead_letters(self, request: r.DeadList, tenant: str, prefix: str) -> Response:
        """The store walks past what does not match, only so far for each page."""
        begins = _narrowed(request.prefix, prefix)
        if begins is None:
            return Response(OK, DeadLetterPage([], None))
        limit = request.limit or DEFAULT_SEARCH_ROWS
        found: list[DeadLetter] = []
        size, after = 0, request.cursor
        for _ in range(MAX_SEARCH_SCAN_ROWS // MAX_SCAN_ROWS):
            wanted = min(limit + 1 - len(found), MAX_PAYLOAD_SCAN_ROWS)
            page = await self._store.scan_dead_letters(
                tenant, request, after, wanted, begins, MAX_SCAN_ROWS
            )
            for letter in page.letters:
                if len(found) == limit or size > MAX_PAGE_BYTES:
                    return Response(OK, DeadLetterPage(found, found[-1].id))
                found.append(letter)
                size += payload_size(letter.param) + payload_size(letter.error)
            after = page.after
            if after is None:
                break
        return Response(OK, DeadLetterPage(found, after))

    async def _queues(self, request: r.QueueList, tenant: str, prefix: str) -> Response:
        found, cursor = await _page(
            lambda after, limit: self._store.scan_entries(
                tenant, EntryKind.QUEUE, after, limit, prefix
            ),
            lambda entry: entry.key.name,
            queue_record,
            request,
        )
        return Response(OK, QueuePage(found, cursor))

    async def _queue_stats(self, request: r.QueueStats, now: int, tenant: str) -> Response:
        counts = await self._store.queue_counts(tenant, request.name, now)
        depth = counts.due + counts.delayed
        numbers = msgspec.structs.asdict(counts)
        rate = await self._rate(Lookup(self._store, tenant), request.name, now)
        return Response(
            OK, QueueStatsResult(QueueNumbers(request.name, depth, **numbers, rate=rate))
        )

    async def _rate(self, lookup: Lookup, queue: str, now: int) -> QueueRate | None:
        """How much of a queue's rate is used up."""
        settings = await lookup.entry(settings_key(queue))
        rate = settings.rate if isinstance(settings, QueueSettings) else None
        if rate is None:
            return None
        starts = await lookup.entry(rate_key(Slots(queue)))
        since = now - now % rate.period
        started = starts.count if isinstance(starts, Starts) and starts.since == since else 0
        return QueueRate(rate.limit, rate.period, started)

    async def _locks(self, request: g.LockSearch, now: int, tenant: str, prefix: str) -> Response:
        found, cursor = await self._entries(
            EntryKind.LOCK, request, tenant, prefix, lambda entry: lock_record(entry, now)
        )
        return Response(OK, LockPage(found, cursor))

    async def _guards(self, request: g.GuardSearch, now: int, tenant: str, prefix: str) -> Response:
        found, cursor = await self._entries(
            EntryKind.GUARD, request, tenant, prefix, lambda entry: guard_record(entry, now)
        )
        return Response(OK, GuardPage(found, cursor))

    async def _entries(
        self,
        kind: EntryKind,
        request: g.LockSearch | g.GuardSearch,
        tenant: str,
        prefix: str,
        match: Callable[[Entry], Found | None],
    ) -> tuple[list[Found], str | None]:
        """Entries whose name starts with what the caller asks for and with what it may see."""
        begins = _narrowed(request.prefix, prefix)
        if begins is None:
            return [], None
        return await _page(
            lambda after, limit: self._store.scan_entries(tenant, kind, after, limit, begins),
            lambda entry: entry.key.name,
            match,
            request,
        )

    async def _children(self, request: r.PromiseChildren, now: int, tenant: str) -> Response:
        """The rest of a preload, in its order (A4)."""
        limit = min(request.limit or MAX_PRELOAD_RECORDS, MAX_PRELOAD_RECORDS)
        page = await self._store.scan_children(tenant, request.id, request.cursor, limit)
        promises: list[Promise] = [*page.released, *page.others]
        fitting = fitting_count(promises, limit)
        more = page.more
        if fitting < len(promises):
            more = children_cursor(promises[fitting - 1].id, released=fitting <= len(page.released))
        records = [promise.project(now).record() for promise in promises[:fitting]]
        released = [promise.id for promise in page.released[:fitting]]
        return Response(OK, PreloadResult(records, more, released or None))


def _narrowed(wanted: str | None, seen: str) -> str | None:
    """How names begin that begin as the caller wants and as it may see (A8); None where none can."""
    longer, shorter = sorted((wanted or "", seen), key=len, reverse=True)
    return longer if longer.startswith(shorter) else None


async def _page(
    scan: Callable[[str | None, int], Awaitable[Sequence[Row]]],
    id_of: Callable[[Row], str],
    match: Callable[[Row], Found | None],
    request: r.PromiseSearch
    | r.TaskSearch
    | r.ScheduleSearch
    | r.QueueList
    | g.LockSearch
    | g.GuardSearch,
    bytes_of: Callable[[Found], int] | None = None,
) -> tuple[list[Found], str | None]:
    """Matches in order, and the cursor to go on from where there may be more. Of records that
    carry payloads, fewer are looked at together, and a page ends when they are large."""
    limit = request.limit or DEFAULT_SEARCH_ROWS
    at_once = MAX_SCAN_ROWS if bytes_of is None else min(MAX_SCAN_ROWS, MAX_PAYLOAD_SCAN_ROWS)
    size = 0
    found: list[Found] = []
    last_found = after = request.cursor
    scanned = 0
    while scanned < MAX_SEARCH_SCAN_ROWS:
        rows = await scan(after, at_once)
        for row in rows:
            after = id_of(row)
            hit = match(row)
            if hit is None:
                continue
            if len(found) == limit or size > MAX_PAGE_BYTES:
                return found, last_found
            found.append(hit)
            size += 0 if bytes_of is None else bytes_of(hit)
            last_found = after
        scanned += len(rows)
        if len(rows) < at_once:
            return found, None
    return found, after


def _promise_bytes(promise: PromiseRecord) -> int:
    return payload_size(promise.param) + payload_size(promise.value)
