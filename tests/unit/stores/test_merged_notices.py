"""Several notices that are read together mean all that each of them means."""

from __future__ import annotations

import pytest
from msgspec.structs import fields

from kept.protocol.storage import Notice
from kept.stores.sqlite.neighbours import merged

FULL = Notice(
    queues={("t", "q")},
    freed={("t", "f")},
    settled={("t", "p")},
    due_at=5,
    messages=True,
    turns={("t", "lock", "l", "h")},
    everything=True,
)


@pytest.mark.parametrize("name", [field.name for field in fields(Notice)])
def test_nothing_is_lost_in_a_merge(name: str) -> None:
    """Whatever one of them says is said by the whole, whichever comes first."""
    alone = Notice()
    setattr(alone, name, getattr(FULL, name))
    assert alone, "the sample says nothing of a field that is new"
    assert getattr(merged([Notice(), alone]), name) == getattr(FULL, name)
    assert getattr(merged([alone, Notice()]), name) == getattr(FULL, name)


def test_sets_are_joined_and_the_earliest_instant_counts() -> None:
    """Two that say different things."""
    one = Notice(queues={("t", "a")}, due_at=9)
    other = Notice(queues={("t", "b")}, due_at=7)
    assert merged([one, other]) == Notice(queues={("t", "a"), ("t", "b")}, due_at=7)
