"""From the bytes of a request to the bytes of its answer: envelope, version, authority, fields, and
then the engine (the order of checks of protocol A1)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from kept.errors import RequestError
from kept.protocol import codec
from kept.protocol import guard_requests as g
from kept.protocol import inquiries as i
from kept.protocol import requests as r
from kept.protocol import worker_requests as w
from kept.protocol.kinds import wait_of
from kept.protocol.limits import MAX_BATCH_REQUESTS
from kept.protocol.responses import (
    BAD_REQUEST,
    INTERNAL,
    OK,
    SHED,
    Response,
)
from kept.runtime import Runtime
from kept.server.authority import Authenticator, Authority
from kept.server.limits import MAX_BATCH_ANSWER_BYTES
from kept.server.replies import Reply, refusal

logger = logging.getLogger("kept.server")

_SEARCHES: Final = (
    r.PromiseSearch,
    r.TaskSearch,
    r.ScheduleSearch,
    r.DeadList,
    r.QueueList,
    g.LockSearch,
    g.GuardSearch,
    w.WorkerList,
    w.FunctionList,
    w.FunctionGet,
    i.TaskExplain,
)
# One answer may hold thousands of records.
_PAGES: Final = (*_SEARCHES, r.PromiseChildren, r.DebugSnap)
# Asked again, they do nothing more and answer the same.
_REPEATABLE: Final = (
    r.PromiseGet,
    r.PromiseCreate,
    r.PromiseSettle,
    r.PromiseCancel,
    r.PromiseRegisterCallback,
    r.PromiseRegisterListener,
    r.PromiseWait,
    r.DeadGet,
    r.ScheduleCreate,
    r.ScheduleGet,
)
INTERNAL_TEXT: Final = "internal error; the server's log has the details"


# Returns when the client of a request is gone.
Departure: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


class Engine(Protocol):
    """What the door needs of an engine."""

    async def submit(
        self,
        request: r.Request,
        head: r.RequestHead = ...,
        tenant: str = ...,
        prefix: str | None = ...,
    ) -> Response:
        """The answer to one request; `prefix` limits a search to ids that start with it."""

    async def submit_batch(
        self, items: Sequence[tuple[r.Request, r.RequestHead]], tenant: str = ...
    ) -> list[Response]:
        """The answers in order."""


class _Admitted(msgspec.Struct):
    """A request that may go to the engine."""

    kind: str
    head: r.RequestHead
    request: r.Request
    authority: Authority

    @property
    def search_prefix(self) -> str | None:
        """What the engine must limit this request to."""
        return self.authority.search_prefix if isinstance(self.request, _SEARCHES) else None


class Reception:
    """Receives requests for one engine."""

    def __init__(self, engine: Engine, authenticator: Authenticator, runtime: Runtime) -> None:
        self._engine = engine
        self._authenticator = authenticator
        self._runtime = runtime

    async def single(self, body: bytes, bearer: str | None, departure: Departure) -> Reply | None:
        """The answer to one envelope; None where it waited and its client went away, which
        `departure` returns at. `bearer` is the token of the HTTP request, if any."""
        admitted = self._admit(body, bearer)
        if isinstance(admitted, Reply):
            return admitted
        try:
            if wait_of(admitted.request) > 0:
                response = await self._submit_unless_gone(admitted, departure)
            else:
                response = await self._submit(admitted)
            return None if response is None else _encoded(admitted, response)
        except Exception:  # noqa: BLE001 - whatever failed inside, the client gets the protocol's 500
            return _failed(admitted)

    async def batch(self, body: bytes, bearer: str | None) -> Reply:
        """The answers to an array of envelopes, each as if it came alone (protocol B1)."""
        try:
            envelopes = codec.decode_batch(body)
        except codec.Malformed as error:
            return Reply(BAD_REQUEST, codec.encode_malformed(error))
        if not 1 <= len(envelopes) <= MAX_BATCH_REQUESTS:
            text = f"body: {len(envelopes)} requests, a batch has 1 to {MAX_BATCH_REQUESTS}"
            return refusal(BAD_REQUEST, text)
        items = [self._admit_item(envelope, bearer) for envelope in envelopes]
        answers: list[bytes] = []
        size = start = 0
        while start < len(items):
            end = _end_of_run(items, start)
            if size > MAX_BATCH_ANSWER_BYTES:
                run = [
                    item if isinstance(item, Reply) else _left_out(item)
                    for item in items[start:end]
                ]
                more = [reply.body for reply in run]
            else:
                more = await self._run(items[start:end], MAX_BATCH_ANSWER_BYTES - size)
            answers += more
            size += sum(map(len, more))
            start = end
        return Reply(OK, codec.join_batch(answers))

    def _admit(self, body: bytes | msgspec.Raw, bearer: str | None) -> _Admitted | Reply:
        try:
            envelope = codec.decode_envelope(body)
        except codec.Malformed as error:
            return Reply(BAD_REQUEST, codec.encode_malformed(error))
        head = envelope.head
        try:
            authority = self._authenticator.authenticate(head.auth or bearer)
            # Before the fields: who may do nothing is told nothing about them.
            authority.require_prefix()
            request = codec.decode_data(envelope)
            authority.require(request)
        except codec.Malformed as error:
            return Reply(BAD_REQUEST, codec.encode_malformed(error))
        except RequestError as error:
            return refusal(error.status, str(error), envelope.kind, head.corr_id)
        return _Admitted(envelope.kind, head, request, authority)

    def _admit_item(self, envelope: msgspec.Raw, bearer: str | None) -> _Admitted | Reply:
        admitted = self._admit(envelope, bearer)
        if isinstance(admitted, Reply) or wait_of(admitted.request) == 0:
            return admitted
        text = "wait, timeout: must be 0 in a batch; a request that waits travels alone"
        return refusal(BAD_REQUEST, text, admitted.kind, admitted.head.corr_id)

    async def _submit(self, admitted: _Admitted) -> Response:
        prefix = admitted.search_prefix
        tenant = admitted.authority.tenant
        if prefix is None:
            return await self._engine.submit(admitted.request, admitted.head, tenant)
        return await self._engine.submit(admitted.request, admitted.head, tenant, prefix=prefix)

    async def _submit_unless_gone(
        self, admitted: _Admitted, departure: Departure
    ) -> Response | None:
        """Gives the request up when its client is gone: a claim would go on to take work for
        nobody."""
        answering = self._runtime.spawn(self._submit(admitted), "waiting-request")
        leaving = self._runtime.spawn(departure(), "client-departure")
        both = (answering, leaving)
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            return answering.result() if answering.done() else None
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    async def _run(self, run: list[_Admitted | Reply], room: int) -> list[bytes]:
        """The answers to items that go to the engine together, in about `room` bytes."""
        admitted = [item for item in run if isinstance(item, _Admitted)]
        try:
            if len(admitted) == 1:
                responses = [await self._submit(admitted[0])]
            elif admitted:
                pairs = [(item.request, item.head) for item in admitted]
                tenant = admitted[0].authority.tenant
                responses = await self._engine.submit_batch(pairs, tenant)
            else:
                responses = []
            return _encoded_run(run, responses, room)
        except Exception:  # noqa: BLE001 - as for a single request; what was applied is unknown
            return [item.body if isinstance(item, Reply) else _failed(item).body for item in run]


def _end_of_run(items: list[_Admitted | Reply], start: int) -> int:
    """Where the items from `start` on stop belonging to one call of the engine: all of one tenant,
    while what is answered with a page of records goes alone."""
    tenant: str | None = None
    for end in range(start, len(items)):
        item = items[end]
        if isinstance(item, Reply):
            continue
        if isinstance(item.request, _PAGES):
            return end if tenant is not None else end + 1
        if tenant is not None and item.authority.tenant != tenant:
            return end
        tenant = item.authority.tenant
    return len(items)


def _encoded_run(
    run: list[_Admitted | Reply], responses: Sequence[Response], room: int
) -> list[bytes]:
    """The answers in order. Where no room is left, one that can be had again is left out."""
    following = iter(responses)
    answers: list[bytes] = []
    for item in run:
        if isinstance(item, Reply):
            reply = item
        else:
            response = next(following)
            leave_out = room < 0 and isinstance(item.request, _REPEATABLE)
            reply = _left_out(item) if leave_out else _encoded(item, response)
        answers.append(reply.body)
        room -= len(reply.body)
    return answers


def _left_out(admitted: _Admitted) -> Reply:
    text = "the answers to this batch are too large together; ask this again"
    return refusal(SHED, text, admitted.kind, admitted.head.corr_id)


def _encoded(admitted: _Admitted, response: Response) -> Reply:
    body = codec.encode_response(admitted.kind, admitted.head.corr_id, response)
    return Reply(response.status, body)


def _failed(admitted: _Admitted) -> Reply:
    """The 500 that never shows a traceback; the log has it."""
    logger.exception("request failed: kind=%s", admitted.kind)
    return refusal(INTERNAL, INTERNAL_TEXT, admitted.kind, admitted.head.corr_id)
