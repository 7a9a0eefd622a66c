"""The keys that a promise's tags name: dedupe, debounce, singleton (protocol B4).

Each is an entry that says which promise holds it, named by the queue and the key, so that equal keys
of two queues have nothing to do with each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from kept.protocol import tags as tag
from kept.protocol.addresses import queue_of
from kept.protocol.entries import EntryKey, EntryKind

REFUSE: Final = "refuse"
IGNORE: Final = "ignore"
POSTPONE: Final = "postpone"
REPLACE: Final = "replace"
SKIP: Final = "skip"
RETURN: Final = "return"
_CHOICES: Final = (
    (tag.DEDUPE_MISMATCH, (REFUSE, IGNORE)),
    (tag.DEBOUNCE_MODE, (POSTPONE, REPLACE)),
    (tag.SINGLETON, (SKIP, REPLACE, RETURN)),
)
# Each of these says more of a key, and nothing without it.
_NEEDED: Final = (
    (tag.DEDUPE_WINDOW, tag.DEDUPE),
    (tag.DEDUPE_MISMATCH, tag.DEDUPE),
    (tag.DEBOUNCE_MODE, tag.DEBOUNCE),
    (tag.DEBOUNCE_MAX, tag.DEBOUNCE),
    (tag.SINGLETON_KEY, tag.SINGLETON),
)


def has_keys(tags: Mapping[str, str]) -> bool:
    """Whether tags name any key."""
    return tag.DEDUPE in tags or tag.SINGLETON in tags or tag.DEBOUNCE in tags


def named_keys(tags: Mapping[str, str]) -> dict[EntryKind, str]:
    """The keys that tags name, by the kind of their holder."""
    named: dict[EntryKind, str] = {}
    if tag.DEDUPE in tags:
        named[EntryKind.DEDUPE] = tags[tag.DEDUPE]
    if tag.DEBOUNCE in tags:
        named[EntryKind.DEBOUNCE] = tags[tag.DEBOUNCE]
    if tag.SINGLETON in tags:
        key = tags.get(tag.SINGLETON_KEY) or _name_of(tags.get(tag.FUNCTION, ""))
        named[EntryKind.SINGLETON] = key
    return named


def _name_of(function: str) -> str:
    """`name@version` without the version: an upgrade is no second singleton."""
    return function.rpartition("@")[0] or function


def keys_of(tags: Mapping[str, str]) -> dict[EntryKind, EntryKey]:
    """Where the holders of the keys that tags name are stored."""
    if not has_keys(tags):
        return {}
    target = tags.get(tag.TARGET)
    queue = queue_of(target) if target is not None else None
    return {
        kind: EntryKey(kind, msgspec.json.encode([queue or "", key]).decode())
        for kind, key in named_keys(tags).items()
    }


def keys_problem(
    tags: Mapping[str, str],
    id_problem: Callable[[str, str], str | None],
    whole_number: Callable[[str], int | None],
) -> str | None:
    """What is wrong with the tags about keys; the other two judge texts and numbers."""
    for more, key in _NEEDED:
        if more in tags and key not in tags:
            return f"tags: {more} needs {key}"
    if not has_keys(tags):
        return None
    for name, choices in _CHOICES:
        if name in tags and tags[name] not in choices:
            return f"tags: {name} must be {', '.join(choices[:-1])} or {choices[-1]}"
    for name in (tag.DEDUPE_WINDOW, tag.DEBOUNCE_MAX):
        if name in tags and whole_number(tags[name]) is None:
            return f"tags: {name} must be a whole number of milliseconds"
    if tag.DEBOUNCE in tags and not _waits_in_a_queue(tags):
        return f"tags: {tag.DEBOUNCE} needs a {tag.TARGET} that is a queue, and no timer"
    if tag.SINGLETON in tags and not named_keys(tags)[EntryKind.SINGLETON]:
        return f"tags: {tag.SINGLETON} needs {tag.SINGLETON_KEY} or {tag.FUNCTION}"
    for kind, key in named_keys(tags).items():
        if problem := id_problem(key, f"tags: kept:{kind}"):
            return problem
    return None


def _waits_in_a_queue(tags: Mapping[str, str]) -> bool:
    is_queue = queue_of(tags.get(tag.TARGET, "")) is not None
    return is_queue and tags.get(tag.TIMER) != "true"


def no_keys_problem(tags: Mapping[str, str], why: str) -> str | None:
    """The refusal of keys where they would mean nothing."""
    if not has_keys(tags):
        return None
    return f"tags: {tag.DEDUPE}, {tag.DEBOUNCE} and {tag.SINGLETON} {why}"
