"""The promise requests (protocol A4)."""

from __future__ import annotations

from kept.machine.duplicates import Admission, consider, create
from kept.machine.effects import read_promise, settle
from kept.machine.events import KeyHit
from kept.machine.limits import is_full
from kept.machine.step import Step
from kept.machine.trees import kept_verdict
from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.addresses import queue_of
from kept.protocol.records import Promise
from kept.protocol.responses import (
    NOT_FOUND,
    OK,
    SHED,
    UNPROCESSABLE,
    PromiseResult,
    Response,
)


def no_promise(id: str) -> Response:
    return Response(NOT_FOUND, f"promise {id} does not exist")


def promise_get(step: Step, request: r.PromiseGet | r.PromiseWait) -> Response:
    promise = read_promise(step, request.id)
    if promise is None:
        return no_promise(request.id)
    return Response(OK, PromiseResult(promise.record()))


def promise_create(step: Step, request: r.PromiseCreate) -> Response:
    """As `create_promise`; but a queue that is full takes no new work, only what belongs to work
    that is under way (B2)."""
    is_root = request.tags.get(tag.PARENT, request.id) == request.id
    return create_promise(step, request, may_be_shed=is_root)


def create_promise(step: Step, request: r.PromiseCreate, *, may_be_shed: bool = False) -> Response:
    """Idempotent by id: the second create answers with the stored record. A key may answer for it
    too, or let it take another's place (B4)."""
    promise = read_promise(step, request.id) or kept_verdict(step, request)
    if promise is None:
        admitted = consider(step, request)
        if isinstance(admitted, Response):
            return admitted
        if isinstance(admitted, Promise):
            promise = admitted
        elif may_be_shed and (full := _full_queue(step, request, admitted)):
            return Response(SHED, f"queue {full} is full; ask again later")
        else:
            promise = create(step, request, admitted)
    else:
        step.records.events.append(KeyHit(None))
    return Response(OK, PromiseResult(promise.record()))


def _full_queue(step: Step, request: r.PromiseCreate, admitted: Admission) -> str | None:
    """The queue that has no room for a new promise, unless that takes the place of one."""
    target = request.tags.get(tag.TARGET)
    queue = queue_of(target) if target is not None else None
    if queue is None or not is_full(step, queue) or admitted.makes_room(step, queue):
        return None
    return queue


def promise_settle(step: Step, request: r.PromiseSettle) -> Response:
    """The first settlement wins: a later one answers with the stored record."""
    promise = read_promise(step, request.id)
    if promise is None:
        return no_promise(request.id)
    if promise.pending:
        promise = settle(step, promise, request.state, request.value, step.now)
    return Response(OK, PromiseResult(promise.record()))


def promise_register_callback(step: Step, request: r.PromiseRegisterCallback) -> Response:
    """The awaiting task is woken when the awaited promise settles."""
    awaited = read_promise(step, request.awaited)
    if awaited is None:
        return no_promise(request.awaited)
    awaiter = read_promise(step, request.awaiter)
    if awaiter is None:
        return Response(UNPROCESSABLE, f"awaiter {request.awaiter} does not exist")
    if awaiter.target is None:
        return Response(UNPROCESSABLE, f"awaiter {request.awaiter} has no target to be woken at")
    if not awaited.is_external:
        return not_external(awaited.id)
    if awaited.pending and awaiter.pending:
        step.records.add_callback(awaited.id, awaiter.id)
    return Response(OK, PromiseResult(awaited.record()))


def promise_register_listener(step: Step, request: r.PromiseRegisterListener) -> Response:
    """An unblock message goes to the address when the promise settles."""
    awaited = read_promise(step, request.awaited)
    if awaited is None:
        return no_promise(request.awaited)
    if not awaited.is_external:
        return not_external(awaited.id)
    if awaited.pending:
        step.records.add_listener(awaited.id, request.address)
    return Response(OK, PromiseResult(awaited.record()))


def not_external(id: str) -> Response:
    return Response(
        UNPROCESSABLE,
        f"promise {id} cannot be awaited: it has no target, timer or resonate:external tag",
    )
