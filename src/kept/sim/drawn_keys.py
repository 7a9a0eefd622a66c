"""Creates under dedupe, debounce and singleton keys, and what must be true of them in the end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise
from random import Random
from typing import Final

from kept.protocol import tags as tag
from kept.protocol.records import Promise

# In a queue of their own, so that few keys meet often.
QUEUE: Final = "queue://keyed"
KEYS: Final = ("k", "l", "m")
WINDOW_MS: Final = ("0", "1000", "10000")
DELAY_MS: Final = (0, 100, 400)


def add_keys(random: Random, tags: dict[str, str], now: int) -> None:
    """A key of one kind, in one of its modes."""
    key = random.choice(KEYS)
    tags.clear()
    tags[tag.TARGET] = QUEUE
    match random.choice(("dedupe", "debounce", "singleton")):
        case "dedupe":
            tags[tag.DEDUPE] = key
            tags[tag.DEDUPE_WINDOW] = random.choice(WINDOW_MS)
            # Mostly the same work, asked for twice.
            tags[tag.FINGERPRINT] = random.choice((key, key, key, "another"))
        case "debounce":
            tags[tag.DEBOUNCE] = key
            tags[tag.DEBOUNCE_MODE] = random.choice(("postpone", "replace"))
            tags[tag.DEBOUNCE_MAX] = "2000"
            tags[tag.DELAY] = str(now + random.choice(DELAY_MS))
        case _:
            tags[tag.SINGLETON] = random.choice(("skip", "replace", "return"))
            tags[tag.SINGLETON_KEY] = key


def overlapping(promises: Iterable[Promise]) -> Iterator[str]:
    """Pairs of promises that were born under one key while the first of them had it. Each has its
    key from its birth to its settlement, and a dedupe key to the end of its window."""
    groups: dict[tuple[str, str, str], list[tuple[int, int, str]]] = defaultdict(list)
    for promise in promises:
        ended = promise.settled_at
        if ended is None:
            ended = promise.timeout_at
        for name in (tag.DEDUPE, tag.SINGLETON_KEY):
            if name in promise.tags:
                window = int(promise.tags.get(tag.DEDUPE_WINDOW, 0)) if name == tag.DEDUPE else 0
                free_at = max(ended, promise.created_at + window)
                group = groups[name, promise.tags.get(tag.TARGET, ""), promise.tags[name]]
                group.append((promise.created_at, free_at, promise.id))
    for (name, _, key), each in sorted(groups.items()):
        for (_, free_at, first), (born_at, _, second) in pairwise(sorted(each)):
            if born_at < free_at:
                yield f"{second} was born at {born_at} under {name} {key}, {first} had it to {free_at}"
