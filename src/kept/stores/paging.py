"""Pages of a task's preload, cut in the same way by every store (protocol A4)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from kept.errors import BadRequestError
from kept.machine.preload import payload_size
from kept.protocol.limits import MAX_PRELOAD_BYTES
from kept.protocol.records import Promise
from kept.protocol.storage import OTHERS_CURSOR, RELEASED_CURSOR, Children


class Position(NamedTuple):
    """Where a page begins: after this promise, among the released children or among the others."""

    released: bool
    after: str | None


def position_of(cursor: str | None) -> Position:
    """What a cursor says. Raises `BadRequestError` for one that no store gave."""
    if cursor is None:
        return Position(True, None)
    if cursor.startswith(RELEASED_CURSOR):
        return Position(True, cursor[len(RELEASED_CURSOR) :])
    if cursor.startswith(OTHERS_CURSOR):
        return Position(False, cursor[len(OTHERS_CURSOR) :] or None)
    raise BadRequestError("cursor: is not one that an earlier answer gave")


def page_of(released: Iterable[Promise], others: Iterable[Promise], limit: int) -> Children:
    """The page of at most `limit` promises (and MAX_PRELOAD_BYTES, but at least one) that begins
    with the first of `released`, or of `others` when there are none."""
    page = Children([], [])
    room = _Room(limit)
    last: str | None = None
    for kind, source, taken in (
        (RELEASED_CURSOR, released, page.released),
        (OTHERS_CURSOR, others, page.others),
    ):
        for promise in source:
            if not room.take(promise):
                page.more = last if last is not None else kind
                return page
            taken.append(promise)
            last = kind + promise.id
    return page


class _Room:
    """What still fits into a page."""

    def __init__(self, limit: int) -> None:
        self._records = limit
        self._bytes = MAX_PRELOAD_BYTES
        self._empty = True

    def take(self, promise: Promise) -> bool:
        size = len(promise.id) + payload_size(promise.param) + payload_size(promise.value)
        if self._records == 0 or (size > self._bytes and not self._empty):
            return False
        self._records -= 1
        self._bytes -= size
        self._empty = False
        return True
