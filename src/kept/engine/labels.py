"""Label values come from clients, so there is a bound on them: what comes after that many is counted
together, under one name. Nothing is left out of a sum."""

from __future__ import annotations

from typing import Final, TypeAlias

# How many values, or sets of values, of each metric have numbers of their own.
MAX_LABEL_SETS: Final = 200
OTHER: Final = "_other"
Labels: TypeAlias = tuple[str, ...]


class LabelSets:
    """The first so many sets of values that come keep their names."""

    __slots__ = ("_known", "_limit")

    def __init__(self, limit: int = MAX_LABEL_SETS) -> None:
        self._limit = limit
        self._known: dict[Labels, Labels] = {}

    def bounded(self, labels: Labels) -> Labels:
        """The set itself, or what stands for those beyond the bound."""
        known = self._known.get(labels)
        if known is not None:
            return known
        if len(self._known) >= self._limit:
            return (OTHER,) * len(labels)
        self._known[labels] = labels
        return labels
