"""Lists of workers and functions, told from what workers announced (protocol B9)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from kept.protocol import worker_requests as w
from kept.protocol.entries import Announcement, EntryKind
from kept.protocol.limits import DEFAULT_SEARCH_ROWS, MAX_SEARCH_ROWS, MAX_SEARCH_SCAN_ROWS
from kept.protocol.responses import (
    NOT_FOUND,
    OK,
    FunctionPage,
    FunctionRecord,
    FunctionResult,
    Response,
    Runner,
    WorkerPage,
    WorkerRecord,
)
from kept.stores.base import Store

RowT = TypeVar("RowT")
WorkerSearch = w.WorkerList | w.FunctionList | w.FunctionGet


async def answer_workers(
    store: Store, request: WorkerSearch, now: int, tenant: str, prefix: str
) -> Response:
    """Who is announced at `now` (ms); only workers all of whose queues begin with `prefix`."""
    workers = await announced_workers(store, now, tenant, prefix)
    match request:
        case w.WorkerList():
            found, cursor = _page([(each.pid, each) for each in workers], request)
            return Response(OK, WorkerPage(found, cursor))
        case w.FunctionList():
            names = sorted({each.name for worker in workers for each in worker.functions})
            records = [(name, _record(name, _runners(name, workers))) for name in names]
            functions, cursor = _page(records, request)
            return Response(OK, FunctionPage(functions, cursor))
        case w.FunctionGet():
            runners = _runners(request.name, workers)
            if not runners:
                return Response(NOT_FOUND, f"no worker announces a function {request.name}")
            return Response(OK, FunctionResult(_record(request.name, runners), runners))


async def announced_workers(store: Store, now: int, tenant: str, prefix: str) -> list[WorkerRecord]:
    """The workers whose announcements hold at `now` (ms); of very many, the first."""
    found: list[WorkerRecord] = []
    after: str | None = None
    for _ in range(0, MAX_SEARCH_SCAN_ROWS, MAX_SEARCH_ROWS):
        rows = await store.scan_entries(tenant, EntryKind.WORKER, after, MAX_SEARCH_ROWS)
        for row in rows:
            said = row.data
            assert isinstance(said, Announcement)
            queues = [*said.queues, *(each.queue for each in said.functions)]
            if said.expires_at > now and all(queue.startswith(prefix) for queue in queues):
                record = WorkerRecord(
                    row.key.name, list(said.queues), list(said.functions), said.expires_at
                )
                found.append(record)
        if len(rows) < MAX_SEARCH_ROWS:
            break
        after = rows[-1].key.name
    return found


def _runners(name: str, workers: Sequence[WorkerRecord]) -> list[Runner]:
    return [
        Runner(worker.pid, each.version, each.queue, worker.expires_at, each.schema)
        for worker in workers
        for each in worker.functions
        if each.name == name
    ]


def _record(name: str, runners: Sequence[Runner]) -> FunctionRecord:
    return FunctionRecord(
        name,
        sorted({each.version for each in runners}),
        sorted({each.queue for each in runners}),
        len({each.pid for each in runners}),
    )


def _page(
    rows: Sequence[tuple[str, RowT]], request: w.WorkerList | w.FunctionList
) -> tuple[list[RowT], str | None]:
    """Those beyond the cursor, up to the limit, and the cursor of what remains."""
    limit = request.limit or DEFAULT_SEARCH_ROWS
    beyond = [(name, row) for name, row in rows if name > (request.cursor or "")]
    cursor = beyond[limit - 1][0] if len(beyond) > limit else None
    return [row for _, row in beyond[:limit]], cursor
