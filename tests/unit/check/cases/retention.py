"""Cases for retention: what may not leave, one row for each thing that keeps it."""

from __future__ import annotations

from typing import Final

from kept.check.state import State
from kept.protocol.entries import Dedupe, Entry, EntryKey, EntryKind
from kept.protocol.records import Promise
from tests.unit.check.cases.records import (
    HOOK,
    NOW,
    Step,
    StepCase,
    dead_letter,
    execute,
    pending,
    resolved,
    state,
)
from tests.unit.check.cases.steps import NOTHING

CHILD: Final = {"resonate:origin": "p", "resonate:parent": "p"}
KEYED: Final = {"resonate:target": HOOK, "kept:dedupe": "k"}
_OTHER: Final = pending("other")


def _leaves(before: State, after: State) -> Step:
    return Step(before, after, "retention", internal=True)


def _with_key(holder: str, *records: Promise) -> State:
    stored = state(*records)
    key = EntryKey(EntryKind.DEDUPE, '["","k"]')
    stored.entries[key] = Entry(key, Dedupe(holder, "f", NOW + 9), NOW + 9)
    return stored


_GOOD: Final = _leaves(state(resolved()), NOTHING)


def _held(clause: str, before: State, after: State, good: Step = _GOOD) -> StepCase:
    return StepCase("monotone_promise_set_grows", clause, _leaves(before, after), good)


RETENTION: Final = [
    _held("an execute names it", state(resolved(), execute()), state(execute())),
    _held("a dead letter names it", state(resolved(), dead_letter()), state(dead_letter())),
    _held(
        "it is called back",
        state(resolved(), _OTHER, callbacks=[("other", "p")]),
        state(_OTHER, callbacks=[("other", "p")]),
    ),
    _held(
        "a resume names it",
        state(resolved(), _OTHER, resumes=[("other", "p")]),
        state(_OTHER, resumes=[("other", "p")]),
    ),
    _held("its own edge goes with it", state(resolved(), listeners=[("p", HOOK)]), NOTHING),
    _held(
        "its dedupe key is held",
        _with_key("p", resolved(tags=KEYED)),
        _with_key("p"),
        _leaves(_with_key("q", resolved(tags=KEYED)), _with_key("q")),
    ),
    _held(
        "its parent is pending",
        state(resolved(tags={"resonate:parent": "other"}), _OTHER),
        state(_OTHER),
        _leaves(
            state(resolved(tags={"resonate:parent": "other"}), resolved("other")),
            state(resolved("other")),
        ),
    ),
    StepCase(
        "preserved_tree_of_something_pending",
        "a child is pending",
        _leaves(state(resolved(), pending("c", CHILD)), state(pending("c", CHILD))),
        _leaves(state(resolved(), pending("c")), state(pending("c"))),
    ),
    StepCase(
        "preserved_root_until_the_last",
        "a child stays",
        _leaves(state(resolved(), resolved("c", CHILD)), state(resolved("c", CHILD))),
        _leaves(state(resolved(), resolved("c", CHILD)), state(resolved())),
    ),
]
