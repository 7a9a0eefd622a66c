"""The requests that say who runs what (protocol B9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Final, TypeAlias

import msgspec
from msgspec import Meta

from kept.protocol.entries import AnnouncedFunction
from kept.protocol.limits import (
    MAX_ANNOUNCED_FUNCTIONS,
    MAX_ANNOUNCEMENT_BYTES,
    MAX_ANNOUNCEMENT_TTL_MS,
    MAX_CLAIM_QUEUES,
    MAX_INTEGER,
)
from kept.protocol.requests import Name, Request, Rows
from kept.protocol.texts import id_problem, queue_problem, text_size

AnnouncementTtl: TypeAlias = Annotated[int, Meta(ge=1, le=MAX_ANNOUNCEMENT_TTL_MS)]


class WorkerAnnounce(Request):
    """What a worker claims and runs, for `ttl` ms; heartbeats of the same pid renew it."""

    kind: ClassVar[str] = "worker.announce"
    pid: Name
    queues: Annotated[list[Name], Meta(max_length=MAX_CLAIM_QUEUES)]
    functions: Annotated[list[AnnouncedFunction], Meta(max_length=MAX_ANNOUNCED_FUNCTIONS)]
    ttl: AnnouncementTtl


class WorkerList(Request):
    kind: ClassVar[str] = "worker.list"
    limit: Rows | None = None
    cursor: str | None = None


class FunctionList(Request):
    kind: ClassVar[str] = "function.list"
    limit: Rows | None = None
    cursor: str | None = None


class FunctionGet(Request):
    """Who runs a function, by its name without a version."""

    kind: ClassVar[str] = "function.get"
    name: Name


WORKER_REQUESTS: tuple[type[Request], ...] = (WorkerAnnounce, WorkerList, FunctionList, FunctionGet)


def _announce(request: WorkerAnnounce, _: frozenset[str]) -> str | None:
    if problem := id_problem(request.pid, "pid"):
        return problem
    for queue in request.queues:
        if problem := queue_problem(queue, "queues"):
            return problem
    for function in request.functions:
        problem = id_problem(function.name, "functions")
        if problem := problem or queue_problem(function.queue, "functions"):
            return problem
        if "@" in function.name or not 0 <= function.version <= MAX_INTEGER:
            return "functions: a name has no @, a version is a whole number from 0 on"
    announced = [(function.name, function.version) for function in request.functions]
    if len(set(announced)) != len(announced):
        return "functions: one is named twice"
    try:
        encoded = msgspec.json.encode(request.functions)
    except UnicodeEncodeError:
        return "functions: must be valid Unicode text"
    if len(encoded) > MAX_ANNOUNCEMENT_BYTES:
        return f"functions: {len(encoded)} bytes, the limit is {MAX_ANNOUNCEMENT_BYTES}"
    return None


def _listing(request: WorkerList | FunctionList, _: frozenset[str]) -> str | None:
    if request.cursor is not None and text_size(request.cursor) < 0:
        return "cursor: is not one that a list answered"
    return None


WORKER_CHECKS: Final[dict[type[Request], Callable[[Any, frozenset[str]], str | None]]] = {
    WorkerAnnounce: _announce,
    WorkerList: _listing,
    FunctionList: _listing,
    FunctionGet: lambda request, _: id_problem(request.name, "name"),
}
