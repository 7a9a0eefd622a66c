"""Locks and slots against a naive model: a list of holders and a list of those who wait."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from kept.machine import background as b
from kept.machine.locks import lock_key
from kept.machine.slots import slots_key
from kept.protocol import guard_requests as g
from kept.protocol.limits import PRESENCE_MS, TURN_MS
from kept.protocol.requests import Request
from kept.protocol.responses import (
    CONFLICT,
    OK,
    LockGrant,
    LockResult,
    SlotResult,
)
from tests.unit.machine.world import World

HOLDERS = ("a", "b", "c", "d", "e")
TTL = 2_000
WAIT = 30_000


class Move(NamedTuple):
    what: str
    holder: str
    pause: int


moves = st.lists(
    st.builds(
        Move,
        st.sampled_from(("acquire", "wait", "wait", "beat", "release", "leave")),
        st.sampled_from(HOLDERS),
        st.sampled_from((0, 0, 0, 1, 700, TTL, TURN_MS, PRESENCE_MS)),
    ),
    max_size=60,
)


class Naive:
    """What a lock (of one slot) and slots are, with lists that are walked each time."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.now = 0
        # Who holds one until when, who waits until when, and whose turn ends when.
        self.held: dict[str, int] = {}
        self.line: list[str] = []
        self.seen: dict[str, int] = {}
        self.turns: dict[str, int] = {}

    def pass_time(self, milliseconds: int) -> None:
        end = self.now + milliseconds
        while self.now < end:
            instants = [*self.held.values(), *self.seen.values(), *self.turns.values()]
            self.now = min([at for at in instants if self.now < at < end], default=end)
            self._tick()

    def _tick(self) -> None:
        self.held = {h: until for h, until in self.held.items() if until > self.now}
        for waiter in list(self.line):
            if self.seen[waiter] <= self.now or self.turns.get(waiter, self.now + 1) <= self.now:
                self.leave(waiter)
        self._call()

    def _call(self) -> None:
        first = self.line[: max(0, self.limit - len(self.held))]
        self.turns = {w: self.turns.get(w, self.now + TURN_MS) for w in first}

    def acquire(self, holder: str, *, waits: bool) -> bool:
        if holder in self.held:
            self.held[holder] = max(self.held[holder], self.now + TTL)
            return True
        place = self.line.index(holder) if holder in self.line else len(self.line)
        if len(self.held) + place < self.limit:
            self.leave(holder)
            self.held[holder] = self.now + TTL
            self._call()
            return True
        if not waits:
            self.leave(holder)
        else:
            if holder not in self.line:
                self.line.append(holder)
            self.seen[holder] = self.now + PRESENCE_MS
        self._call()
        return False

    def beat(self, holder: str) -> bool:
        if holder in self.held:
            self.held[holder] = self.now + TTL
        return holder in self.held

    def release(self, holder: str) -> bool:
        was_held = self.held.pop(holder, None) is not None
        self._call()
        return was_held

    def leave(self, holder: str) -> None:
        if holder in self.line:
            self.line.remove(holder)
        self.turns.pop(holder, None)
        self._call()


class Asking:
    """The same moves as requests to the machine."""

    def __init__(self, limit: int, *, lock: bool) -> None:
        self.world = World(watched=False)
        self.limit = limit
        self.lock = lock
        self.fences: dict[str, int] = {}
        self.highest = 0

    def pass_time(self, milliseconds: int) -> None:
        """The background looks at each instant at which it should."""
        end = self.world.now + milliseconds
        while due := self.world.tables["default"].due_entries.first(1, end):
            self.world.now = max(self.world.now, due[0].at)
            self.world.settle_down()
        self.world.now = end

    def acquire(self, holder: str, *, waits: bool) -> bool:
        wait = WAIT if waits else 0
        if not self.lock:
            return self._ask(g.SlotAcquire("k", self.limit, holder, TTL, wait))
        response = self.world.ask(g.LockAcquire("k", holder, TTL, wait))
        if isinstance(response.data, LockGrant):
            fence = response.data.fence
            # The fence of a grant that goes on, or one above all that were.
            assert fence > self.highest or self.fences.get(holder) == fence == self.highest
            self.fences[holder] = self.highest = fence
        return response.ok

    def beat(self, holder: str) -> bool:
        if self.lock:
            return self._ask(g.LockHeartbeat("k", holder, self.fences.get(holder, 0)))
        return self._ask(g.SlotHeartbeat("k", holder))

    def release(self, holder: str) -> bool:
        if self.lock:
            return self._ask(g.LockRelease("k", holder, self.fences.get(holder, 0)))
        held = holder in self.holders()
        assert self._ask(g.SlotRelease("k", holder))
        return held

    def leave(self, holder: str) -> None:
        key = lock_key("k") if self.lock else slots_key("k")
        self.world.fire(b.LeaveLine(key, holder))

    def holders(self) -> dict[str, int]:
        if not self.lock:
            slots = self.world.ok(g.SlotGet("k"), SlotResult)
            return {each.holder: each.expires_at for each in slots.holders}
        found = self.world.ask(g.LockGet("k")).data
        if not isinstance(found, LockResult) or found.lock.holder is None:
            return {}
        assert found.lock.expires_at is not None
        return {found.lock.holder: found.lock.expires_at}

    def _ask(self, request: Request) -> bool:
        response = self.world.ask(request)
        assert response.status in (OK, CONFLICT)
        return response.ok


def play(asked: list[Move], limit: int, *, lock: bool) -> None:
    machine, naive = Asking(limit, lock=lock), Naive(limit)
    start = machine.world.now
    for move in asked:
        naive.pass_time(move.pause)
        machine.pass_time(move.pause)
        if move.what in ("acquire", "wait"):
            waits = move.what == "wait"
            granted = machine.acquire(move.holder, waits=waits)
            assert granted == naive.acquire(move.holder, waits=waits), move
        elif move.what == "beat":
            assert machine.beat(move.holder) == naive.beat(move.holder), move
        elif move.what == "release":
            assert machine.release(move.holder) == naive.release(move.holder), move
        else:
            machine.leave(move.holder)
            naive.leave(move.holder)
        assert machine.holders() == {h: start + at for h, at in naive.held.items()}, move


@given(moves)
def test_a_lock_is_what_the_naive_one_is(asked: list[Move]) -> None:
    """Every answer of a lock is the naive model's, and its fences rise."""
    play(asked, 1, lock=True)


@given(moves, st.integers(1, 3))
def test_slots_are_what_the_naive_ones_are(asked: list[Move], limit: int) -> None:
    """Every answer about slots is the naive model's."""
    play(asked, limit, lock=False)
