"""What must be true of trees once all has settled (B6)."""

from __future__ import annotations

from kept.check.state import State
from kept.protocol.entries import EntryKey, EntryKind, Retiring
from kept.sim.breakage import Broken


def check_trees(state: State) -> None:
    """Each settled root, and the origin of each whose root is not there, has an entry that brings
    the background to its tree. Raises `Broken`."""
    roots = {
        root
        for entry in state.entries.values()
        if isinstance(entry.data, Retiring)
        for root in entry.data.roots
    }
    for promise in state.promises.values():
        root = state.promises.get(promise.origin)
        if root is not None and root.pending:
            continue
        key = EntryKey(EntryKind.RETENTION, promise.origin)
        if promise.origin not in roots and key not in state.entries:
            raise Broken("trees leave", f"nobody looks after {promise.id} of {promise.origin}")
