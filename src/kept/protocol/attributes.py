"""Attributes of running work: what they may be, and how they are found (protocol B8)."""

from __future__ import annotations

import msgspec

from kept.protocol.entries import EntryKey, EntryKind
from kept.protocol.limits import MAX_ATTRIBUTE_BYTES
from kept.protocol.texts import id_problem, text_size


def attribute_problem(name: str, value: str | None) -> str | None:
    """Why an attribute cannot be that."""
    if problem := id_problem(name, "set", MAX_ATTRIBUTE_BYTES):
        return problem
    size = text_size(value or "")
    if size < 0:
        return f"set: {name[:64]} must be valid Unicode text without NUL characters"
    if len(name.encode()) + size > MAX_ATTRIBUTE_BYTES:
        return f"set: {name[:64]} with its value is longer than {MAX_ATTRIBUTE_BYTES} bytes"
    return None


def attributes_key(id: str) -> EntryKey:
    """The key of what a promise's work says of itself."""
    return EntryKey(EntryKind.ATTRIBUTES, id)


def index_prefix(name: str, value: str) -> str:
    """How the names of all index entries of an attribute begin; the promise's id follows, so that
    they are in the order of ids. An array of JSON ends where it says, so no id is mistaken for it."""
    return msgspec.json.encode([name, value]).decode()


def index_key(name: str, value: str, id: str) -> EntryKey:
    """The key under which a promise is found by an attribute."""
    return EntryKey(EntryKind.ATTRIBUTE, index_prefix(name, value) + id)
