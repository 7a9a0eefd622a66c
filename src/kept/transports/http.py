"""Messages pushed to `http://` and `https://` addresses by POST (protocol A6)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

import aiohttp
from yarl import URL

from kept.protocol.addresses import shown_address
from kept.protocol.records import MessageKind
from kept.protocol.signatures import SIGNATURE_HEADER, signature_of
from kept.protocol.storage import DEFAULT_TENANT
from kept.runtime import Runtime
from kept.transports.base import DeliveryFailedError
from kept.transports.reach import Reach, socket_factory
from kept.transports.webhooks import WebhookOptions

DELIVERY_TIMEOUT_SECONDS: Final = 10.0
CONNECT_TIMEOUT_SECONDS: Final = 5.0
# Of each kind of message: receivers that are slow do not keep workers from their messages.
MAX_PUSHES_IN_FLIGHT: Final = 64
MAX_PUSHES_IN_FLIGHT_PER_HOST: Final = 16
# What is read of an answer, so that its connection can be used again; its content means nothing.
MAX_ANSWER_BYTES: Final = 65_536
MAX_HEADER_BYTES: Final = 16_384

_HEADERS: Final = {"Content-Type": "application/json", "User-Agent": "kept"}
_NO_OPTIONS: Final = WebhookOptions()


class HttpPushTransport:
    """POSTs each message; an answer of 2xx within the timeout is a delivery.

    Messages are signed where there are secrets. Redirects are not followed, no cookie, proxy or
    password of the server's environment is used, and addresses that are not public are refused: an
    address comes from a client, which must not borrow the server's rights.
    """

    schemes: frozenset[str] = frozenset({"http", "https"})

    def __init__(
        self,
        runtime: Runtime,
        options: WebhookOptions = _NO_OPTIONS,
        *,
        timeout_seconds: float = DELIVERY_TIMEOUT_SECONDS,
        in_flight: int = MAX_PUSHES_IN_FLIGHT,
    ) -> None:
        self._runtime = runtime
        self._secrets = options.secrets
        # Kept apart, so that no message travels over a connection that its rule would refuse.
        self._senders = {
            kind: _Sender(options.reach(kind), timeout_seconds, in_flight) for kind in MessageKind
        }
        self._closed = False

    def channels(self) -> Iterable[str]:
        """Both schemes, always open."""
        return sorted(self.schemes)

    def reachable(self, address: str, tenant: str = DEFAULT_TENANT) -> bool:
        """Always: only a try can tell."""
        return not self._closed

    async def deliver(
        self,
        address: str,
        message: bytes,
        tenant: str = DEFAULT_TENANT,
        kind: MessageKind = MessageKind.UNBLOCK,
    ) -> None:
        """Posts one message; raises `DeliveryFailedError` unless the answer is 2xx."""
        try:
            url = URL(address)
        except ValueError as error:
            raise DeliveryFailedError(f"not a URL: {error}") from None
        if not url.host:
            raise DeliveryFailedError("not a URL with a host")
        if self._closed:
            raise DeliveryFailedError("the transport is closed")
        status = await self._post(url, message, kind)
        if not 200 <= status < 300:
            raise DeliveryFailedError(f"{_shown(url)} answered {status}")

    async def close(self) -> None:
        """Ends all deliveries in flight; idempotent."""
        self._closed = True
        for sender in self._senders.values():
            await sender.close()

    async def _post(self, url: URL, message: bytes, kind: MessageKind) -> int:
        return await self._senders[kind].post(url, message, lambda: self._headers(message))

    def _headers(self, message: bytes) -> dict[str, str]:
        if not self._secrets:
            return _HEADERS
        seconds = self._runtime.now_ms() // 1_000
        return {**_HEADERS, SIGNATURE_HEADER: signature_of(message, seconds, self._secrets)}


class _Sender:
    """Connections to whatever one rule allows."""

    def __init__(self, reach: Reach, timeout_seconds: float, in_flight: int) -> None:
        self._reach = reach
        self._timeout = aiohttp.ClientTimeout(
            total=timeout_seconds, connect=min(timeout_seconds, CONNECT_TIMEOUT_SECONDS)
        )
        self._in_flight = in_flight
        self._slots = asyncio.Semaphore(in_flight)
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def post(self, url: URL, message: bytes, headers: Callable[[], dict[str, str]]) -> int:
        """The status of the answer; `headers` are made when it is this message's turn. Raises
        `DeliveryFailedError`."""
        async with self._slots:
            try:
                async with self._open_session().post(
                    url, data=message, headers=headers(), allow_redirects=False
                ) as answer:
                    if answer.content_length is None or answer.content_length > MAX_ANSWER_BYTES:
                        # A body of unknown length may never end; the status is all that counts.
                        answer.close()
                    else:
                        await answer.read()
                    return answer.status
            except TimeoutError:
                raise DeliveryFailedError(f"{_shown(url)} did not answer in time") from None
            except (aiohttp.ClientError, OSError, ValueError) as error:
                text = str(error).replace(str(url), _shown(url))
                raise DeliveryFailedError(
                    f"{_shown(url)}: {type(error).__name__}: {text}"
                ) from None

    async def close(self) -> None:
        """Ends what is in flight; idempotent."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open_session(self) -> aiohttp.ClientSession:
        if self._closed:
            raise DeliveryFailedError("the transport is closed")
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=self._in_flight,
                limit_per_host=MAX_PUSHES_IN_FLIGHT_PER_HOST,
                socket_factory=socket_factory(self._reach),
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=self._timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
                max_line_size=MAX_HEADER_BYTES,
                max_field_size=MAX_HEADER_BYTES,
            )
        return self._session


def _shown(url: URL) -> str:
    return shown_address(str(url))
