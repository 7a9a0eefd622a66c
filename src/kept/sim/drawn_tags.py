"""The optional tags of raw promises. What they mean is judged step by step (inspector.py)."""

from __future__ import annotations

from random import Random
from typing import Final

from kept.protocol import tags as tag

FUNCTIONS: Final = ("f@1", "g@1", "f@2")
BACKOFFS: Final = (
    "fixed:300",
    "linear:200:500",
    "exponential:100:2000",
    "full_jitter:200:900",
    "equal_jitter:200:900",
)
DELAY_MS: Final = (100, 900, 4_000)


def add_tags(random: Random, tags: dict[str, str], now: int, deadline: int) -> None:
    """Adds some of them to a promise that is made at `now` (ms) and has this deadline."""
    if tag.TARGET not in tags:
        if random.random() < 0.3:
            tags[tag.TIMER] = "true"
        return
    if random.random() < 0.3:
        tags[tag.DELAY] = str(min(now + random.choice(DELAY_MS), deadline - 1))
    if random.random() < 0.5:
        tags[tag.PRIORITY] = str(random.randrange(10))
    if random.random() < 0.5:
        tags[tag.ATTEMPTS] = str(random.choice((1, 2, 3)))
    if random.random() < 0.5:
        tags[tag.BACKOFF] = random.choice(BACKOFFS)
    if random.random() < 0.3:
        tags[tag.EXHAUSTED] = random.choice(("reject", "halt"))
    if random.random() < 0.5 and tags[tag.TARGET] == "queue://raw":
        tags[tag.FUNCTION] = random.choice(FUNCTIONS)
    if random.random() < 0.2:
        tags[tag.LANE] = random.choice(("one", "two"))
