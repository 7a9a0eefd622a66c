"""`HttpConnection`: an engine behind a URL (protocol A1, B1).

Concurrent requests are gathered into `POST /batch`; requests that wait travel alone. What can be
asked again without harm is asked again, with backoff; everything else fails with
`ConnectionFailedError` as soon as its outcome is unknown.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from typing import Final

import msgspec

from kept.client.exchange import (
    AnswerLostError,
    AnswerTooLargeError,
    Exchange,
    HttpExchange,
    NotAnEngineError,
    NotSentError,
)
from kept.client.lanes import BATCH_FRAME_BYTES, DEFAULT_LANES, Lanes, Outcome, single_outcome
from kept.client.retry import (
    REFUSED_FOR_NOW,
    REPEATABLE,
    REPEATABLE_WITH_REQUEST_ID,
    RetryPolicy,
)
from kept.client.waiting import (
    MAX_WAITING_CLAIMS,
    MAX_WAITING_IN_LINE,
    MAX_WAITING_PROMISES,
    PromiseWaits,
)
from kept.errors import ConnectionFailedError
from kept.protocol.codec import encode_request
from kept.protocol.guard_requests import LockAcquire, SlotAcquire
from kept.protocol.kinds import wait_of
from kept.protocol.limits import MAX_BODY_BYTES
from kept.protocol.requests import PromiseWait, Request, RequestHead, TaskClaim
from kept.protocol.responses import TOO_LARGE, Response
from kept.runtime import Runtime

# For an exchange as a whole, and for what a waiting request may take beyond its wait.
EXCHANGE_TIMEOUT_SECONDS: Final = 30.0
WAIT_MARGIN_SECONDS: Final = 15.0
_SINGLE_PATH: Final = "/"
_UUID_BYTES: Final = 16


class _Item(msgspec.Struct):
    """A request on its way: encoded once, however often it is sent."""

    kind: str
    corr_id: str
    body: bytes
    wait_ms: int
    # Its answer did not fit together with others', so it goes alone.
    alone: bool = False


class HttpConnection:
    """A connection over HTTP; safe to share between tasks of one event loop.

    `url` is the server's root, `token` a bearer token (A8). `exchange` replaces the network.
    """

    def __init__(
        self,
        url: str,
        runtime: Runtime,
        token: str | None = None,
        *,
        retry: RetryPolicy | None = None,
        lanes: int = DEFAULT_LANES,
        exchange: Exchange | None = None,
    ) -> None:
        self._url = url
        self._runtime = runtime
        self._retry = retry or RetryPolicy()
        # One more for the answers that must travel alone.
        waiting = MAX_WAITING_PROMISES + MAX_WAITING_CLAIMS + MAX_WAITING_IN_LINE
        connections = lanes + waiting + 1
        self._exchange = exchange or HttpExchange(url, token, connections)
        self._lanes = Lanes(self._exchange, runtime, EXCHANGE_TIMEOUT_SECONDS, lanes)
        # Apart, so that a worker can claim while hundreds of results are awaited.
        self._promise_slots = asyncio.Semaphore(MAX_WAITING_PROMISES)
        in_line = asyncio.Semaphore(MAX_WAITING_IN_LINE)
        self._slots = {
            PromiseWait.kind: self._promise_slots,
            TaskClaim.kind: asyncio.Semaphore(MAX_WAITING_CLAIMS),
            LockAcquire.kind: in_line,
            SlotAcquire.kind: in_line,
        }
        self._waits = PromiseWaits(self, runtime)
        self._alone = asyncio.Lock()
        self._numbers = itertools.count(1)
        self._closed = False

    async def send(self, request: Request, *, request_id: str | None = None) -> Response:
        """The engine's answer (see `Connection.send`). A request too large to travel is answered
        with 413 here. Raises `ConnectionFailedError` when no answer came."""
        if isinstance(request, PromiseWait) and self._promise_slots.locked():
            return await self._waits.poll(request)
        item = self._encode(request, request_id)
        if len(item.body) > MAX_BODY_BYTES - BATCH_FRAME_BYTES:
            text = f"the request is {len(item.body)} bytes, the limit is {MAX_BODY_BYTES}"
            return Response(TOO_LARGE, text)
        return await self._send_repeatedly(item)

    async def close(self) -> None:
        """Ends the connection; whoever still waits for an answer gets `ConnectionFailedError`."""
        self._closed = True
        await self._lanes.close(AnswerLostError("the connection was closed"))
        await self._exchange.close()

    def _encode(self, request: Request, request_id: str | None) -> _Item:
        kind = request.kind
        if request_id is None and kind in REPEATABLE_WITH_REQUEST_ID:
            request_id = str(uuid.UUID(bytes=self._runtime.entropy(_UUID_BYTES), version=4))
        corr_id = str(next(self._numbers))
        head = RequestHead(corr_id=corr_id, request_id=request_id)
        return _Item(kind, corr_id, encode_request(request, head), wait_of(request))

    async def _send_repeatedly(self, item: _Item) -> Response:
        for attempt in itertools.count(1):
            if self._closed:
                raise ConnectionFailedError(f"the connection to {self._url} is closed")
            retry_after = None
            try:
                outcome = await self._post(item)
                if outcome.response.status not in REFUSED_FOR_NOW or not self._may_repeat(attempt):
                    return outcome.response
                retry_after = outcome.retry_after
            except NotSentError as error:
                if not self._may_repeat(attempt):
                    raise self._unreachable(error) from error
            except AnswerLostError as error:
                if item.kind not in REPEATABLE or not self._may_repeat(attempt):
                    raise self._unknown_outcome(item, error) from error
            except AnswerTooLargeError as error:
                if item.kind not in REPEATABLE or item.alone:
                    raise self._unknown_outcome(item, error) from error
                item.alone = True
                continue
            except NotAnEngineError as error:
                raise ConnectionFailedError(
                    f"{self._url} is not a kept server: {error}; check the URL"
                ) from error
            await self._runtime.sleep(self._retry.delay(self._runtime, attempt, retry_after))
        raise AssertionError("a bounded number of attempts ended without an answer")

    def _may_repeat(self, attempt: int) -> bool:
        return attempt < self._retry.attempts and not self._closed

    async def _post(self, item: _Item) -> Outcome:
        if item.wait_ms > 0:
            async with self._slots[item.kind]:
                return await self._post_single(item)
        if item.alone:
            # One at a time, because each may fill the memory that one answer is allowed.
            async with self._alone:
                return await self._post_single(item)
        return await self._lanes.ask(item.kind, item.corr_id, item.body)

    async def _post_single(self, item: _Item) -> Outcome:
        timeout = EXCHANGE_TIMEOUT_SECONDS
        if item.wait_ms > 0:
            timeout = item.wait_ms / 1_000 + WAIT_MARGIN_SECONDS
        answer = await self._exchange.post(_SINGLE_PATH, item.body, timeout)
        return single_outcome(item.kind, item.corr_id, answer)

    def _unreachable(self, error: Exception) -> ConnectionFailedError:
        return ConnectionFailedError(f"cannot reach {self._url}: {error}; is the server running?")

    def _unknown_outcome(self, item: _Item, error: Exception) -> ConnectionFailedError:
        return ConnectionFailedError(
            f"no answer to {item.kind} from {self._url}: {error}; whether it was applied is unknown"
        )
