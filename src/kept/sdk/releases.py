"""The order in which results reached the code, until it is stored for certain (protocol B3)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from kept.protocol.responses import Response

Send = Callable[[list[str]], Awaitable[Response]]


class Releases:
    """Results that the code got and whose numbers may not be stored yet.

    Every request carries all of them, because requests may overtake each other and may fail: a
    number that is stored already stays as it is, so carrying one twice changes nothing, and
    whichever request is committed first stores the whole order up to then.
    """

    def __init__(self) -> None:
        self._pending: list[str] = []
        self._stored = 0
        self._ambiguous_until = 0

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, id: str, *, ambiguous: bool) -> None:
        """The code got this one now; `ambiguous` where a replay could have given it another."""
        self._pending.append(id)
        if ambiguous:
            self._ambiguous_until = self._stored + len(self._pending)

    @property
    def ambiguous(self) -> bool:
        """Whether a crash now could let a replay take another way."""
        return self._ambiguous_until > self._stored

    @property
    def last(self) -> str:
        """The one that the code got last, of those that are not stored for certain."""
        return self._pending[-1]

    async def carried(self, send: Send) -> Response:
        """Sends a request with what is not stored yet; a good answer means that now it is."""
        carried = list(self._pending)
        end = self._stored + len(carried)
        response = await send(carried)
        if response.ok and end > self._stored:
            del self._pending[: end - self._stored]
            self._stored = end
        return response
