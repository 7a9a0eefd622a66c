"""What the leases that a history shows tell about steps that nobody saw.

A version of a task is given out once, so a request of unknown outcome did not give out one that
somebody else was answered. And the attempt that a lease shows tells how often the task had failed
by then, so it tells which of two ways a lease before it ended.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from kept.check.protocol_parts import request_id_of
from kept.check.sequential import Part
from kept.check.snapshots import Snapshot


class Leases:
    """The leases that the answers of a history show."""

    def __init__(self, parts: Iterable[Part] = ()) -> None:
        # By task and version: who was answered, as ids of requests; and the attempt.
        self._holders: defaultdict[tuple[str, int], set[str | None]] = defaultdict(set)
        self._attempts: dict[tuple[str, int], int] = {}
        for part in parts:
            answer = part.answer.data if part.answer is not None else None
            match answer:
                case {"task": {"id": str(id), "version": int(version), "state": "acquired"}}:
                    if part.kind in ("task.claim", "task.acquire", "task.create"):
                        self._holders[id, version].add(request_id_of(part.operation))
                    match answer:
                        case {"attempt": int(attempt)}:
                            self._attempts[id, version] = attempt

    def allow(self, part: Part, before: Snapshot, after: Snapshot) -> bool:
        """Whether a request of unknown outcome may have given out the versions that it would."""
        for id in before.touched(after) & after.tasks.keys():
            version = after.tasks[id]["version"]
            if version == (before.tasks[id]["version"] if id in before.tasks else 0):
                continue
            holders = self._holders.get((id, version))
            if holders is not None and request_id_of(part.operation) not in holders - {None}:
                return False
        return True

    def foretell(self, before: Snapshot, after: Snapshot) -> bool:
        """Whether tasks whose lease has just ended have failed as often as their next one shows."""
        for id in before.touched(after) & after.tasks.keys():
            task = after.tasks[id]
            attempt = self._attempts.get((id, task["version"] + 1))
            is_over = task["state"] in ("pending", "suspended", "halted")
            if is_over and attempt is not None and task["failures"] + 1 != attempt:
                return False
        return True
