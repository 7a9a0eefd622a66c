"""What came of a storm, held against what had to come of it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.storm.boundary import Boundary
from benchmarks.storm.events import all_events
from benchmarks.storm.sender import Sent

MAX_LATENCY_P99_MS = 5_000
MAX_LOCK_WAIT_P95_MS = 100
SHOWN = 5


@dataclass
class Outcome:
    """What is known at the end, beside the boundary."""

    seed: int
    events: int
    seconds: float
    sent: Sent
    kills: int
    # Handlings that may have been under way at a kill.
    most_lost: int
    # Of the dead letters: the numbers of the events, and how many had to be replayed.
    dead: set[int]
    replayed: int


def figures(outcome: Outcome, world: Boundary) -> list[tuple[str, str]]:
    """The table."""
    waits = _column(world, "SELECT waited_ms FROM handlings")
    locks = _column(world, "SELECT milliseconds FROM lock_waits")
    ((handled,),) = world.query("SELECT sum(tries) FROM handlings")
    ((late,),) = world.query("SELECT sum(late) FROM handlings")
    ((again,),) = world.query("SELECT sum(tries - 1) FROM effects")
    ((contended,),) = world.query("SELECT sum(contended) FROM lock_waits")
    rate = outcome.events / outcome.seconds
    return [
        ("events", f"{outcome.events:,} in {outcome.seconds:,.0f} s: {rate:,.0f} a second"),
        ("copies sent", f"{outcome.sent.copies:,}, {outcome.sent.repeated:,} of them repeated"),
        ("refused at the depth of the queue, sent again", f"{outcome.sent.shed:,}"),
        ("handlings", f"{handled:,}, workers killed {outcome.kills} times"),
        ("late revisions refused", f"{late:,}"),
        ("effects wanted again, caught by their key", f"{again:,}"),
        ("dead letters", f"{len(outcome.dead):,}, {outcome.replayed} replayed"),
        ("queue latency", _percentiles(waits)),
        ("locks", f"{len(locks):,} acquired, {contended:,} of them while another had it"),
        ("wait for a lock", _percentiles(locks)),
    ]


def complaints(outcome: Outcome, world: Boundary) -> Iterator[str]:
    """Whatever is not as it must be, however long it takes."""
    expected = set[int]()
    hopeless = set[int]()
    highest: dict[int, int] = {}
    failures = 0
    for event in all_events(outcome.seed, outcome.events):
        (hopeless if event.hopeless else expected).add(event.number)
        if not event.hopeless:
            failures += event.failures
            highest[event.entity] = max(highest.get(event.entity, 0), event.revision)
    effects = {event for (event,) in world.query("SELECT event FROM effects")}
    yield from _differ("effects that are missing", expected - effects)
    yield from _differ("effects that nobody may have", effects - expected)
    yield from _differ("poison that is in no dead letter", hopeless - outcome.dead)
    yield from _differ("dead letters of good events", outcome.dead - hopeless)
    entities = _entities(world)
    wrong = {one for one, revision in highest.items() if entities.get(one) != revision}
    yield from _differ("entities that are not at their highest revision", wrong)
    yield from _differ("entities that nobody knows", entities.keys() - highest.keys())
    ((good,),) = world.query(
        "SELECT sum(tries) FROM handlings WHERE event IN (SELECT event FROM effects)"
    )
    again = (good or 0) - len(expected) - failures
    if again > outcome.most_lost:
        yield f"{again} handlings ran again, only {outcome.most_lost} can have been lost"


def delays(world: Boundary) -> Iterator[str]:
    """Whatever takes longer than it may."""
    p99 = _percentile(_column(world, "SELECT waited_ms FROM handlings"), 99)
    if p99 > MAX_LATENCY_P99_MS:
        yield f"queue latency: p99 is {p99:,.0f} ms, more than {MAX_LATENCY_P99_MS:,}"
    p95 = _percentile(_column(world, "SELECT milliseconds FROM lock_waits"), 95)
    if p95 > MAX_LOCK_WAIT_P95_MS:
        yield f"wait for a lock: p95 is {p95:,.0f} ms, more than {MAX_LOCK_WAIT_P95_MS}"


def _entities(world: Boundary) -> dict[int, int]:
    return {row[0]: row[1] for row in world.query("SELECT entity, revision FROM entities")}


def _differ(what: str, found: set[int]) -> Iterator[str]:
    if found:
        yield f"{len(found)} {what}: {sorted(found)[:SHOWN]}"


def _column(world: Boundary, sql: str) -> list[float]:
    return [value for (value,) in world.query(sql)]


def _percentile(values: list[float], percent: int) -> float:
    if len(values) < 2:
        return 0.0
    return statistics.quantiles(values, n=100)[percent - 1]


def _percentiles(values: list[float]) -> str:
    shown = (f"p{percent} {_percentile(values, percent):,.1f} ms" for percent in (50, 95, 99))
    return ", ".join(shown)
