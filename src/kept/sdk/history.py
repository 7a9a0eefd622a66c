"""What former holders of a task recorded: what a replay follows (protocol A4, B3)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from kept.client.connection import Connection, call
from kept.errors import NondeterminismError
from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.records import PromiseRecord, PromiseState
from kept.protocol.responses import PreloadResult
from kept.sdk.asks import Ask

MAX_SHOWN: Final = 5


class History:
    """The records of a run's promises by id, and the order in which results reached the code."""

    def __init__(self) -> None:
        self._known: dict[str, PromiseRecord] = {}
        self._order: deque[str] = deque()
        self._numbered: set[str] = set()

    async def load(self, connection: Connection, id: str) -> None:
        """Reads all of a task's children, page by page, in the order of their release."""
        cursor: str | None = None
        while True:
            response = await call(connection, r.PromiseChildren(id, cursor))
            page = response.data
            assert isinstance(page, PreloadResult)
            self._known.update((record.id, record) for record in page.preload)
            self._order.extend(page.released or ())
            cursor = page.more
            if cursor is None:
                break
        self._numbered.update(self._order)

    def get(self, id: str) -> PromiseRecord | None:
        return self._known.get(id)

    def put(self, record: PromiseRecord) -> None:
        self._known[record.id] = record

    def numbered(self, id: str) -> bool:
        """Whether its place in the order is recorded."""
        return id in self._numbered

    @property
    def is_followed(self) -> bool:
        """Whether the order that was recorded has not ended yet."""
        return bool(self._order)

    def take(self, id: str) -> bool:
        """Whether this one comes next in the order; then it is taken from it."""
        is_next = bool(self._order) and self._order[0] == id
        if is_next:
            self._order.popleft()
        return is_next

    def next(
        self, asks: Mapping[str, Ask], waiting: Callable[[], list[str]]
    ) -> PromiseRecord | None:
        """What the code got next the first time; None when the record of it ends.

        Raises `NondeterminismError` where the code, which has asked for `asks` and waits for
        `waiting`, cannot get it now.
        """
        if not self._order:
            return None
        id = self._order.popleft()
        record = self._known.get(id)
        if id not in asks:
            raise NondeterminismError(
                f"the code was given {id} ({_function_of(record)}) at this place before, and does "
                f"not ask for it now; it {_waits(waiting())}. Durable code must ask for the same "
                "things in the same order in every replay: put what varies into steps, or give "
                "the changed function a new version"
            )
        if record is None or record.state is PromiseState.PENDING:
            raise NondeterminismError(f"{id} was given to the code before, but is not settled")
        return record


def _function_of(record: PromiseRecord | None) -> str:
    tags = record.tags if record else {}
    if tags.get(tag.TIMER):
        return "a timer"
    return tags.get(tag.FUNCTION, "a promise")


def _waits(waiting: list[str]) -> str:
    if not waiting:
        return "waits for nothing"
    more = f" and {len(waiting) - MAX_SHOWN} more" if len(waiting) > MAX_SHOWN else ""
    return f"waits for step {', '.join(waiting[:MAX_SHOWN])}{more}"
