"""B1 and B2: who waits is answered by the commit that ends the wait, in whichever process; and
limits hold for all processes together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any, TypeAlias

import pytest

from tests.blackbox.server import NEVER, Server, fresh

WAIT_MS = 20_000
# Scans that repair lost wake-ups come seldom: who is answered within this was woken.
SOON_SECONDS = 5.0
HOUR = 3_600_000
Step: TypeAlias = Callable[[Server, str], Any]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """Two servers on one file, on the real clock."""
    store = f"sqlite:///{tmp_path_factory.mktemp('store')}/kept.db"
    places: list[Path] = [tmp_path_factory.mktemp("server") for _ in range(2)]
    one, other = (Server(place, store, clock=False) for place in places)
    yield one, other
    one.close()
    other.close()


def _two(server: Server, queue: str, **tags: str) -> None:
    server.job(f"{queue}.0", queue, **tags)
    server.job(f"{queue}.1", queue, **tags)


def _first_of_two(**settings: Any) -> Step:
    """Two jobs, of which the settings let one start."""

    def prepare(server: Server, queue: str) -> None:
        server.ok("queue.put", name=queue, **settings)
        _two(server, queue, lane="a")
        assert len(server.claim(queue, ttl=HOUR)) == 1

    return prepare


def _paused(server: Server, queue: str) -> None:
    server.ok("queue.pause", name=queue)
    server.job(f"{queue}.0", queue)


def _held(server: Server, queue: str) -> None:
    server.job(f"{queue}.0", queue)
    assert len(server.claim(queue, ttl=HOUR)) == 1


def _dead(final: str) -> Step:
    def prepare(server: Server, queue: str) -> None:
        _held(server, queue)
        server.ok("task.nack", id=f"{queue}.0", version=1, final=final)

    return prepare


def _suspended(awaited: str, **tags: str) -> Step:
    def prepare(server: Server, queue: str) -> None:
        _held(server, queue)
        id = f"{queue}.0"
        server.child(id, 1, id + awaited, **{"resonate:external": "true", **tags})
        assert server.suspend(id, 1, id + awaited) == 200

    return prepare


def _scheduled(server: Server, queue: str) -> None:
    tags = {"resonate:target": f"queue://{queue}"}
    fields = {"promiseId": queue + ".{{.timestamp}}", "promiseTimeout": HOUR, "promiseTags": tags}
    server.ok("schedule.put", id=queue, cron="0 0 1 1 *", **fields)


def _ok(kind: str, id: str = ".0", **fields: Any) -> Step:
    return lambda server, queue: server.ok(kind, id=queue + id, **fields)


def _put(**settings: Any) -> Step:
    return lambda server, queue: server.ok("queue.put", name=queue, **settings)


ONE_AN_HOUR = {"limit": 1, "period": HOUR * 24}
ENDS: dict[str, tuple[Step, Step]] = {
    "a create": (lambda *_: None, lambda server, queue: server.job(queue, queue)),
    "a resume": (_paused, lambda server, queue: server.ok("queue.resume", name=queue)),
    "settings that go": (_paused, lambda server, queue: server.ok("queue.delete", name=queue)),
    "a higher limit": (_first_of_two(concurrency=1), _put(concurrency=2)),
    "no limit": (_first_of_two(lane={"concurrency": 1}), _put(lane=None)),
    "a higher rate": (_first_of_two(rate=ONE_AN_HOUR), _put(rate={**ONE_AN_HOUR, "limit": 2})),
    "a slot": (_first_of_two(concurrency=1), _ok("promise.settle", state="resolved")),
    "a lane's slot": (_first_of_two(lane={"concurrency": 1}), _ok("task.halt")),
    "a forced cancel": (_first_of_two(concurrency=1), _ok("promise.cancel", mode="force")),
    "a nack": (_held, _ok("task.nack", version=1, delay=50)),
    "a release": (_held, _ok("task.release", version=1)),
    "a replay": (_dead("halt"), lambda server, queue: server.ok("dead.replay", ids=[f"{queue}.0"])),
    "a bulk replay": (
        _dead("reject"),
        lambda server, queue: server.ok("dead.replay", filter={"queue": queue}),
    ),
    "a cancel": (_suspended(".w"), _ok("promise.cancel", recursive=False)),
    "a message": (_suspended("!m.1", **{"kept:mailbox": "m"}), _ok("signal.send", name="m")),
    "a trigger": (_scheduled, _ok("schedule.trigger", "")),
    "a backfill": (
        _scheduled,
        _ok("schedule.backfill", "", **{"from": 0, "to": 365 * 24 * HOUR}),
    ),
}


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
@pytest.mark.parametrize("end", ENDS)
def test_what_ends_the_wait_of_a_claim(
    pair: tuple[Server, Server], end: str, *, elsewhere: bool
) -> None:
    """At once, also when it happens in another process."""
    here, there = pair
    queue = fresh()
    prepare, act = ENDS[end]
    prepare(here, queue)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(here.claimed, queue, wait=WAIT_MS, limit=1)
        while here.waiting() == 0:
            assert not waiting.done(), waiting.result()
        began = time.monotonic()
        act(there if elsewhere else here, queue)
        assert len(waiting.result(WAIT_MS / 1_000)) == 1
        assert time.monotonic() - began < SOON_SECONDS


def test_a_wait_for_a_promise(pair: tuple[Server, Server]) -> None:
    """Ends with its settlement, or with its own time and the pending record."""
    here, there = pair
    id = fresh()
    here.create(id)
    assert here.ok("promise.wait", id=id, timeout=1)["promise"]["state"] == "pending"
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(here.ok, "promise.wait", id=id, timeout=WAIT_MS)
        while here.waiting() == 0:
            assert not waiting.done()
        there.ok("promise.settle", id=id, state="resolved")
        assert waiting.result(SOON_SECONDS)["promise"]["state"] == "resolved"
    assert here.status("promise.wait", id=id, timeout=60_001) == 400
    assert here.status("promise.wait", id="nobody", timeout=0) == 404


@pytest.mark.parametrize("limits", [{"concurrency": 3}, {"lane": {"concurrency": 3}}], ids=str)
def test_no_more_than_the_limit_runs(pair: tuple[Server, Server], limits: dict[str, Any]) -> None:
    """In two processes with eight workers, some of which fail: each job ends once, and at no time
    are more under a lease than may be."""
    queue, count = fresh(), 60
    pair[0].ok("queue.put", name=queue, **limits)
    creates = [
        pair[0].envelope("promise.create", {"id": f"{queue}.{n}", "timeoutAt": NEVER, "tags": tags})
        for n in range(count)
        for tags in ({"resonate:target": f"queue://{queue}", "kept:backoff": "fixed:0"},)
    ]
    assert pair[0].post(creates, "/batch")[0] == 200
    lock = Lock()
    running: set[str] = set()
    done: list[str] = []

    def work(number: int) -> None:
        server = pair[number % 2]
        while len(done) < count:
            leases = server.claim(queue, limit=2, wait=200, ttl=HOUR)
            with lock:
                running.update(lease["task"]["id"] for lease in leases)
                assert len(running) <= 3
            for lease in leases:
                id, version = lease["task"]["id"], lease["task"]["version"]
                with lock:
                    # Before it is given back: the next one may be told before this answer comes.
                    running.remove(id)
                if version == 1 and number < 2:
                    server.ok("task.nack", id=id, version=version, delay=0)
                    continue
                assert server.fulfill(id, version) == 200
                done.append(id)

    with ThreadPoolExecutor(9) as threads:
        workers = [threads.submit(work, number) for number in range(8)]
        while len(done) < count and not any(each.done() for each in workers):
            assert pair[0].ok("queue.stats", name=queue)["stats"]["acquired"] <= 3
        for each in workers:
            each.result(30)
    assert sorted(done) == sorted(f"{queue}.{n}" for n in range(count))
