"""Keys of events."""

from __future__ import annotations

import hashlib

import kept


def test_the_key_of_an_event() -> None:
    """As documented, so that other programs can compute it; another event has another key."""
    expected = hashlib.sha256(b"5:k\xc3\xa4se,2:12,3:abc,").hexdigest()
    assert kept.dedupe_key("käse", 12, "abc") == expected
    events = [("a", 11, "b"), ("a1", 1, "b"), ("a", 1, "1b"), ("", 11, "ab"), ("a", 1, "b")]
    assert len({kept.dedupe_key(*event) for event in events}) == len(events)
