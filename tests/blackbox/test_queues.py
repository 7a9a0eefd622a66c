"""B2: claims, failures, limits and settings of queues."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.blackbox.server import NEVER, TTL, Server, fresh

# -- claims ------------------------------------------------------------------------------------------


def test_rank_is_due_time_less_priority_and_fixed(server: Server) -> None:
    """A step of priority is worth exactly a minute; ties go to whoever came first."""
    queue = fresh()
    start = server.now
    assert start is not None
    for name, after, priority in (("a", 0, 0), ("b", 1, 1), ("c", 60_001, 0), ("d", 60_002, 1)):
        server.now = start + after
        server.job(f"{queue}{name}", queue, priority=str(priority))
    assert "".join(id[-1] for id in server.claimed(queue)) == "badc"


def test_the_setting_of_aging(server: Server) -> None:
    """With a second a step, nine seconds outweigh the highest priority."""
    queue = fresh()
    server.ok("queue.put", name=queue, aging=1_000)
    server.job(f"{queue}old", queue)
    server.pass_time(9_001)
    server.job(f"{queue}new", queue, priority="9")
    assert server.claimed(queue) == [f"{queue}old", f"{queue}new"]


def test_a_delay_is_over_at_its_instant(server: Server) -> None:
    """Not a millisecond earlier."""
    queue = fresh()
    assert server.now is not None
    server.create(queue, queue, tags={"resonate:delay": str(server.now + 100)})
    server.pass_time(99)
    assert server.claimed(queue) == []
    server.pass_time(1)
    assert server.claimed(queue) == [queue]


def test_small_claims_reach_all_their_queues_equally(server: Server) -> None:
    """One job at a time, at whatever pace: none of the queues waits until another is empty, and
    queues that are empty lend nobody their turns."""
    names = [fresh() for _ in range(6)]
    busy = names[:1] + names[4:]
    for pace in (1, 2, 3, 1_000):
        ids = [f"{queue}.{pace}.{n}" for queue in busy for n in range(30)]
        for id in ids:
            server.job(id, id.partition(".")[0])
        taken = []
        for _ in range(40):
            server.pass_time(pace)
            taken += [id.partition(".")[0] for id in server.claimed(*names, limit=1)]
        counts = [taken.count(queue) for queue in busy]
        assert min(counts) > 0, (pace, counts)
        server.claimed(*names)


@pytest.mark.parametrize(
    ("weights", "taken"), [({}, "abababab"), ({"a": 3}, "aaabaaab"), ({"b": 2}, "abbabbab")]
)
@pytest.mark.parametrize("limit", [1, 3, 8])
def test_lanes_take_turns_by_weight(
    server: Server, weights: dict[str, int], taken: str, limit: int
) -> None:
    """In claims of any size, also behind a flood."""
    queue = fresh()
    lanes = {lane: {"weight": weight} for lane, weight in weights.items()}
    server.ok("queue.put", name=queue, lanes=lanes)
    for lane, number in itertools.product("ab", range(8)):
        server.job(f"{queue}{lane}{number}", queue, lane=lane)
    found = ""
    while len(found) < len(taken):
        rows = min(limit, len(taken) - len(found))
        found += "".join(id[len(queue)] for id in server.claimed(queue, limit=rows))
    assert found == taken


def test_claims_by_function(server: Server) -> None:
    """Only those that are named, as they are written; none for an empty list."""
    queue = fresh()
    for name, function in (("a", "f@1"), ("b", "g@1"), ("c", "f")):
        server.job(f"{queue}{name}", queue, function=function)
    server.job(f"{queue}d", queue)
    assert server.claimed(queue, functions=["g@1"]) == [f"{queue}b"]
    assert server.claimed(queue, functions=[]) == []
    assert server.claimed(queue, functions=["f"]) == [f"{queue}c"]
    assert server.claimed(queue) == [f"{queue}a", f"{queue}d"]


# -- failures ----------------------------------------------------------------------------------------


def _nack(server: Server, id: str, version: int) -> bool:
    server.ok("task.nack", id=id, version=version, delay=0)
    return True


def _nack_uncounted(server: Server, id: str, version: int) -> bool:
    server.ok("task.nack", id=id, version=version, delay=0, consume=False)
    return False


def _expire(server: Server, id: str, version: int) -> bool:
    server.tick(TTL)
    return True


def _release(server: Server, id: str, version: int) -> bool:
    server.ok("task.release", id=id, version=version)
    return False


def _halt_and_continue(server: Server, id: str, version: int) -> bool:
    server.ok("task.halt", id=id)
    server.ok("task.continue", id=id)
    return False


WAYS_BACK = (_nack, _nack_uncounted, _expire, _release, _halt_and_continue)


@pytest.mark.parametrize("attempts", [1, 2, 3])
@pytest.mark.parametrize("first", WAYS_BACK)
@pytest.mark.parametrize("second", WAYS_BACK)
def test_the_nth_counted_failure_ends_it(
    server: Server, attempts: int, first: Any, second: Any
) -> None:
    """Never an earlier or later one, whatever lies in between."""
    id = fresh("job")
    server.job(id, id, attempts=str(attempts), backoff="fixed:0")
    failures = 0
    for round, way in enumerate(itertools.cycle((first, second, _nack))):
        (lease,) = server.claim(id)
        assert (lease["attempt"], lease["task"]["version"]) == (failures + 1, round + 1)
        failures += way(server, id, round + 1)
        if failures == attempts:
            break
    assert server.state(id) == "rejected"
    letter = server.letter(id)
    assert letter["failures"] == attempts
    assert letter["reason"] == ("lease_expired" if way is _expire else "exhausted")
    assert server.status("task.release", id=id, version=round + 1) == 409


def test_a_suspend_starts_the_count_again(server: Server) -> None:
    """One that was answered with 300 is none."""
    id = fresh("job")
    server.job(id, id, attempts="2")
    server.create(f"{id}.w", tags={"resonate:external": "true"})
    server.claim(id)
    _nack(server, id, 1)
    assert [lease["attempt"] for lease in server.claim(id)] == [2]
    assert server.suspend(id, 2, f"{id}.w") == 200
    server.ok("promise.settle", id=f"{id}.w", state="resolved")
    assert [lease["attempt"] for lease in server.claim(id)] == [1]
    _nack(server, id, 3)
    server.claim(id)
    assert server.suspend(id, 4, f"{id}.w") == 300
    assert server.ok("task.nack", id=id, version=4) == {"outcome": "rejected"}


def test_exhausted_work_that_halts_keeps_its_promise(server: Server) -> None:
    """And stays so until somebody continues or replays it; a replay counts from nothing."""
    id = fresh("job")
    server.job(id, id, attempts="1", exhausted="halt")
    server.claim(id)
    error = {"headers": {"h": "1"}, "data": "why"}
    answer = server.ok("task.nack", id=id, version=1, error=error, reason="mine")
    assert answer == {"outcome": "halted"}
    assert (server.state(id), server.task_state(id), server.claim(id)) == ("pending", "halted", [])
    letter = server.letter(id)
    assert (letter["halted"], letter["reason"], letter["error"]) == (True, "mine", error)
    replay = server.ok("dead.replay", ids=[id])["replays"]
    assert replay == [{"id": id, "status": 200, "replayedAs": id}]
    assert [lease["attempt"] for lease in server.claim(id)] == [1]


def test_a_repeated_nack_counts_once(server: Server) -> None:
    """Under the same `kept:request`, also after the next claim."""
    id = fresh("job")
    server.job(id, id, attempts="3")
    server.claim(id)
    head = {"kept:request": fresh("r")}
    answers = [server.ask("task.nack", head, id=id, version=1, delay=0) for _ in range(2)]
    assert answers[0] == answers[1]
    assert [lease["attempt"] for lease in server.claim(id)] == [2]
    assert server.ask("task.nack", head, id=id, version=1, delay=0) == answers[0]
    assert server.task_state(id) == "acquired"


@pytest.mark.parametrize(
    ("policy", "delays"),
    [
        ("fixed:100", [100, 100, 100, 100]),
        ("linear:100:250", [100, 200, 250, 250]),
        ("exponential:100:500", [100, 200, 400, 500]),
    ],
)
def test_backoff(server: Server, policy: str, delays: list[int]) -> None:
    """By the number of failures, up to its limit; due exactly then."""
    id = fresh("job")
    server.job(id, id, backoff=policy)
    for version, delay in enumerate(delays, 1):
        server.claim(id)
        answer = server.ok("task.nack", id=id, version=version)
        assert answer == {"outcome": "retry", "retryAt": (server.now or 0) + delay}
        server.pass_time(delay - 1)
        assert server.claim(id, pid="early") == []
        server.pass_time(1)


# -- limits ------------------------------------------------------------------------------------------


def test_a_concurrency_counts_every_way_out(server: Server) -> None:
    """And lowering or raising it holds from then on."""
    queue = fresh()
    server.ok("queue.put", name=queue, concurrency=2)
    for number in range(9):
        server.job(f"{queue}.{number}", queue)
    one, two = server.claimed(queue)
    assert server.ask("task.acquire", id=f"{queue}.8", version=0, pid="w", ttl=1)[0] == 429
    for leave in (
        lambda id: server.ok("task.release", id=id, version=1),
        lambda id: server.ok("task.nack", id=id, version=1, delay=NEVER),
        lambda id: server.ok("promise.settle", id=id, state="resolved"),
        lambda id: server.ok("promise.cancel", id=id, mode="force"),
        lambda id: server.ok("task.halt", id=id),
    ):
        leave(one)
        one, two = two, *server.claimed(queue, limit=1)
        assert server.claimed(queue) == []
    server.ok("queue.put", name=queue, concurrency=1)
    server.ok("promise.settle", id=one, state="resolved")
    assert server.claimed(queue) == []
    server.ok("queue.put", name=queue, concurrency=None)
    assert server.claimed(queue)


def test_a_rate_is_per_period_of_the_epoch(server: Server) -> None:
    """Starts count, not what runs; the next period begins at its instant."""
    queue = fresh()
    assert server.now is not None
    server.now = (server.now // 1_000 + 1) * 1_000 + 999
    server.ok("queue.put", name=queue, rate={"limit": 2, "period": 1_000})
    for number in range(9):
        server.job(f"{queue}.{number}", queue)
    assert len(server.claimed(queue)) == 2
    server.pass_time(1)
    first, _ = server.claimed(queue)
    server.ok("task.release", id=first, version=1)
    server.pass_time(999)
    assert server.claimed(queue) == []
    server.pass_time(1)
    assert len(server.claimed(queue)) == 2


def test_limits_of_lanes(server: Server) -> None:
    """Each lane has its own; a job without a lane is in one, too."""
    queue = fresh()
    server.ok("queue.put", name=queue, lane={"concurrency": 1}, lanes={"b": {"concurrency": 2}})
    for lane, number in itertools.product("ab", range(3)):
        server.job(f"{queue}{lane}{number}", queue, lane=lane)
    server.job(f"{queue}-0", queue)
    server.job(f"{queue}-1", queue)
    lanes = sorted(id[len(queue)] for id in server.claimed(queue))
    assert "".join(lanes) == "-abb"


def test_a_full_queue(server: Server) -> None:
    """Refuses new roots and stores nothing; children of running work and known ids are let in."""
    queue = fresh()
    server.ok("queue.put", name=queue, maxDepth=2)
    for number in range(3):
        server.job(f"{queue}.{number}", queue) if number < 2 else None
    status, text = server.create(f"{queue}.2", queue)
    assert (status, "full" in text) == (429, True)
    assert server.status("promise.get", id=f"{queue}.2") == 404
    assert server.create(f"{queue}.0", queue)[0] == 200
    (parent, _) = server.claimed(queue)
    for number in range(3):
        target = {"resonate:target": f"queue://{queue}"}
        action = server.child(parent, 1, f"{parent}.c{number}", **target)
        assert action["head"]["status"] == 200
    assert server.create(f"{queue}.2", queue)[0] == 429


def test_a_paused_queue(server: Server) -> None:
    """Starts nothing and takes everything; what runs goes on."""
    queue = fresh()
    server.job(f"{queue}.0", queue)
    server.claim(queue)
    assert server.ok("queue.pause", name=queue)["queue"]["paused"] is True
    server.job(f"{queue}.1", queue)
    assert server.claim(queue) == []
    assert server.status("task.acquire", id=f"{queue}.1", version=0, pid="w", ttl=1) == 409
    beat = {"id": f"{queue}.0", "version": 1}
    assert server.ok("task.heartbeat", pid="w", tasks=[beat], report=True)["lost"] == []
    assert server.fulfill(f"{queue}.0", 1) == 200
    assert "paused" not in server.ok("queue.resume", name=queue)["queue"]
    assert server.claimed(queue) == [f"{queue}.1"]


def test_settings_are_kept_changed_and_forgotten(server: Server) -> None:
    """What is absent stays, null takes back; jobs stay when the settings go."""
    queue = fresh()
    assert server.status("queue.get", name=queue) == 404
    settings = {"concurrency": 3, "rate": {"limit": 5, "period": 1_000}, "maxDepth": 10}
    assert server.ok("queue.put", name=queue, **settings)["queue"] == {"name": queue, **settings}
    del settings["rate"]
    changed = server.ok("queue.put", name=queue, rate=None, aging=7)["queue"]
    assert changed == {"name": queue, **settings, "aging": 7}
    assert changed in server.ok("queue.list", limit=1_000)["queues"]
    server.job(f"{queue}.0", queue)
    server.ok("queue.delete", name=queue)
    assert server.status("queue.delete", name=queue) == 404
    assert server.claimed(queue) == [f"{queue}.0"]


def test_statistics(server: Server) -> None:
    """Each job is counted where it is; the rates say what was started in this period."""
    queue = fresh()
    assert server.now is not None
    rate = {"limit": 5, "period": 1_000}
    server.ok("queue.put", name=queue, rate=rate, lane={"rate": {"limit": 4, "period": 1_000}})
    oldest = server.now
    for number in range(5):
        server.job(f"{queue}.{number}", queue)
    server.create(f"{queue}.d", queue, tags={"resonate:delay": str(server.now + 10_000)})
    server.claim(queue, limit=3)
    server.ok("task.halt", id=f"{queue}.0")
    server.ok("task.nack", id=f"{queue}.1", version=1, final="reject")
    server.create(f"{queue}.w", tags={"resonate:external": "true"})
    assert server.suspend(f"{queue}.2", 1, f"{queue}.w") == 200
    server.claim(queue, limit=1)
    stats = server.ok("queue.stats", name=queue)["stats"]
    assert stats == {
        "name": queue,
        "depth": 2,
        "due": 1,
        "delayed": 1,
        "acquired": 1,
        "suspended": 1,
        "halted": 1,
        "dead": 1,
        "oldestDueAt": oldest,
        "rate": {**rate, "started": 4},
    }
