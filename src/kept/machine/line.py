"""Who waits for a lock or a slot, first come first served (protocol B5; docs/design/locks.md).

The line is part of the record of what is waited for, so it is the same for all processes. What is free
is kept for whose turn it is, for `TURN_MS`; one that does not come in that time, or was not seen for
`PRESENCE_MS`, is taken to be gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from msgspec.structs import replace

from kept.protocol.entries import Waiter
from kept.protocol.limits import MAX_LINE, PRESENCE_MS, TURN_MS

Line: TypeAlias = tuple[Waiter, ...]


def called(line: Line, occupied: int, now: int) -> Line:
    """The line at `now` without those that are gone: for each slot that is free somebody's turn has
    come. `occupied` counts those that are held."""
    present = [w for w in line if w.until > now and (w.turn is None or w.turn > now)]
    return tuple(
        replace(waiter, turn=waiter.turn or now + TURN_MS)
        if occupied + before < waiter.limit
        else waiter
        if waiter.turn is None
        else replace(waiter, turn=None)
        for before, waiter in enumerate(present)
    )


def may_take(line: Line, holder: str, occupied: int, limit: int) -> bool:
    """Whether a slot is free and not kept for one that was here before `holder`."""
    return occupied + place_of(line, holder) < limit


def place_of(line: Line, holder: str) -> int:
    """How many are before `holder`: all of them, where it is not in line."""
    holders = [waiter.holder for waiter in line]
    return holders.index(holder) if holder in holders else len(holders)


def joined(line: Line, holder: str, limit: int, now: int) -> Line | None:
    """The line with `holder` seen in its place, or at the end; None where there is no room."""
    place = place_of(line, holder)
    if place == len(line):
        new = Waiter(holder, now + PRESENCE_MS, limit=limit)
        return None if len(line) >= MAX_LINE else (*line, new)
    seen = replace(line[place], until=now + PRESENCE_MS, limit=limit)
    return (*line[:place], seen, *line[place + 1 :])


def without(line: Line, holder: str) -> Line:
    """The line after `holder` has left."""
    return tuple(waiter for waiter in line if waiter.holder != holder)


def next_look(line: Line, lease_ends: Iterable[int | None]) -> int | None:
    """When (ms) the line may move without anybody asking: a lease ends, a turn passes, or one that
    waits is taken to be gone."""
    instants = [at for at in lease_ends if at is not None]
    for waiter in line:
        instants.append(waiter.until if waiter.turn is None else min(waiter.turn, waiter.until))
    return min(instants, default=None)
