"""Faults are counted as they strike, so that a plan can let some of them strike and not others."""

from __future__ import annotations

from collections.abc import Collection, Mapping


class Strikes:
    """Numbers the strikes of each fault from 1. `only` names those that may happen, by fault; of a
    fault that it does not name, all may."""

    def __init__(self, only: Mapping[str, Collection[int]]) -> None:
        self._only = {name: frozenset(numbers) for name, numbers in only.items()}
        self._drawn: dict[str, int] = {}
        # Of those that have not been drawn yet: how often they could have been.
        self._chances: dict[str, int] = {}
        # The numbers of those that were let happen.
        self.struck: dict[str, list[int]] = {}

    def is_overdue(self, fault: str, rate: float) -> bool:
        """A fault of that rate per chance was not drawn this time. Whether it strikes all the same:
        at the latest when it is to be expected once, so that every run sees it."""
        if fault in self._drawn:
            return False
        self._chances[fault] = self._chances.get(fault, 0) + 1
        return self._chances[fault] * rate >= 1

    def allow(self, fault: str) -> int:
        """A fault is about to strike: its number if it may, else 0. A number is used up either way."""
        number = self._drawn.get(fault, 0) + 1
        self._drawn[fault] = number
        only = self._only.get(fault)
        if only is not None and number not in only:
            return 0
        self.struck.setdefault(fault, []).append(number)
        return number
