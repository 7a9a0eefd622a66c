"""One HTTP exchange with a server, and nothing more: the place where a simulated network stands in."""

from __future__ import annotations

import os
from typing import Final, Protocol

import aiohttp
import msgspec

MAX_ANSWER_BYTES: Final = 64 * 1_048_576
CONNECT_TIMEOUT_SECONDS: Final = 5.0
# Far shorter than servers keep an idle connection, so that a request seldom meets one that closes.
KEEP_ALIVE_SECONDS: Final = 15.0
_READ_BYTES: Final = 65_536


class NotSentError(Exception):
    """No connection could be made: the server saw nothing of the request."""


class AnswerLostError(Exception):
    """The request may have arrived, but no whole answer came back."""


class AnswerTooLargeError(Exception):
    """The answer is larger than a client takes in; the request was applied."""


class NotAnEngineError(Exception):
    """Something answered that does not speak the protocol; asking again would not change that."""


class Answer(msgspec.Struct):
    """What came back. `retry_after` is the header's, in seconds."""

    status: int
    body: bytes
    retry_after: float | None = None


class Exchange(Protocol):
    """Posts bodies to a server."""

    async def post(self, path: str, body: bytes, timeout: float) -> Answer:
        """The answer within `timeout` seconds; raises `NotSentError`, `AnswerLostError` or
        `AnswerTooLargeError`."""

    async def close(self) -> None:
        """Ends all connections; idempotent."""


class HttpExchange:
    """Exchanges over aiohttp. `url` is the server's root; `connections` bounds how many are open."""

    def __init__(self, url: str, token: str | None, connections: int) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def post(self, path: str, body: bytes, timeout: float) -> Answer:
        session = self._session or self._open()
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_TIMEOUT_SECONDS)
        try:
            async with session.post(
                self._url + path, data=body, timeout=limits, allow_redirects=False
            ) as response:
                content = await _bounded_body(response)
                return Answer(response.status, content, _retry_after(response))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotSentError(_text_of(error)) from error
        except aiohttp.InvalidURL as error:
            raise NotSentError(f"{self._url!r} is not a URL") from error
        except TimeoutError as error:
            raise AnswerLostError(f"no answer within {timeout:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise AnswerLostError(_text_of(error)) from error

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=self._connections, keepalive_timeout=KEEP_ALIVE_SECONDS
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        return self._session


async def _bounded_body(response: aiohttp.ClientResponse) -> bytes:
    announced = response.content_length
    if announced is not None and announced <= MAX_ANSWER_BYTES:
        return await response.read()
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_chunked(_READ_BYTES):
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            response.close()
            raise AnswerTooLargeError(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    """The header's whole seconds; its other form, a date, would compare two machines' clocks."""
    text = response.headers.get("Retry-After", "").strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _text_of(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        # Its own text repeats the address and shows what nobody asked about.
        number, text = error.os_error.errno, error.os_error.strerror
        return os.strerror(number).lower() if number and number > 0 else str(text)
    return str(error) or type(error).__name__
