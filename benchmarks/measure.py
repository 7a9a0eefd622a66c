"""Several runs of a measurement, and what to quote of them: the median and the spread."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import NamedTuple


class Result(NamedTuple):
    """One figure over several runs. `goal` and `floor` are bounds on the median, where it has any."""

    name: str
    unit: str
    values: list[float]
    goal: float | None = None
    floor: float | None = None
    smaller_is_better: bool = False

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def row(self) -> str:
        """One line of the table."""
        low, high = min(self.values), max(self.values)
        cells = [
            self.name,
            f"{_shown(self.median)} {self.unit}",
            f"{_shown(low)} to {_shown(high)}",
            _shown(self.goal) if self.goal is not None else "",
            _shown(self.floor) if self.floor is not None else "",
            self.verdict(),
        ]
        return f"| {' | '.join(cells)} |"

    def verdict(self) -> str:
        """Which bound the median reaches."""
        if self.goal is None:
            return ""
        if self._reaches(self.goal):
            return "goal"
        if self.floor is not None and self._reaches(self.floor):
            return "floor"
        return "not yet"

    def _reaches(self, bound: float) -> bool:
        return self.median <= bound if self.smaller_is_better else self.median >= bound


HEADER = "| measurement | median | spread | goal | floor | reached |\n|---|---|---|---|---|---|"


def repeated(run: Callable[[], float], runs: int) -> list[float]:
    """The values of several runs, after one that does not count."""
    run()
    return [run() for _ in range(runs)]


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"
