"""Cases for cancellation: one row for each clause."""

from __future__ import annotations

from typing import Any, Final

from msgspec.structs import replace

from kept.check.state import State
from kept.protocol.entries import Cancellation, CancelMode, Entry, EntryKey, EntryKind
from kept.protocol.limits import CANCEL_GRACE_MS
from kept.protocol.records import Promise
from tests.unit.check.cases.records import (
    NOW,
    StateCase,
    Step,
    StepCase,
    pending,
    resolved,
    state,
    suspended,
    waiting,
)

ASKED: Final = pending(cancel_requested_at=NOW)


def _with_entry(due_at: int | None, requested_at: int = NOW) -> State:
    stored = state(ASKED)
    key = EntryKey(EntryKind.CANCEL, ASKED.id)
    stored.entries[key] = Entry(key, Cancellation(CancelMode.REQUEST, requested_at), due_at)
    return stored


def _spread(child: Promise, mode: CancelMode = CancelMode.REQUEST) -> Step:
    """The look at a cancellation after which it has spread."""
    parent = pending(cancel_requested_at=NOW - 1)
    before, after = state(parent, child), state(parent, child)
    key = EntryKey(EntryKind.CANCEL, parent.id)
    asked = Cancellation(mode, NOW - 1)
    before.entries[key] = Entry(key, replace(asked, after=""), NOW)
    after.entries[key] = Entry(key, asked, NOW + CANCEL_GRACE_MS)
    return Step(before, after, name="promise.cancel.spread", internal=True)


def _child(*more: str, **fields: Any) -> Promise:
    tags = {
        "resonate:origin": "p",
        "resonate:parent": "p",
        **{f"kept:{tag}": "true" for tag in more},
    }
    return pending("c", tags, **fields)


def _spread_to(*more: str) -> Step:
    """A look at a cancellation by which this child is asked to stop."""
    before, after = state(_child(*more)), state(_child(*more, cancel_requested_at=NOW))
    return Step(before, after, name="promise.cancel.spread", internal=True)


def _step(before: Promise, after: Promise, name: str = "promise.cancel") -> Step:
    return Step(state(before), state(after), name=name)


_GOOD: Final = _with_entry(NOW + CANCEL_GRACE_MS)
_ASKING: Final = _step(pending(), ASKED)

CANCELLATION_STATES: Final = [
    StateCase("consistent_cancel_request_is_seen_to", "no entry", state(ASKED), _GOOD),
    StateCase("consistent_cancel_request_is_seen_to", "never due", _with_entry(None), _GOOD),
    StateCase(
        "consistent_cancel_request_is_seen_to",
        "due after the grace",
        _with_entry(NOW + CANCEL_GRACE_MS + 1),
        _GOOD,
    ),
    StateCase(
        "consistent_cancel_request_is_seen_to",
        "another request's entry",
        _with_entry(NOW, requested_at=NOW - 1),
        _GOOD,
    ),
]

CANCELLATION_STEPS: Final = [
    StepCase("preserved_cancel_request", "taken back", _step(ASKED, pending()), _ASKING),
    StepCase(
        "preserved_cancel_request",
        "asked again",
        _step(pending(cancel_requested_at=NOW - 1), ASKED),
        _ASKING,
    ),
    StepCase(
        "preserved_cancel_request",
        "of a settled promise",
        _step(resolved(), resolved(cancel_requested_at=NOW)),
        _ASKING,
    ),
    StepCase(
        "preserved_cancel_request",
        "at another instant",
        _step(pending(), pending(cancel_requested_at=NOW - 1)),
        _ASKING,
    ),
    StepCase(
        "preserved_cancel_request",
        "by another request",
        _step(pending(), ASKED, name="task.halt"),
        _ASKING,
    ),
    StepCase(
        "consistent_cancel_request_wakes_suspended",
        "it sleeps on",
        Step(state(pending(), suspended()), state(ASKED, suspended()), name="promise.cancel"),
        Step(state(pending(), suspended()), state(ASKED, waiting()), name="promise.cancel"),
    ),
    StepCase(
        "consistent_cancellation_reaches_children",
        "a child goes on",
        _spread(_child()),
        _spread(_child(cancel_requested_at=NOW)),
    ),
    StepCase(
        "consistent_cancellation_reaches_children",
        "a child is only asked",
        _spread(_child(cancel_requested_at=NOW), CancelMode.FORCE),
        _spread(_child("detached"), CancelMode.FORCE),
    ),
    StepCase(
        "consistent_cancellation_reaches_children",
        "a child goes on that no clean-up is",
        _spread(_child("other")),
        _spread(_child("compensation")),
    ),
    StepCase(
        "preserved_detached_work",
        "it is asked to stop",
        _spread_to("detached"),
        _spread_to(),
    ),
]
