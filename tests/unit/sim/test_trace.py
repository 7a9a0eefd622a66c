"""Which events of a run are shown where something broke."""

from __future__ import annotations

from kept.check.incident import Breakage
from kept.sim.trace import Event, telling


def _events(count: int, name: str = "other") -> list[Event]:
    return [Event(float(at), "step", "server-1", f"{name} {at}") for at in range(count)]


def test_what_names_the_broken_record_is_shown() -> None:
    """However long ago that was, and then what came last."""
    events = [*_events(3, "job-7"), *_events(50)]
    shown = telling(events, {"job-7"}, 12)
    assert shown == [*events[:3], *events[-3:]]


def test_of_many_the_last_are_shown() -> None:
    """No more than are asked for."""
    events = [*_events(50, "job-7"), *_events(50)]
    assert telling(events, {"job-7"}, 12) == [*events[41:50], *events[-3:]]


def test_where_nothing_is_named_the_last_are_shown() -> None:
    """As they came."""
    events = _events(50)
    assert telling(events, {"job-7"}, 12) == events[-12:]
    assert telling(events, (), 12) == events[-12:]


def test_a_breakage_names_records() -> None:
    """Those of the oracle where it says so, else what looks like an id in its text."""
    why = "client-1-2/tries/run by worker-2#1 at 1800000000123: 4 times, not 3 of them"
    told = Breakage(oracle="o", why=why, at=0.0)
    assert told.named == {"client-1-2/tries/run", "worker-2"}
    assert Breakage(oracle="o", why=why, at=0.0, ids=("a",), records={"b": {}}).named == {"a", "b"}
