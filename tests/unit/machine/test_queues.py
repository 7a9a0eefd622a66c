"""Queues: the order of claims, failures, backoff and exhaustion (protocol B2)."""

from __future__ import annotations

import pytest

from kept.machine import queues
from kept.machine.background import ExpireLease
from kept.machine.queues import backoff_ms
from kept.protocol import requests as r
from kept.protocol.limits import DEFAULT_AGING_MS, MAX_INTEGER
from kept.protocol.records import EMPTY, Promise, PromiseState, TaskState, Value
from kept.protocol.responses import AcquiredTask, NackResult
from tests.unit.machine.world import PUSHED, START_MS, World, create, suspend


def _claimed(leases: list[AcquiredTask]) -> list[str]:
    return [lease.task.id for lease in leases]


def test_claims_take_the_oldest_first_and_no_more_than_asked() -> None:
    """Due tasks in the order in which they became due, each to one claim only."""
    world = World()
    for id in ("c", "a", "b"):
        world.create(id, queue="q")
        world.pass_time(1)
    assert _claimed(world.claim("q", limit=2)) == ["c", "a"]
    assert _claimed(world.claim("q", limit=2)) == ["b"]
    assert world.claim("q") == []
    assert world.claim("other") == []


def test_a_priority_is_worth_a_time_of_waiting() -> None:
    """Higher first, but a job that has waited for longer than the priority is worth comes before:
    nothing starves."""
    world = World()
    world.create("old", queue="q")
    world.pass_time(DEFAULT_AGING_MS + 1)
    world.create("high", queue="q", priority="1")
    world.create("highest", queue="q", priority="9")
    assert _claimed(world.claim("q")) == ["highest", "old", "high"]


def test_small_claims_starve_no_queue() -> None:
    """Claims of one task each, on two busy queues, serve both."""
    world = World()
    for number in range(20):
        world.create(f"a{number}", queue="a")
        world.create(f"b{number}", queue="b")
    taken = []
    for _ in range(10):
        taken += _claimed(world.claim("a", "b", limit=1))
        world.pass_time(1)
    assert {id[0] for id in taken} == {"a", "b"}


def test_claims_take_from_their_queues_in_turn() -> None:
    """One of each queue, then one of each again."""
    world = World()
    for number in range(3):
        world.create(f"a{number}", queue="a")
        world.create(f"b{number}", queue="b")
        world.pass_time(1)
    assert sorted(_claimed(world.claim("a", "b", limit=4))) == ["a0", "a1", "b0", "b1"]
    assert sorted(_claimed(world.claim("b", "none", "a"))) == ["a2", "b2"]
    assert world.status(r.TaskClaim(["a", "a"], "w", 1)) == 400


def test_claims_take_only_functions_that_they_name() -> None:
    """Others, and jobs without a function, stay for those who can run them."""
    world = World()
    for id, function in (("f1", "f@1"), ("g1", "g@1"), ("f2", "f@2")):
        world.create(id, queue="q", function=function)
        world.pass_time(1)
    world.create("plain", queue="q")
    assert _claimed(world.claim("q", functions=["f@1", "f@2"])) == ["f1", "f2"]
    assert world.claim("q", functions=[]) == []
    assert _claimed(world.claim("q")) == ["g1", "plain"]


@pytest.mark.parametrize("marked", [False, True])
def test_a_delayed_job_is_claimed_from_its_instant_on(*, marked: bool) -> None:
    """Not before; at it, whether or not the background has marked it ready."""
    world = World()
    world.create("j", queue="q", delay=str(START_MS + 10))
    world.pass_time(9)
    world.settle_down()
    assert world.claim("q") == []
    world.pass_time(1)
    if marked:
        world.settle_down()
        assert world.task("j").ready
    assert _claimed(world.claim("q")) == ["j"]


def test_what_may_not_be_claimed() -> None:
    """Pushed tasks, timers, halted and late ones are never among a claim's."""
    world = World()
    world.create("pushed", target=PUSHED)
    world.create("timer", queue="q", timer="true")
    world.create("halted", queue="q")
    world.ask(r.TaskHalt("halted"))
    world.create("late", queue="q", timeout_at=START_MS + 5)
    world.pass_time(5)
    assert world.claim("q") == []
    assert world.stored("late").state is PromiseState.REJECTED_TIMEDOUT


def test_a_claim_reads_further_than_its_first_look() -> None:
    """However many of the first due tasks are over, the claim finds those behind them."""
    world = World(watched=False)
    for number in range(300):
        world.create(f"late{number:03}", queue="q", timeout_at=START_MS + 5)
    world.create("live", queue="q")
    world.pass_time(5)
    assert _claimed(world.claim("q", limit=1)) == ["live"]


def test_a_nack_counts_a_failure_and_waits() -> None:
    """The attempt rises, the job is due after its delay, or its backoff; a nack that does not
    consume counts nothing."""
    world = World()
    world.create("j", queue="q", backoff="fixed:100")
    assert world.claim("q")[0].attempt == 1
    result = world.ok(r.TaskNack("j", 1), NackResult)
    assert (result.outcome, result.retry_at) == ("retry", START_MS + 100)
    assert world.claim("q") == []
    world.pass_time(100)
    assert world.claim("q")[0].attempt == 2
    assert world.ok(r.TaskNack("j", 2, delay=7), NackResult).retry_at == world.now + 7
    world.pass_time(7)
    assert world.claim("q")[0].attempt == 3
    world.ok(r.TaskNack("j", 3, delay=0, consume=False), NackResult)
    assert world.claim("q")[0].attempt == 3


def test_release_and_continue_count_nothing_and_a_suspend_starts_again() -> None:
    """Only nacks and expired leases are failures; progress forgets them."""
    world = World()
    world.create("awaited", external="true")
    world.create("j", queue="q")
    world.claim("q")
    world.ok(r.TaskNack("j", 1, delay=0), NackResult)
    assert world.claim("q")[0].attempt == 2
    world.ask(r.TaskRelease("j", 2))
    assert world.claim("q")[0].attempt == 2
    world.ask(r.TaskHalt("j"))
    world.ask(r.TaskContinue("j"))
    assert world.claim("q")[0].attempt == 2
    assert world.status(suspend("j", 4, "awaited")) == 200
    world.settle("awaited")
    assert world.claim("q")[0].attempt == 1


@pytest.mark.parametrize(("exhausted", "state"), [("reject", "fulfilled"), ("halt", "halted")])
@pytest.mark.parametrize("cause", ["nack", "expiry"])
def test_exhaustion(exhausted: str, state: str, cause: str) -> None:
    """The last failure allowed, a nack or an expired lease, rejects the promise with the last error
    or halts the task, and files a dead letter in the same commit."""
    world = World()
    world.create("j", queue="q", attempts="2", exhausted=exhausted, backoff="fixed:0")
    for version in (1, 2):
        assert _claimed(world.claim("q", ttl=10)) == ["j"]
        assert "j" not in world.dump.dead_letters
        if cause == "nack":
            world.ask(r.TaskNack("j", version, error=Value(data=f"error {version}")))
        else:
            world.pass_time(10)
            world.fire(ExpireLease("j"))
    assert world.task("j").state.value == state
    promise, letter = world.stored("j"), world.letter("j")
    error = Value(data="error 2") if cause == "nack" else EMPTY
    assert promise.state.value == ("rejected" if exhausted == "reject" else "pending")
    assert promise.value == (error if exhausted == "reject" else EMPTY)
    assert (letter.reason, letter.failures, letter.error, letter.halted) == (
        "exhausted" if cause == "nack" else "lease_expired",
        2,
        error,
        exhausted == "halt",
    )
    assert (letter.queue, letter.died_at) == ("q", world.now)


@pytest.mark.parametrize(("final", "state"), [("reject", "fulfilled"), ("halt", "halted")])
def test_a_final_nack_ends_it_now(final: str, state: str) -> None:
    """Whatever attempts are left, with the worker's own reason, also without counting."""
    world = World()
    world.started("j", queue="q", attempts="9")
    nack = r.TaskNack("j", 1, final=final, reason="nondeterministic", consume=False)
    assert world.ok(nack, NackResult).outcome == ("rejected" if final == "reject" else "halted")
    assert world.task("j").state.value == state
    assert (world.letter("j").reason, world.letter("j").failures) == ("nondeterministic", 0)
    assert world.status(r.TaskNack("j", 1, final="retry")) == 400


def test_a_halted_exhaustion_keeps_its_awaiters_waiting() -> None:
    """The promise stays pending, so what waits for it goes on waiting; a rejection wakes it."""
    world = World()
    for id, exhausted in (("halts", "halt"), ("rejects", "reject")):
        world.started(id, queue="q", attempts="1", exhausted=exhausted)
        world.suspended(f"w-{id}", id)
        world.ask(r.TaskNack(id, 1))
    assert world.task("w-halts").state is TaskState.SUSPENDED
    assert world.task("w-rejects").state is TaskState.PENDING


def test_without_a_limit_failures_never_end_it() -> None:
    """The base protocol's behaviour: retried for ever."""
    world = World(watched=False)
    world.create("j", queue="q")
    for version in range(1, 1_100):
        assert _claimed(world.claim("q")) == ["j"]
        assert world.ok(r.TaskNack("j", version, delay=0), NackResult).outcome == "retry"


def test_an_expired_lease_of_queued_work_waits_its_backoff() -> None:
    """Pulled work is due after the backoff, pushed work at once; both count a failure, and the
    version stays."""
    world = World()
    world.started("pulled", queue="q", ttl=10, backoff="fixed:50")
    world.started("pushed", target=PUSHED, ttl=10)
    world.pass_time(10)
    world.fire(ExpireLease("pulled"), ExpireLease("pushed"))
    for id, retry_at in (("pulled", world.now + 50), ("pushed", world.now)):
        task = world.task(id)
        assert (task.state, task.version, task.retry_at, task.failures) == (
            TaskState.PENDING,
            1,
            retry_at,
            1,
        )


def _backoffs(policy: str, count: int) -> list[int]:
    tags = {"kept:backoff": policy} if policy else {}
    promise = Promise("j", PromiseState.PENDING, EMPTY, EMPTY, tags, MAX_INTEGER, 0)
    return [backoff_ms(promise, n, n) for n in range(1, count + 1)]


def test_backoff_policies() -> None:
    """fixed stays, linear and exponential grow to their limit; jitter stays within the exponential
    one, its upper half, or the default, and is the same each time."""
    assert _backoffs("fixed:7", 3) == [7, 7, 7]
    assert _backoffs("linear:10:25", 4) == [10, 20, 25, 25]
    assert _backoffs("exponential:10:50", 5) == [10, 20, 40, 50, 50]
    full = [min(1_000 << n, 60_000) for n in range(200)]
    jitter = _backoffs("full_jitter:1000:60000", 200)
    equal = _backoffs("equal_jitter:1000:60000", 200)
    assert all(0 <= wait <= limit for wait, limit in zip(jitter, full, strict=True))
    assert all(limit // 2 <= wait <= limit for wait, limit in zip(equal, full, strict=True))
    assert len(set(jitter)) > 150
    assert jitter == _backoffs("full_jitter:1000:60000", 200)
    assert all(wait <= 900_000 for wait in _backoffs("", 100))


@pytest.mark.parametrize(
    "policy", [f"fixed:{MAX_INTEGER}", f"exponential:{MAX_INTEGER}:{MAX_INTEGER}"]
)
def test_no_instant_is_beyond_what_travels(policy: str) -> None:
    """The longest backoff ends at the largest number that clients can read."""
    world = World()
    world.started("n", queue="q", backoff=policy)
    assert world.ok(r.TaskNack("n", 1), NackResult).retry_at == MAX_INTEGER
    world.started("e", queue="q", backoff=policy, ttl=1)
    world.pass_time(1)
    world.fire(ExpireLease("e"))
    assert world.task("e").retry_at == MAX_INTEGER


@pytest.mark.parametrize(
    "tags",
    [
        {"priority": "10"},
        {"priority": "-1"},
        {"priority": "high"},
        {"attempts": "0"},
        {"attempts": "1001"},
        {"backoff": "fixed"},
        {"backoff": "linear:1"},
        {"backoff": "sometimes:1:2"},
        {"exhausted": "panic"},
    ],
)
def test_tags_of_jobs_are_checked(tags: dict[str, str]) -> None:
    """What a job's tags may not say is a 400 at create."""
    assert World().status(create("j", queue="q", **tags)) == 400


def test_a_claim_of_large_jobs_takes_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes beyond the bound is the last: the answer can travel, and each claim gets on."""
    monkeypatch.setattr(queues, "MAX_CLAIM_BYTES", 1_000)
    world = World()
    for number in range(5):
        request = create(f"j{number}", queue="q")
        request.param = Value(data="x" * 600)
        world.ask(request)
        world.pass_time(1)
    assert _claimed(world.claim("q", limit=5)) == ["j0", "j1"]
    assert _claimed(world.claim("q", limit=5)) == ["j2", "j3"]
    assert _claimed(world.claim("q", limit=5)) == ["j4"]
