"""B8 and B9: messages, what work says of itself, who runs what."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.blackbox.server import NEVER, TTL, Server, fresh

UNREGISTERED_GRACE = 600_000


def _send(server: Server, id: str, **fields: Any) -> Any:
    return server.ask("signal.send", **{"id": id, "name": "m", **fields})


def test_messages_before_during_and_after(server: Server) -> None:
    """The n-th is a promise, whoever comes first; after the end none is taken but a known one."""
    id = fresh("job")
    server.job(id, id)
    assert _send(server, id, value={"data": "1"}, key="k") == (200, {"number": 1})
    assert _send(server, id, value={"data": "x"}, key="k") == (200, {"number": 1})
    server.claim(id)
    tags = {"kept:mailbox": "m", "resonate:external": "true"}
    assert server.child(id, 1, f"{id}!m.2", **tags)["head"]["status"] == 200
    assert server.suspend(id, 1, f"{id}!m.2") == 200
    assert _send(server, id, value={"data": "2"}) == (200, {"number": 2})
    (lease,) = server.claim(id)
    values = {each["id"]: each["value"] for each in lease["preload"]}
    assert values == {f"{id}!m.1": {"data": "1"}, f"{id}!m.2": {"data": "2"}}
    assert _send(server, id, name="other") == (200, {"number": 1})
    assert server.fulfill(id, 2) == 200
    assert _send(server, id)[0] == 409
    assert _send(server, id, key="new")[0] == 409
    assert _send(server, id, key="k") == (200, {"number": 1})
    assert _send(server, "nobody")[0] == 404


def test_what_is_no_message_is_refused_or_passed_over(server: Server) -> None:
    """Names, sizes, ids that do not fit; a number that somebody else's promise has is not used."""
    id = fresh("job")
    server.create(id)
    for name in ("", "A", "a b", "é", "x" * 65):
        assert _send(server, id, name=name)[0] == 400
    for name in ("x" * 64, "a_-9"):
        assert _send(server, id, name=name) == (200, {"number": 1})
    assert _send(server, id, key="x" * 257)[0] == 400
    long = fresh("l") + "x" * 1_015
    server.create(long)
    assert _send(server, long)[0] == 400
    server.create(f"{id}!m.1")
    assert _send(server, id) == (200, {"number": 2})
    assert server.state(f"{id}!m.1") == "pending"


def test_messages_of_many_are_numbered_without_gaps(live: Server) -> None:
    """And those under one key are one."""
    id = fresh("job")
    live.create(id)

    def send(key: str | None) -> int:
        status, data = _send(live, id, **({} if key is None else {"key": key}))
        assert status == 200, data
        return int(data["number"])

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(send, [None] * 24)) == list(range(1, 25))
        assert set(threads.map(send, ["k"] * 8)) == {25}


def test_what_work_says_of_itself(server: Server) -> None:
    """Under the lease only; read and searched by anybody, and still there when it is over."""
    id = fresh("job")
    server.job(id, id)
    named = {"id": id, "version": 1}
    assert server.status("task.annotate", **named, set={"a": "b"}) == 409
    server.claim(id)
    assert server.status("task.annotate", **named, set={"a": id, "c": "d"}, progress=0.5) == 200
    assert server.status("task.annotate", **named, set={"c": None}) == 200
    found = server.ok("promise.get", id=id, attributes=True)
    assert (found["attributes"], found["progress"]) == ({"a": id}, 0.5)
    assert "attributes" not in server.ok("promise.get", id=id)
    more = {f"n{number}": "x" for number in range(63)}
    assert server.status("task.annotate", **named, set=more) == 200
    assert server.status("task.annotate", **named, set={"one": "more"}) == 422
    assert server.status("task.annotate", **named, set={"one": "more", "n0": None}) == 200
    for bad in ({"set": {"": "x"}}, {"set": {"k": "x" * 1_024}}, {"progress": 1.1}):
        assert server.status("task.annotate", **named, **bad) == 400
    server.fulfill(id, 1)
    assert server.status("task.annotate", **named, set={"a": "c"}) == 409
    page = server.ok("promise.search", attributes={"a": id, "one": "more"}, state="resolved")
    assert [each["id"] for each in page["promises"]] == [id]


def _announce(server: Server, pid: str, *names: str, ttl: int = 1_000) -> None:
    functions = [{"name": name, "version": 1, "queue": pid} for name in names]
    server.ok("worker.announce", pid=pid, queues=[pid], functions=functions, ttl=ttl)


def test_announcements_last_their_ttl(server: Server) -> None:
    """Heartbeats renew them from half of it on; a new one takes the place of the old."""
    pid = fresh("worker")

    def listed() -> list[int]:
        workers = server.ok("worker.list", limit=1_000)["workers"]
        return [each["expiresAt"] - start for each in workers if each["pid"] == pid]

    start = server.now or 0
    _announce(server, pid, f"{pid}.f")
    for after, expires in ((499, 1_000), (500, 1_500), (1_499, 2_499)):
        server.now = start + after
        server.ok("task.heartbeat", pid=pid, tasks=[])
        assert listed() == [expires]
    server.now = start + 2_498
    runners = server.ok("function.get", name=f"{pid}.f")["runners"]
    assert [(each["pid"], each["version"], each["queue"]) for each in runners] == [(pid, 1, pid)]
    server.pass_time(1)
    assert (listed(), server.status("function.get", name=f"{pid}.f")) == ([], 404)
    _announce(server, pid, f"{pid}.f")
    _announce(server, pid, f"{pid}.g")
    statuses = [server.status("function.get", name=f"{pid}.{name}") for name in "fg"]
    assert statuses == [404, 200]


def test_work_that_nobody_runs_dies_after_the_grace(server: Server) -> None:
    """Not a millisecond earlier, nothing is counted, and an announcement in between begins it
    anew."""
    id = fresh("job")
    server.job(id, id, function=f"{id}@1", attempts="1")
    start = server.now or 0
    version = 0

    def nack(after: int) -> str:
        nonlocal version
        server.now = start + after
        version += 1
        assert [lease["attempt"] for lease in server.claim(id, ttl=NEVER // 2)] == [1]
        request = {"reason": "unregistered", "consume": False, "delay": 0}
        return str(server.ok("task.nack", id=id, version=version, **request)["outcome"])

    assert nack(0) == "retry"
    assert nack(UNREGISTERED_GRACE - 1) == "retry"
    _announce(server, fresh("worker"), id, ttl=1)
    assert nack(UNREGISTERED_GRACE) == "retry"
    assert nack(2 * UNREGISTERED_GRACE - 1) == "retry"
    assert nack(2 * UNREGISTERED_GRACE) == "rejected"
    letter = server.letter(id)
    assert (letter["reason"], letter["failures"]) == ("unregistered", 0)


def test_an_explanation_names_what_is_waited_for(server: Server) -> None:
    """In order of what is in the way: its time, the pause, the limit, nobody, its place."""
    queue = fresh()
    first, second = f"{queue}a", f"{queue}b"
    server.job(first, queue, function="f@1")
    server.job(second, queue, function="f@1")
    assert server.ok("task.explain", id=second)["before"] == 1
    server.ok("queue.put", name=queue, concurrency=1)
    server.claim(queue, ttl=TTL, limit=1)
    server.ok("queue.pause", name=queue)
    told = server.ok("task.explain", id=second)
    kinds = [reason["kind"] for reason in told["reasons"]]
    assert kinds == ["paused", "concurrency", "no_worker", "line"]
    holders = [(each["id"], each["pid"]) for each in told["reasons"][1]["holders"]]
    assert holders == [(first, "w")]
    assert told["text"] == told["reasons"][0]["text"]
    assert server.ok("task.explain", id=first)["reasons"][0]["kind"] == "running"
    assert server.status("task.explain", id="nobody") == 404
