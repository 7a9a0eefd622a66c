"""Locks and slots as each step leaves them: who was let in, in which order, and for how long (B5).

Told from the records alone, without the machine's own rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from kept.check.state import State
from kept.protocol.entries import Entry, EntryKey, EntryKind, Lock, Slots, Waiter
from kept.sim.guards import SLOT_LIMIT, SLOTS
from kept.sim.ledger import Ledger

IN_TURN: Final = "first come, first served"
KEPT_FOR: Final = "what is free is kept for the first"
IN_PLACE: Final = "who waits keeps its place"
LEASE: Final = "leases last from now for their ttl"
HELD: Final = (EntryKind.LOCK, EntryKind.SLOTS)


class Lease(NamedTuple):
    """What a holder has. `fence` is a lock's; `ttl` in ms, `expires_at` in ms."""

    fence: int
    ttl: int
    expires_at: int


class Lines:
    """Looks at every step."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def saw(self, now: int, before: Mapping[EntryKey, Entry | None], state: State) -> None:
        """A step was taken at `now` (ms): what the entries that it touched were, and what they are."""
        for key, former in before.items():
            entry = state.entries.get(key)
            was, waited = _leases(former), _present(former, now)
            held, waiting = _leases(entry), _waiters(entry)
            live = {holder: lease for holder, lease in was.items() if lease.expires_at > now}
            self._let_in(key, live, waited, held)
            self._in_order(key, waited, waiting)
            self._has_turn(key, held, waiting)
            self._lasts(key, now, live, held)

    def _let_in(
        self,
        key: EntryKey,
        live: dict[str, Lease],
        waited: list[Waiter],
        held: dict[str, Lease],
    ) -> None:
        """Nobody was let in past those who were there before."""
        names = [waiter.holder for waiter in waited]
        for holder in held.keys() - live.keys():
            place = names.index(holder) if holder in names else len(names)
            limit = waited[place].limit if holder in names else _limit_of(key)
            if limit is not None and len(live) + place >= limit:
                why = f"{key.name}: {holder} got in, {sorted(live)} had it, {names} waited"
                self._break(IN_TURN, why)

    def _in_order(self, key: EntryKey, waited: list[Waiter], waiting: tuple[Waiter, ...]) -> None:
        names = [waiter.holder for waiter in waiting]
        stayed = [waiter.holder for waiter in waited if waiter.holder in names]
        if names[: len(stayed)] != stayed:
            was = [waiter.holder for waiter in waited]
            self._break(IN_PLACE, f"{key.name}: {was} waited, now {names}")

    def _has_turn(self, key: EntryKey, held: dict[str, Lease], waiting: tuple[Waiter, ...]) -> None:
        for place, waiter in enumerate(waiting):
            if (waiter.turn is not None) != (len(held) + place < waiter.limit):
                why = f"{key.name}: {len(held)} hold it, number {place} in line is {waiter}"
                self._break(KEPT_FOR, why)

    def _lasts(
        self, key: EntryKey, now: int, live: dict[str, Lease], held: dict[str, Lease]
    ) -> None:
        for holder, lease in held.items():
            former = live.get(holder)
            is_same = former is not None and former.fence == lease.fence
            is_old = is_same and former is not None and former.expires_at == lease.expires_at
            if not is_old and lease.expires_at != now + lease.ttl:
                why = f"{key.name}: {holder} had {former}, has {lease} at {now}"
                self._break(LEASE, why)
            if is_same and former is not None and lease.expires_at < former.expires_at:
                self._break(LEASE, f"{key.name}: {holder} had {former}, has less: {lease}")

    def _break(self, oracle: str, why: str) -> None:
        self._ledger.break_off(oracle, why)


def _limit_of(key: EntryKey) -> int | None:
    """How many may have it at once; None where each request says so."""
    if key.kind is EntryKind.LOCK:
        return 1
    return SLOT_LIMIT if key.name == SLOTS else None


def _leases(entry: Entry | None) -> dict[str, Lease]:
    """By holder."""
    data = entry.data if entry is not None else None
    if isinstance(data, Slots):
        return {each.holder: Lease(0, each.ttl, each.expires_at) for each in data.leases}
    if isinstance(data, Lock) and data.holder is not None:
        assert data.ttl is not None and data.expires_at is not None
        return {data.holder: Lease(data.fence, data.ttl, data.expires_at)}
    return {}


def _waiters(entry: Entry | None) -> tuple[Waiter, ...]:
    data = entry.data if entry is not None else None
    return data.waiters if isinstance(data, Lock | Slots) else ()


def _present(entry: Entry | None, now: int) -> list[Waiter]:
    """Those in line who were seen lately and have not let their turn pass."""
    return [
        waiter
        for waiter in _waiters(entry)
        if waiter.until > now and (waiter.turn is None or waiter.turn > now)
    ]
