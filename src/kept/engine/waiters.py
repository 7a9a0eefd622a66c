"""Those who wait: claims for a due task, calls for a settled promise.

A waiter is registered before its last look at the records, so no wake-up is lost; a wake-up that
finds it looking makes it look once more.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from kept.engine.alarm import Alarm
from kept.protocol.storage import Notice

WaitKey: TypeAlias = tuple[str, str]
# The functions that a claim is limited to; None for any.
Functions: TypeAlias = tuple[str, ...] | None
Line: TypeAlias = dict["Waiter", None]


class Waiter:
    """One waiting request and the keys (tenant, queue or promise) that wake it.

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


class Waiters:
    """Waiting claims by queue, first come first served, and waiting calls by promise."""

    def __init__(self) -> None:
        # Claims that take other functions take other tasks: one of each kind is woken.
        self._by_queue: dict[WaitKey, dict[Functions, Line]] = {}
        self._by_promise: dict[WaitKey, Line] = {}
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
        waiter = Waiter([(tenant, promise_id)])
        self._by_promise.setdefault(waiter.keys[0], {})[waiter] = None
        self._waiting += 1
        return waiter

    def remove_wait(self, waiter: Waiter) -> None:
        waiting = self._by_promise[waiter.keys[0]]
        del waiting[waiter]
        if not waiting:
            del self._by_promise[waiter.keys[0]]
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
        waited_for = notice.settled & self._by_promise.keys()
        for key in sorted(waited_for):
            for waiter in self._by_promise[key]:
                waiter.wake()
                woken += 1
        return woken

    def wake_all(self) -> None:
        """Everybody looks again: after an outage, or when the engine stops."""
        for lines in self._by_queue.values():
            for line in lines.values():
                for waiter in line:
                    waiter.wake()
        for waiting in self._by_promise.values():
            for waiter in waiting:
                waiter.wake()


def _wake_first(line: Line) -> bool:
    for waiter in line:
        if not waiter.woken:
            waiter.wake()
            return True
    return False
