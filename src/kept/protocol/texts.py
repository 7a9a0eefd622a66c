"""Which texts can be stored, and be ids."""

from __future__ import annotations

from typing import Final

from kept.protocol.addresses import is_queue_name
from kept.protocol.limits import MAX_ID_BYTES, MAX_QUEUE_NAME_BYTES

# So many bytes a character takes at most: shorter texts need no encoding to be measured.
_CHARACTER_BYTES: Final = 4


def id_problem(text: str, field: str = "id", limit: int = MAX_ID_BYTES) -> str | None:
    """Why `text` cannot be an id, or another name of at most `limit` bytes."""
    if not text:
        return f"{field}: must not be empty"
    if len(text) > limit // _CHARACTER_BYTES or not text.isascii():
        size = _encoded_size(text)
        if size is None:
            return f"{field}: is not valid Unicode text"
        if size > limit:
            return f"{field}: is {size} bytes long, the limit is {limit}"
    return f"{field}: must not contain a NUL character" if "\0" in text else None


def queue_problem(name: str, field: str = "name") -> str | None:
    """Why there cannot be a queue of that name."""
    if problem := id_problem(name, field, MAX_QUEUE_NAME_BYTES):
        return problem
    if is_queue_name(name):
        return None
    return f"{field}: {name[:64]!r} is no name of a queue: write it without blanks and queue://"


def text_size(text: str) -> int:
    """A bound on the size in bytes that is exact once it matters; -1 for what cannot be stored."""
    if "\0" in text:
        return -1
    if text.isascii():
        return len(text)
    size = _encoded_size(text)
    return -1 if size is None else size


def _encoded_size(text: str) -> int | None:
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return None
