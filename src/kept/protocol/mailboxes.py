"""Mailboxes: message n to `name` of promise `id` is the promise `id!name.n` (protocol B8)."""

from __future__ import annotations

import re
from typing import Final

from kept.protocol import tags as tag
from kept.protocol.limits import MAX_ID_BYTES, MAX_MAILBOX_NAME_BYTES
from kept.protocol.records import Promise

_NAME: Final = re.compile(rf"[a-z0-9_-]{{1,{MAX_MAILBOX_NAME_BYTES}}}")
# Room for the dot and any number, so that a mailbox that takes its first message takes all.
_NUMBER_BYTES: Final = 17


def message_id(id: str, name: str, number: int) -> str:
    """The id of a message's promise."""
    return f"{id}!{name}.{number}"


def mailbox_problem(id: str, name: str) -> str | None:
    """Why a promise cannot have a mailbox of that name."""
    if _NAME.fullmatch(name) is None:
        return f"name: must be 1 to {MAX_MAILBOX_NAME_BYTES} of a-z, 0-9, _ and -: {name[:100]!r}"
    if len(f"{id}!{name}".encode()) + _NUMBER_BYTES > MAX_ID_BYTES:
        return f"id: with the mailbox's name and a number it is longer than {MAX_ID_BYTES} bytes"
    return None


def is_message(promise: Promise, owner: str, name: str) -> bool:
    """Whether a promise was made to be a message of that mailbox."""
    return promise.tags.get(tag.MAILBOX) == name and promise.parent == owner


def message_tags(id: str, name: str, origin: str) -> dict[str, str]:
    """The tags of a message: a child of the mailbox's owner that others may await."""
    return {
        tag.ORIGIN: origin,
        tag.PARENT: id,
        tag.BRANCH: id,
        tag.EXTERNAL: "true",
        tag.MAILBOX: name,
    }
