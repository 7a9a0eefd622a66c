"""Which schedule may have fired a promise, told from its id alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from kept.check.history import Operation

_PLACES = re.compile(r"(\{\{\.id\}\}|\{\{\.timestamp\}\})")


class Occurrences:
    """The schedules that a history's requests create, and the ids of what they fire.

    A task shows no tags, so an answer that shows one does not say that a schedule made it.
    """

    def __init__(self, operations: Sequence[Operation]) -> None:
        templates = {
            (str(operation.data.get("id", "")), str(operation.data.get("promiseId", "")))
            for operation in operations
            if operation.kind in ("schedule.create", "schedule.put")
        }
        self._patterns = [(id, _pattern(id, template)) for id, template in sorted(templates)]

    def schedules_of(self, ids: Iterable[str]) -> Iterator[str]:
        """The schedules that may have fired one of these promises."""
        for schedule, pattern in self._patterns:
            if any(pattern.fullmatch(id) for id in ids):
                yield schedule


def _pattern(schedule: str, template: str) -> re.Pattern[str]:
    values = {"{{.id}}": re.escape(schedule), "{{.timestamp}}": r"(?:\d+|trigger\..+)"}
    pieces = _PLACES.split(template)
    return re.compile("".join(values.get(piece, re.escape(piece)) for piece in pieces))
