"""Those who wait: claims for a due task, calls for a settled promise, holders-to-be for a lock.

A waiter is registered before its last look at the records, so no wake-up is lost; a wake-up that
finds it looking makes it look once more.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import TypeAlias, TypeVar

from kept.engine.alarm import Alarm
from kept.protocol.guard_requests import LockAcquire, SlotAcquire
from kept.protocol.responses import Response
from kept.protocol.storage import Notice

# (tenant, queue or promise), or (tenant, kind and name of an entry, holder).
WaitKey: TypeAlias = tuple[str, ...]
TurnKey: TypeAlias = tuple[str, str, str, str]
# A request that takes a place in line for something that is held.
LineRequest: TypeAlias = LockAcquire | SlotAcquire
# The functions that a claim is limited to; None for any.
Functions: TypeAlias = tuple[str, ...] | None
Line: TypeAlias = dict["Waiter", None]
W = TypeVar("W", bound="Waiter")


class Waiter:
    """One waiting request and the keys that wake it.

    `woken` says that a look is owed to it, `honoured` that its present look was owed.
    """

    __slots__ = ("alarm", "functions", "honoured", "keys", "woken")

    def __init__(self, keys: list[WaitKey], functions: Functions = None) -> None:
        self.keys = keys
        self.functions = functions
        self.alarm = Alarm()
        self.woken = False
        self.honoured = False

    def wake(self) -> None:
        self.woken = True
        self.alarm.ring()

    def look(self) -> None:
        """A look begins: what wakes from now on is owed another one."""
        self.honoured, self.woken = self.woken, False

    def found_nothing(self) -> None:
        """The look was for nothing, so nobody else needs to look instead."""
        self.honoured = False


class Place(Waiter):
    """One that waits in line: `work` takes what is free when its turn comes. The commit that frees it
    may do that for it, and then leaves the `answer` here."""

    __slots__ = ("answer", "fixed_now", "request_id", "work")

    def __init__(
        self, key: TurnKey, work: LineRequest, request_id: str | None, fixed_now: int | None
    ) -> None:
        super().__init__([key])
        self.work = work
        self.request_id = request_id
        self.fixed_now = fixed_now
        self.answer: Response | None = None


class Waiters:
    """Waiting claims by queue, first come first served, waiting calls by promise, and those who
    wait for a lock or a slot by its entry and their own name: their order is in the entry."""

    def __init__(self) -> None:
        # Claims that take other functions take other tasks: one of each kind is woken.
        self._by_queue: dict[WaitKey, dict[Functions, Line]] = {}
        self._by_promise: dict[WaitKey, Line] = {}
        self._by_place: dict[WaitKey, dict[Place, None]] = {}
        self._waiting = 0
        # Queues of which a waiting claim got less than is due, because of a limit.
        self._limited: set[WaitKey] = set()
        # Rung when the last one leaves.
        self.empty = Alarm()

    def __len__(self) -> int:
        return self._waiting

    def add_claim(
        self, tenant: str, queues: Iterable[str], functions: Iterable[str] | None = None
    ) -> Waiter:
        wanted = None if functions is None else tuple(sorted(functions))
        waiter = Waiter([(tenant, queue) for queue in queues], wanted)
        for key in waiter.keys:
            self._by_queue.setdefault(key, {}).setdefault(wanted, {})[waiter] = None
        self._waiting += 1
        return waiter

    def remove_claim(self, waiter: Waiter) -> None:
        """Takes it out of all lines; what it was woken for and did not use up goes to the next."""
        for key in waiter.keys:
            lines = self._by_queue[key]
            del lines[waiter.functions][waiter]
            if not lines[waiter.functions]:
                del lines[waiter.functions]
            if not lines:
                del self._by_queue[key]
                self._limited.discard(key)
        self._left()
        if waiter.woken or waiter.honoured:
            # It found tasks and may have left others behind, or it never looked.
            for key in waiter.keys:
                _wake_first(self._by_queue.get(key, {}).get(waiter.functions, {}))

    def add_wait(self, tenant: str, promise_id: str) -> Waiter:
        return self._add(self._by_promise, Waiter([(tenant, promise_id)]))

    def remove_wait(self, waiter: Waiter) -> None:
        self._remove(self._by_promise, waiter)

    def add_place(self, place: Place) -> None:
        self._add(self._by_place, place)

    def remove_place(self, place: Place) -> bool:
        """Whether nobody waits here in that place any more."""
        self._remove(self._by_place, place)
        return place.keys[0] not in self._by_place

    def places_of(self, key: TurnKey) -> list[Place]:
        """Those who wait here for that turn: a caller that asks again may be there twice."""
        return list(self._by_place.get(key, ()))

    @property
    def any_in_line(self) -> bool:
        return bool(self._by_place)

    def _add(self, table: dict[WaitKey, dict[W, None]], waiter: W) -> W:
        table.setdefault(waiter.keys[0], {})[waiter] = None
        self._waiting += 1
        return waiter

    def _remove(self, table: dict[WaitKey, dict[W, None]], waiter: W) -> None:
        (key,) = waiter.keys
        del table[key][waiter]
        if not table[key]:
            del table[key]
        self._left()

    def _left(self) -> None:
        self._waiting -= 1
        if not self._waiting:
            self.empty.ring()

    def wake_claims(self, key: WaitKey) -> int:
        """Wakes, of the claims on a queue, the first of each kind that nothing has woken yet.

        One that then finds tasks wakes the next: so a burst wakes as many as it feeds.
        """
        return sum(_wake_first(line) for line in self._by_queue.get(key, {}).values())

    def note_limited(self, keys: Iterable[WaitKey]) -> None:
        """A claim that waits was kept from tasks of these queues: a slot that is given back there
        is news to it."""
        self._limited.update(key for key in keys if key in self._by_queue)

    def wake(self, notice: Notice) -> int:
        """Wakes who should look again because of a commit; answers how many."""
        freed = notice.freed & self._limited
        self._limited -= freed
        woken = sum(self.wake_claims(key) for key in sorted(notice.queues | freed))
        woken += _wake_all_of(self._by_promise, notice.settled)
        woken += _wake_all_of(self._by_place, notice.turns)
        return woken

    def wake_all(self) -> None:
        """Everybody looks again: after an outage, or when the engine stops."""
        for lines in self._by_queue.values():
            for line in lines.values():
                for waiter in line:
                    waiter.wake()
        _wake_all_of(self._by_promise, self._by_promise.keys())
        _wake_all_of(self._by_place, self._by_place.keys())


def _wake_all_of(table: dict[WaitKey, dict[W, None]], keys: Set[tuple[str, ...]]) -> int:
    woken = 0
    for key in sorted(keys & table.keys()):
        for waiter in table[key]:
            waiter.wake()
            woken += 1
    return woken


def _wake_first(line: Line) -> bool:
    for waiter in line:
        if not waiter.woken:
            waiter.wake()
            return True
    return False
