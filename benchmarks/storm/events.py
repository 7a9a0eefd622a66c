"""The events of a storm and the order in which their copies arrive: all of it follows from a seed."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

# Events of one block are about the same entities and arrive in any order.
EVENTS_PER_BLOCK = 2_000
REVISIONS_PER_ENTITY = 20
MAX_COPIES = 5
# A further copy comes up to so many blocks after the first.
MAX_BLOCKS_LATE = 3
HOPELESS_SHARE = 1 / 250
# How many handlings of an event fail before one succeeds, by weight. Three retries are allowed, and
# a worker that dies before it has begun uses up one.
FAILURES = (0, 1, 2)
FAILURE_WEIGHTS = (90, 8, 2)


class Event(NamedTuple):
    """`entity` is at `revision`. Its handler fails `failures` times first, or always (`hopeless`)."""

    number: int
    entity: int
    revision: int
    failures: int
    hopeless: bool

    @property
    def id(self) -> str:
        return f"event-{self.number}"


def all_events(seed: int, count: int) -> Iterator[Event]:
    """Every event once, in the order in which they happened."""
    for first in range(0, count, EVENTS_PER_BLOCK):
        yield from _block(seed, first, min(EVENTS_PER_BLOCK, count - first))


def arrivals(seed: int, count: int) -> Iterator[Event]:
    """Every event, each up to five times, in the order in which the copies arrive."""
    later: list[tuple[int, float, Event]] = []
    for number, first in enumerate(range(0, count, EVENTS_PER_BLOCK)):
        random = Random(f"arrivals {seed} {number}")
        for event in _block(seed, first, min(EVENTS_PER_BLOCK, count - first)):
            heapq.heappush(later, (number, random.random(), event))
            for _ in range(random.randrange(MAX_COPIES)):
                late = random.randint(0, MAX_BLOCKS_LATE)
                heapq.heappush(later, (number + late, random.random(), event))
        while later and later[0][0] <= number:
            yield heapq.heappop(later)[2]
    while later:
        yield heapq.heappop(later)[2]


def _block(seed: int, first: int, count: int) -> Iterator[Event]:
    random = Random(f"events {seed} {first}")
    entities = max(1, EVENTS_PER_BLOCK // REVISIONS_PER_ENTITY)
    base = first // REVISIONS_PER_ENTITY
    for offset in range(count):
        yield Event(
            first + offset,
            base + offset % entities,
            1 + offset // entities,
            random.choices(FAILURES, FAILURE_WEIGHTS)[0],
            random.random() < HOPELESS_SHARE,
        )
