"""B5: locks with fences, slots, buckets and revisions, to the millisecond and under a crowd."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.blackbox.server import Server, fresh


def test_a_lock_lapses_at_its_expiry(server: Server) -> None:
    """Fences rise; whoever is late, or has another's fence, is refused."""
    name = fresh("lock")
    start = server.now
    assert start is not None

    def ask(verb: str, holder: str, **fields: Any) -> Any:
        return server.ask(f"lock.{verb}", resource=name, holder=holder, **fields)

    first = ask("acquire", "a", ttl=100)[1]
    assert first["expiresAt"] == start + 100
    assert server.detail("lock.acquire", resource=name, holder="b", ttl=1) == {
        "holder": "a",
        "expiresAt": start + 100,
    }
    assert ask("acquire", "a", ttl=50)[1] == first
    server.pass_time(99)
    assert ask("acquire", "b", ttl=100)[0] == 409
    server.pass_time(1)
    second = ask("acquire", "b", ttl=100)[1]
    assert second["fence"] > first["fence"]
    for holder, fence in (("a", first["fence"]), ("a", second["fence"]), ("b", first["fence"])):
        assert ask("heartbeat", holder, fence=fence)[0] == 409
        assert ask("release", holder, fence=fence)[0] == 409
    server.pass_time(50)
    assert ask("heartbeat", "b", fence=second["fence"])[1] == {"expiresAt": start + 250}
    server.pass_time(100)
    assert ask("heartbeat", "b", fence=second["fence"])[0] == 409
    assert "holder" not in server.ok("lock.get", resource=name)["lock"]
    third = ask("acquire", "b", ttl=100)[1]
    assert ask("release", "b", fence=third["fence"]) == (200, {})
    assert ask("release", "b", fence=third["fence"])[0] == 409


def test_fences_rise_beyond_what_is_forgotten(server: Server) -> None:
    """A lock that nobody used for long is gone, and its next fence is higher all the same."""
    name = fresh("lock")
    acquire = {"resource": name, "holder": "a", "ttl": 1}
    fence = server.ok("lock.acquire", **acquire)["fence"]
    server.tick(3_600_000)
    server.tick(3_600_000)
    assert server.ok("lock.acquire", **acquire)["fence"] > fence


def test_a_repeated_release_answers_again(server: Server) -> None:
    """Also when somebody else has the lock by then; a late copy of an acquire gets nothing."""
    name = fresh("lock")
    acquire, release = {"kept:request": fresh("r")}, {"kept:request": fresh("r")}
    held = {"resource": name, "holder": "a"}
    fence = server.ok("lock.acquire", acquire, **held, ttl=1_000)["fence"]
    assert server.ok("lock.acquire", acquire, **held, ttl=1_000)["fence"] == fence
    assert server.ask("lock.release", release, **held, fence=fence) == (200, {})
    server.ok("lock.acquire", resource=name, holder="b", ttl=1_000)
    assert server.ask("lock.release", release, **held, fence=fence) == (200, {})
    assert server.ask("lock.acquire", acquire, **held, ttl=1_000)[0] == 409


def test_slots_are_judged_by_the_limit_that_is_named(server: Server) -> None:
    """Those who hold one keep it; one that lapsed is free at its instant."""
    key = fresh("slots")
    start = server.now
    assert start is not None

    def acquire(holder: str, limit: int, ttl: int = 100) -> int:
        return server.status("slot.acquire", key=key, limit=limit, holder=holder, ttl=ttl)

    assert [acquire(holder, 2) for holder in "abca"] == [200, 200, 409, 200]
    assert [acquire("c", 3), acquire("d", 3), acquire("d", 2)] == [200, 409, 409]
    refused = server.detail("slot.acquire", key=key, limit=1, holder="e", ttl=1)
    assert refused == {"expiresAt": start + 100}
    server.pass_time(99)
    assert server.ok("slot.heartbeat", key=key, holder="b") == {"expiresAt": start + 199}
    server.pass_time(1)
    assert server.status("slot.heartbeat", key=key, holder="a") == 409
    assert server.status("slot.release", key=key, holder="nobody") == 200
    holders = [each["holder"] for each in server.ok("slot.get", key=key)["holders"]]
    assert holders == ["b"]


def test_a_bucket_fills_evenly(server: Server) -> None:
    """To the millisecond, in whole numbers, up to its burst; a refused take takes nothing."""
    key = fresh("bucket")

    def take(cost: int = 1, **fields: Any) -> Any:
        return server.ok(
            "bucket.take", **{"key": key, "limit": 3, "period": 1_000, **fields}, cost=cost
        )

    assert [take()["remaining"] for _ in range(3)] == [2, 1, 0]
    assert take() == {"granted": False, "remaining": 0, "retryAfter": 334}
    server.pass_time(333)
    assert take() == {"granted": False, "remaining": 0, "retryAfter": 1}
    server.pass_time(1)
    assert [take()["granted"], take()["granted"]] == [True, False]
    assert take(3)["retryAfter"] == 1_000
    server.pass_time(3_600_000)
    assert take(3) == {"granted": True, "remaining": 0, "retryAfter": 0}
    server.pass_time(3_600_000)
    assert take(2, burst=5) == {"granted": True, "remaining": 1, "retryAfter": 0}
    for bad in ({"cost": 4}, {"cost": 0}, {"limit": 0}, {"period": 0}, {"burst": 0}):
        assert (
            server.status("bucket.take", **{"key": key, "limit": 3, "period": 1_000, **bad}) == 400
        )


def test_a_revision_never_goes_down(server: Server) -> None:
    """1, 3, 2 ends at 3; until it is forgotten, exactly its retention after the last advance."""
    key = fresh("entity")

    def advance(revision: int, **fields: Any) -> Any:
        return server.ask("guard.advance", key=key, revision=revision, **fields)

    assert [advance(revision, retention=1_000)[0] for revision in (1, 3, 2)] == [200, 200, 409]
    assert server.detail("guard.advance", key=key, revision=0) == {"current": 3}
    server.pass_time(999)
    assert advance(2)[0] == 409
    server.pass_time(1)
    assert advance(2) == (200, {"current": 2})
    assert advance(2) == (200, {"current": 2, "repeated": True})
    head = {"kept:request": fresh("r")}
    answers = [server.ask("guard.advance", head, key=key, revision=9) for _ in range(2)]
    assert answers == [(200, {"current": 9})] * 2
    assert server.status("guard.delete", key=key) == 200
    assert [server.status(f"guard.{verb}", key=key) for verb in ("get", "delete")] == [404, 404]


def test_of_many_revisions_at_once_the_highest_stays(live: Server) -> None:
    """And as many are granted as rose."""
    key = fresh("entity")

    def advance(revision: int) -> int:
        return live.status("guard.advance", key=key, revision=revision)

    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(advance, [*range(20, 40), *range(20)]))
    assert statuses[19] == 200
    assert live.ok("guard.get", key=key)["guard"]["current"] == 39
    assert set(statuses) == {200, 409}


def test_a_crowd_at_a_lock_goes_in_one_by_one(live: Server) -> None:
    """Each waits for it, and gets a higher fence than the one before; a crash forgets no holder."""
    name = fresh("lock")
    held = live.ok("lock.acquire", resource=name, holder="first", ttl=600_000)
    live.crash()
    assert live.status("lock.acquire", resource=name, holder="thief", ttl=1) == 409
    fences: list[int] = [held["fence"]]

    def enter(number: int) -> None:
        holder = {"resource": name, "holder": f"h{number}"}
        fence = live.ok("lock.acquire", **holder, ttl=60_000, wait=30_000)["fence"]
        # Nobody else is in here: what was appended last is the fence of who was before.
        assert fence > fences[-1]
        fences.append(fence)
        assert live.status("lock.release", **holder, fence=fence) == 200

    with ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(enter, number) for number in range(8)]
        while live.ok("lock.get", resource=name)["lock"]["waiting"] < len(waiting):
            pass
        release = {"resource": name, "holder": "first", "fence": held["fence"]}
        assert live.status("lock.release", **release) == 200
        for each in waiting:
            each.result(20)
    assert len(fences) == 9
