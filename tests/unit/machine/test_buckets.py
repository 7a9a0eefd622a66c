"""Token buckets: exact to the millisecond and the token, whatever is asked when."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from kept.machine.buckets import bucket_key
from kept.protocol.guard_requests import BucketTake
from kept.protocol.limits import MAX_BUCKET_PERIOD_MS, MAX_BUCKET_TOKENS
from kept.protocol.responses import BAD_REQUEST, BucketResult
from kept.protocol.validation import problem_with
from tests.unit.machine.world import START_MS, World


def take(
    world: World, cost: int = 1, limit: int = 3, period: int = 1_000, burst: int | None = None
) -> BucketResult:
    return world.ok(BucketTake("api", limit, period, cost, burst), BucketResult)


def test_a_new_bucket_is_full() -> None:
    """Its burst may be had at once, then nothing, and the refusal says how long to wait."""
    world = World()
    for left in (2, 1, 0):
        assert take(world) == BucketResult(granted=True, remaining=left, retry_after=0)
    # A third of a second, in whole milliseconds.
    assert take(world) == BucketResult(granted=False, remaining=0, retry_after=334)
    world.pass_time(333)
    assert take(world) == BucketResult(granted=False, remaining=0, retry_after=1)
    world.pass_time(1)
    assert take(world).granted


def test_nothing_is_lost_by_rounding() -> None:
    """Of three tokens a second, exactly three are had in each second, for a long time."""
    world = World()
    take(world, cost=3)
    granted = 0
    for _ in range(10_000):
        world.pass_time(1)
        granted += take(world).granted
    assert granted == 30


def test_a_refused_take_takes_nothing() -> None:
    """Asking for more than there is leaves what there is to others."""
    world = World()
    take(world)
    assert take(world, cost=3) == BucketResult(granted=False, remaining=2, retry_after=334)
    assert take(world, cost=2).granted


def test_burst_is_the_most_it_holds() -> None:
    """A long rest fills it no further, and a cost above it is refused at the door."""
    world = World()
    world.pass_time(3_600_000)
    assert take(world, burst=5, cost=5).granted
    world.pass_time(3_600_000)
    assert take(world, burst=5, cost=1).remaining == 4
    for request in (BucketTake("api", 3, 1_000, 4), BucketTake("api", 3, 1_000, 6, 5)):
        assert "cost" in (problem_with(request, frozenset()) or "")
    assert BAD_REQUEST == 400


def test_a_bucket_under_other_settings_keeps_its_tokens() -> None:
    """A deployment that changes limit and period does not fill the bucket."""
    world = World()
    take(world, limit=10, cost=6)
    assert take(world, limit=10, period=60_000).remaining == 3
    assert take(world, limit=2, period=500).remaining == 1


def test_a_full_bucket_is_forgotten() -> None:
    """It leaves no record, and is the same without one."""
    world = World()
    take(world, cost=3)
    world.pass_time(1_000 + 59_999)
    world.settle_down()
    assert world.entry(bucket_key("api")) is not None
    world.pass_time(1)
    world.settle_down()
    assert world.entry(bucket_key("api")) is None
    assert take(world).remaining == 2


def test_the_largest_bucket_can_be_stored() -> None:
    """Its level fits into what stores and JSON keep exactly."""
    world = World()
    most = MAX_BUCKET_TOKENS
    request = BucketTake("api", 1, MAX_BUCKET_PERIOD_MS, most - 1, most)
    assert world.ok(request, BucketResult) == BucketResult(True, 1, 0)
    refused = world.ok(request, BucketResult)
    assert (refused.granted, refused.retry_after) == (False, (most - 2) * MAX_BUCKET_PERIOD_MS)


takes = st.lists(st.tuples(st.integers(0, 3_000), st.integers(1, 7)), min_size=1, max_size=60)


@given(takes, st.integers(1, 9), st.integers(1, 2_000), st.integers(7, 12))
def test_as_a_bucket_of_fractions(
    asked: list[tuple[int, int]], limit: int, period: int, burst: int
) -> None:
    """It grants what a bucket of unbounded precision grants, and in no span more than it may."""
    world = World(watched=False)
    level, at = Fraction(burst), START_MS
    granted: list[tuple[int, int]] = []
    for pause, cost in asked:
        world.pass_time(pause)
        world.settle_down()
        level = min(Fraction(burst), level + Fraction(limit * (world.now - at), period))
        at = world.now
        answer = take(world, cost, limit, period, burst)
        assert answer.granted == (level >= cost)
        if answer.granted:
            level -= cost
            granted.append((at, cost))
        else:
            assert level + Fraction(limit * answer.retry_after, period) >= cost
            assert level + Fraction(limit * (answer.retry_after - 1), period) < cost
        assert answer.remaining == int(level)
    for first, (start, _) in enumerate(granted):
        total = 0
        for end, cost in granted[first:]:
            total += cost
            assert total <= Fraction(limit * (end - start), period) + burst
