"""Cases for the keys of creates: one row for each clause."""

from __future__ import annotations

from typing import Final

from kept.check.state import State
from kept.protocol.entries import Dedupe, Entry, EntryKind, KeyHolder, Singleton
from kept.protocol.keys import keys_of
from kept.protocol.records import Promise
from tests.unit.check.cases.records import NOW, StateCase, Step, StepCase, pending, resolved, state

EXTERNAL: Final = {"resonate:external": "true"}
DEDUPED: Final = {**EXTERNAL, "kept:dedupe": "k"}
ALONE: Final = {**EXTERNAL, "kept:singleton": "skip", "kept:singleton-key": "k"}


def _held(data: KeyHolder | None, *promises: Promise) -> State:
    """These promises, and one that holds the key which they name."""
    result = state(*promises)
    kind = EntryKind.SINGLETON if isinstance(data, Singleton) else EntryKind.DEDUPE
    if data is not None:
        key = keys_of({**DEDUPED, **ALONE})[kind]
        result.entries[key] = Entry(key, data)
    return result


def _dedupe(promise: str, until: int = 0) -> Dedupe:
    return Dedupe(promise, "f", until)


def _taken_over(holder: Promise, until: int) -> Step:
    """Another promise is born under the key and holds it now."""
    return Step(
        _held(_dedupe("p", until), holder),
        _held(_dedupe("q"), holder, pending("q", DEDUPED)),
    )


DUPLICATE_STEPS: Final = [
    StepCase(
        "consistent_one_live_promise_per_dedupe_key",
        "the holder is live",
        _taken_over(pending("p", DEDUPED), 0),
        _taken_over(resolved("p", DEDUPED), 0),
    ),
    StepCase(
        "consistent_one_live_promise_per_dedupe_key",
        "the window lasts",
        _taken_over(resolved("p", DEDUPED), NOW + 1),
        _taken_over(resolved("p", DEDUPED), NOW),
    ),
    StepCase(
        "consistent_one_live_promise_per_singleton_key",
        "two are live",
        Step(state(pending("p", ALONE)), state(pending("p", ALONE), pending("q", ALONE))),
        Step(state(pending("p", ALONE)), state(resolved("p", ALONE), pending("q", ALONE))),
    ),
]

DUPLICATE_STATES: Final = [
    StateCase(
        "consistent_key_is_held_by_its_promise",
        "nobody holds it",
        _held(None, pending("p", DEDUPED)),
        _held(_dedupe("p"), pending("p", DEDUPED)),
    ),
    StateCase(
        "consistent_key_is_held_by_its_promise",
        "another one holds it",
        _held(Singleton("q"), pending("p", ALONE), pending("q", ALONE)),
        _held(Singleton("q"), resolved("p", ALONE), pending("q", ALONE)),
    ),
    StateCase(
        "consistent_key_is_held_by_its_promise",
        "what is not there holds it",
        _held(_dedupe("x"), resolved("p", DEDUPED)),
        _held(_dedupe("p"), resolved("p", DEDUPED)),
    ),
    StateCase(
        "consistent_key_is_held_by_its_promise",
        "who holds it does not name it",
        _held(_dedupe("q"), resolved("p", DEDUPED), resolved("q")),
        _held(_dedupe("q"), resolved("p", DEDUPED), resolved("q", DEDUPED)),
    ),
    StateCase(
        "consistent_key_is_held_by_its_promise",
        "what is settled holds a singleton key",
        _held(Singleton("p"), resolved("p", ALONE)),
        _held(None, resolved("p", ALONE)),
    ),
]
