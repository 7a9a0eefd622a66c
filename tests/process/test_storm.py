"""A small storm: nothing is lost and nothing happens twice (docs/storm.md)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benchmarks.served import server
from benchmarks.storm.__main__ import BOUNDARY, storm
from benchmarks.storm.boundary import Boundary
from benchmarks.storm.events import Event, all_events, arrivals
from benchmarks.storm.report import Outcome, complaints
from benchmarks.storm.sender import Sent

EVENTS = 600
SEED = 8


@pytest.mark.timeout(240)
def test_a_small_storm(tmp_path: Path) -> None:
    """Copies, late revisions, failures, poison, killed workers, a queue that is full."""
    with server(tmp_path / "kept.db") as url:
        outcome = asyncio.run(storm(tmp_path, url, EVENTS, SEED, workers=2, kill_seconds=2.0))
        world = Boundary(tmp_path / BOUNDARY)
        try:
            assert list(complaints(outcome, world)) == []
        finally:
            world.close()
    # All of it has happened, and was not just allowed to.
    assert outcome.sent.repeated
    assert outcome.kills
    assert outcome.dead


def _played(world: Boundary, events: list[Event]) -> Outcome:
    """As if each event had been handled once, rightly."""
    highest: dict[int, int] = {}
    for event in events:
        for number in range(event.failures + 1):
            assert world.begin(event.number, 5) == number + 1
        if event.hopeless:
            continue
        highest[event.entity] = max(highest.get(event.entity, 0), event.revision)
        world.apply(event.number)
    for entity, revision in highest.items():
        world.write(entity, revision, 1)
    dead = {event.number for event in events if event.hopeless}
    return Outcome(SEED, EVENTS, 1.0, Sent(), 0, 0, dead, 0)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        ("SELECT 1", ""),
        ("DELETE FROM effects WHERE event = 3", "1 effects that are missing: [3]"),
        ("INSERT INTO effects VALUES (77777, 1)", "1 effects that nobody may have: [77777]"),
        (
            "UPDATE entities SET revision = revision - 1 WHERE entity = 4",
            "1 entities that are not at their highest revision: [4]",
        ),
        ("INSERT INTO entities VALUES (999, 1, 1, 0)", "1 entities that nobody knows: [999]"),
        (
            "UPDATE handlings SET tries = tries + 1 WHERE event = 3",
            "1 handlings ran again, only 0 can have been lost",
        ),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, damage: str, complaint: str) -> None:
    """The judgement of a storm sees each kind of damage."""
    world = Boundary(tmp_path / BOUNDARY)
    outcome = _played(world, list(all_events(SEED, EVENTS)))
    world.query(damage)
    assert list(complaints(outcome, world)) == ([complaint] if complaint else [])
    outcome.dead.add(5)
    assert "1 dead letters of good events: [5]" in list(complaints(outcome, world))
    outcome.dead.clear()
    assert any("poison" in each for each in complaints(outcome, world))
    world.close()


def test_copies_arrive_out_of_order_and_all_of_them_follow_from_the_seed() -> None:
    """Each event comes once to five times, revisions of an entity in any order."""
    events = list(all_events(SEED, 5_000))
    copies = list(arrivals(SEED, 5_000))
    assert copies == list(arrivals(SEED, 5_000))
    counts = [copies.count(event) for event in events[:200]]
    assert min(counts) == 1
    assert max(counts) == 5
    assert set(copies) == set(events)
    first = list(dict.fromkeys(copies))
    revisions = [event.revision for event in first if event.entity == 7]
    assert sorted(revisions) == list(range(1, 21))
    assert revisions != sorted(revisions)
