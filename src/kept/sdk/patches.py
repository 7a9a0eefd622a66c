"""`ctx.patched`: changed code beside runs that were begun before the change."""

from __future__ import annotations

from kept.protocol import tags as tag
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import EMPTY
from kept.protocol.requests import PromiseCreate
from kept.sdk.asks import child_id
from kept.sdk.history import History

# What a marker says of itself, in a step's place.
MARKER: str = "kept.patched@1"


class Patches:
    """Which changes a run takes. The first answer for a name holds for the whole run; that it was yes
    is recorded, before anything that the code does because of it."""

    def __init__(self, id: str, history: History) -> None:
        self._id = id
        self._history = history
        self._taken: dict[str, bool] = {}
        self._unstored: list[str] = []

    def takes(self, name: str, coming_step: str) -> bool:
        """Whether the run takes the change: it did before, or it is at a place where it has never
        been. `coming_step` is what the code will ask for next there."""
        if name not in self._taken:
            is_marked = self._history.get(self._marker(name)) is not None
            was_here = self._history.is_followed or self._history.get(coming_step) is not None
            self._taken[name] = is_marked or not was_here
            if not is_marked and not was_here:
                self._unstored.append(name)
        return self._taken[name]

    def __bool__(self) -> bool:
        return bool(self._unstored)

    def take_unstored(self, tags: dict[str, str]) -> list[PromiseCreate]:
        """The steps that record what is not recorded yet; `tags` are those of every child."""
        names, self._unstored = self._unstored, []
        marked = {**tags, tag.FUNCTION: MARKER}
        return [PromiseCreate(self._marker(name), NEVER_MS, EMPTY, marked) for name in names]

    def _marker(self, name: str) -> str:
        return child_id(self._id, f"!{name}")
