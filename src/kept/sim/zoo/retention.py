"""Bugs of retention: what leaves too early, what never leaves, and what comes back."""

from __future__ import annotations

from typing import Any, Final

from kept.machine.retention import Obstacle
from kept.machine.step import Step
from kept.protocol.records import PromiseState
from kept.protocol.storage import Member
from kept.sim.zoo.bug import Menagerie

RETENTION: Final = Menagerie()
bug = RETENTION.bug


@bug(
    "pending-child-left-out",
    "Whether a tree may leave is asked of its settled promises only.",
    "kept.machine.retention:_obstacle",
)
def _pending_child_left_out(original: Any) -> Any:
    def obstacle(step: Step, members: list[Member], retention: int) -> Obstacle | None:
        settled = [each for each in members if each.state is not PromiseState.PENDING]
        found: Obstacle | None = original(step, settled, retention)
        return found

    return obstacle


@bug(
    "names-not-asked",
    "A tree leaves although a dead letter, an edge or a message names one of its promises.",
    "kept.machine.retention:_kept_by",
)
def _names_not_asked(original: Any) -> Any:
    return lambda step, member: original(step, member._replace(named=False))


@bug(
    "retention-not-waited-for",
    "A tree leaves as soon as it is settled, whatever its queue says.",
    "kept.machine.trees:retention_of",
)
def _retention_not_waited_for(_original: Any) -> Any:
    return lambda *_: 1


@bug(
    "settled-tree-forgotten",
    "A root that settles leaves nothing behind that would bring the background to its tree.",
    "kept.machine.trees:note_settled",
)
def _settled_tree_forgotten(_original: Any) -> Any:
    return lambda *_: None


@bug(
    "kept-ids-not-asked",
    "A create does not ask whether its id is kept of one that has left: the event runs again.",
    "kept.machine.trees:kept_verdict",
)
def _kept_ids_not_asked(_original: Any) -> Any:
    return lambda *_: None
