"""How fast a lane was taken from lately."""

from __future__ import annotations

from kept.engine.pace import MAX_LANES, SLICE_MS, Pace

BEGIN = 100 * SLICE_MS


def test_starts_of_this_and_the_last_slice_of_time() -> None:
    """Over the time that they were counted in; what was before that is forgotten."""
    pace = Pace()
    assert pace.per_second("t", "q", None, BEGIN) is None
    for number in range(60):
        pace.note("t", "q", None, BEGIN + number * 500)
    assert pace.per_second("t", "q", None, BEGIN + SLICE_MS - 1) == 60 / 29.999
    assert pace.per_second("t", "q", None, BEGIN + SLICE_MS + 10_000) == 60 / 40
    assert pace.per_second("t", "q", None, BEGIN + 2 * SLICE_MS) is None
    assert pace.per_second("t", "q", "lane", BEGIN) is None


def test_a_clock_that_goes_back_and_a_burst_at_once() -> None:
    """No number is absurd: a burst counts as of one second at least."""
    pace = Pace()
    for _ in range(10):
        pace.note("t", "q", "a", BEGIN)
    assert pace.per_second("t", "q", "a", BEGIN) == 10
    pace.note("t", "q", "a", BEGIN - SLICE_MS)
    assert pace.per_second("t", "q", "a", BEGIN - SLICE_MS) == 11


def test_lanes_are_bounded() -> None:
    """Those known for longest are forgotten."""
    pace = Pace()
    for number in range(MAX_LANES + 1):
        pace.note("t", "q", str(number), BEGIN)
    assert pace.per_second("t", "q", "0", BEGIN) is None
    assert pace.per_second("t", "q", str(MAX_LANES), BEGIN) == 1
