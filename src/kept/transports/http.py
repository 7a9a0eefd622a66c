"""Messages pushed to `http://` and `https://` addresses by POST (protocol A6)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

import aiohttp
from yarl import URL

from kept.protocol.storage import DEFAULT_TENANT
from kept.transports.base import DeliveryFailedError

DELIVERY_TIMEOUT_SECONDS: Final = 10.0
CONNECT_TIMEOUT_SECONDS: Final = 5.0
MAX_PUSHES_IN_FLIGHT: Final = 64
MAX_PUSHES_IN_FLIGHT_PER_HOST: Final = 16
# What is read of an answer, so that its connection can be used again; its content means nothing.
MAX_ANSWER_BYTES: Final = 65_536
MAX_HEADER_BYTES: Final = 16_384

_HEADERS: Final = {"Content-Type": "application/json", "User-Agent": "kept"}


class HttpPushTransport:
    """POSTs each message; an answer of 2xx within the timeout is a delivery.

    Redirects are not followed, and no cookie, proxy or password of the server's environment is
    used: an address comes from a client, which must not borrow the server's rights.
    """

    schemes: frozenset[str] = frozenset({"http", "https"})

    def __init__(
        self,
        *,
        timeout_seconds: float = DELIVERY_TIMEOUT_SECONDS,
        in_flight: int = MAX_PUSHES_IN_FLIGHT,
    ) -> None:
        self._timeout = aiohttp.ClientTimeout(
            total=timeout_seconds, connect=min(timeout_seconds, CONNECT_TIMEOUT_SECONDS)
        )
        self._in_flight = in_flight
        self._slots = asyncio.Semaphore(in_flight)
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    def channels(self) -> Iterable[str]:
        """Both schemes, always open."""
        return sorted(self.schemes)

    def reachable(self, address: str, tenant: str = DEFAULT_TENANT) -> bool:
        """Always: only a try can tell."""
        return not self._closed

    async def deliver(self, address: str, message: bytes, tenant: str = DEFAULT_TENANT) -> None:
        """Posts one message; raises `DeliveryFailedError` unless the answer is 2xx."""
        try:
            url = URL(address)
        except ValueError as error:
            raise DeliveryFailedError(f"not a URL: {error}") from None
        if not url.host:
            raise DeliveryFailedError("not a URL with a host")
        async with self._slots:
            status = await self._post(url, message)
        if not 200 <= status < 300:
            raise DeliveryFailedError(f"{_shown(url)} answered {status}")

    async def close(self) -> None:
        """Ends all deliveries in flight; idempotent."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _post(self, url: URL, message: bytes) -> int:
        try:
            async with self._open_session().post(
                url, data=message, headers=_HEADERS, allow_redirects=False
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
            raise DeliveryFailedError(f"{_shown(url)}: {type(error).__name__}: {text}") from None

    def _open_session(self) -> aiohttp.ClientSession:
        if self._closed:
            raise DeliveryFailedError("the transport is closed")
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=self._in_flight, limit_per_host=MAX_PUSHES_IN_FLIGHT_PER_HOST
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
    """The address as it may appear in logs: a password and a query can be secrets."""
    return str(url.with_user(None).with_query(None).with_fragment(None))
