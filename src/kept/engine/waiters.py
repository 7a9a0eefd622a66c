"""Those who wait: claims for a due task, calls for a settled promise.

A waiter is registered before its last look at the records, so no wake-up is lost; a wake-up that
finds it looking makes it look once more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from kept.engine.alarm import Alarm
from kept.protocol.storage import Notice

WaitKey = tuple[str, str]


class Waiter:
    """One waiting request and the keys (tenant, queue or promise) that wake it."""

    __slots__ = ("alarm", "keys", "woken")

    def __init__(self, keys: list[WaitKey]) -> None:
        self.keys = keys
        self.alarm = Alarm()
        self.woken = False

    def wake(self) -> None:
        self.woken = True
        self.alarm.ring()


class Waiters:
    """Waiting claims by queue, first come first served, and waiting calls by promise."""

    def __init__(self) -> None:
        self._by_queue: dict[WaitKey, deque[Waiter]] = {}
        self._by_promise: dict[WaitKey, dict[Waiter, None]] = {}
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def add_claim(self, tenant: str, queues: Iterable[str]) -> Waiter:
        waiter = Waiter([(tenant, queue) for queue in queues])
        for key in waiter.keys:
            self._by_queue.setdefault(key, deque()).append(waiter)
        self._waiting += 1
        return waiter

    def remove_claim(self, waiter: Waiter) -> None:
        for key in waiter.keys:
            line = self._by_queue[key]
            line.remove(waiter)
            if not line:
                del self._by_queue[key]
        self._waiting -= 1

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
        self._waiting -= 1

    def wake_claim(self, key: WaitKey) -> bool:
        """Wakes the first claim on a queue that nothing has woken yet.

        One that then finds tasks wakes the next: so a burst wakes as many as it feeds.
        """
        for waiter in self._by_queue.get(key, ()):
            if not waiter.woken:
                waiter.wake()
                return True
        return False

    def wake(self, notice: Notice) -> int:
        """Wakes who should look again because of a commit; answers how many."""
        woken = sum(self.wake_claim(key) for key in sorted(notice.queues))
        for key in sorted(notice.settled):
            for waiter in self._by_promise.get(key, ()):
                waiter.wake()
                woken += 1
        return woken

    def wake_all(self) -> None:
        """Everybody looks again: after an outage, or when the engine stops."""
        for line in self._by_queue.values():
            for waiter in line:
                waiter.wake()
        for waiting in self._by_promise.values():
            for waiter in waiting:
                waiter.wake()
