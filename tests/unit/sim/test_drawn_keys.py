"""The oracle of keys sees what it is there for."""

from __future__ import annotations

import pytest

from kept.protocol.records import EMPTY, Promise, PromiseState
from kept.sim.drawn_keys import overlapping


def born(id: str, at: int, settled_at: int | None, **tags: str) -> Promise:
    named = {f"kept:{name.replace('_', '-')}": text for name, text in tags.items()}
    state = PromiseState.PENDING if settled_at is None else PromiseState.RESOLVED
    return Promise(id, state, EMPTY, EMPTY, named, 1_000, at, settled_at)


@pytest.mark.parametrize(
    ("first", "at", "broken"),
    [
        (born("a", 0, 5, dedupe="k"), 5, False),
        (born("a", 0, 5, dedupe="k"), 4, True),
        (born("a", 0, None, dedupe="k"), 999, True),
        (born("a", 0, None, dedupe="k"), 1_000, False),
        (born("a", 0, 5, dedupe="k", dedupe_window="10"), 9, True),
        (born("a", 0, 5, dedupe="k", dedupe_window="10"), 10, False),
        (born("a", 0, 5, dedupe="other"), 4, False),
    ],
)
def test_two_promises_of_one_key(first: Promise, at: int, broken: bool) -> None:  # noqa: FBT001
    """Settled, past its deadline, within its window."""
    second = born("b", at, None, dedupe="k")
    assert bool(list(overlapping([second, first]))) == broken


def test_singletons_may_follow_each_other_at_one_instant() -> None:
    """One that is replaced ends when the other begins."""
    first = born("a", 0, 5, singleton_key="k")
    assert not list(overlapping([first, born("b", 5, None, singleton_key="k")]))
    assert list(overlapping([first, born("b", 4, None, singleton_key="k")]))
