"""B1 and B3: repeats, heartbeats, the order of releases, cancellation with compensation."""

from __future__ import annotations

from typing import Any

import pytest

from tests.blackbox.server import NEVER, TTL, Server, fresh

GRACE = 60_000
EXTERNAL = {"resonate:external": "true"}


def _beat(server: Server, *refs: tuple[str, int], pid: str = "w") -> Any:
    tasks = [{"id": id, "version": version} for id, version in refs]
    return server.ok("task.heartbeat", pid=pid, tasks=tasks, report=True)


def _running(server: Server, *, ttl: int = NEVER // 2, **tags: str) -> str:
    """A job under a lease at version 1."""
    id = fresh("job")
    server.job(id, id, **tags)
    assert server.claimed(id, ttl=ttl) == [id]
    return id


def _record(server: Server, id: str, version: int, child: str, **fields: Any) -> Any:
    step = {"id": child, "timeoutAt": NEVER, "tags": {"resonate:parent": id}}
    request = {"id": id, "version": version, "step": step, "state": "resolved", **fields}
    return server.ask("task.record", **request)


# -- leases ------------------------------------------------------------------------------------------


def test_a_heartbeat_says_what_is_lost_and_why(server: Server) -> None:
    """Each reason, in the order of the question; what is held is not in it."""
    settled, halted, released, held = (_running(server) for _ in range(4))
    server.fulfill(settled, 1)
    server.ok("task.halt", id=halted)
    server.ok("task.release", id=released, version=1)
    server.claim(released, pid="other")
    expired = _running(server, ttl=TTL)
    server.tick(TTL)
    refs = [(id, 1) for id in (settled, halted, released, "nobody", expired, held)]
    lost = _beat(server, *refs)["lost"]
    reasons = ["settled", "halted", "superseded", "unknown", "expired"]
    assert [(each["id"], each["reason"]) for each in lost] == list(
        zip((settled, halted, released, "nobody", expired), reasons, strict=True)
    )
    assert [each["reason"] for each in _beat(server, (held, 1), pid="x")["lost"]] == ["superseded"]


def test_a_lease_ends_a_ttl_after_the_last_heartbeat(server: Server) -> None:
    """Not a millisecond earlier, and not before somebody ended it."""
    id = _running(server, ttl=TTL)
    server.pass_time(TTL - 1)
    assert _beat(server, (id, 1)) == {"lost": [], "cancel": []}
    server.tick(TTL - 1)
    assert server.task_state(id) == "acquired"
    server.pass_time(1)
    assert _beat(server, (id, 1))["lost"] == []
    server.tick(TTL)
    assert server.task_state(id) == "pending"


def test_the_order_of_releases_comes_back(server: Server) -> None:
    """In claims and in pages of children; the first number of each stays."""
    id = _running(server)
    for name in "1234":
        server.child(id, 1, f"{id}.{name}", **EXTERNAL)
    assert _record(server, id, 1, f"{id}.5", released=[f"{id}.3", f"{id}.1"])[0] == 200
    again = [f"{id}.2", f"{id}.3", f"{id}.2"]
    assert _record(server, id, 1, f"{id}.5", released=again)[0] == 200
    server.ok("task.release", id=id, version=1)
    (lease,) = server.claim(id, preload=2)
    assert lease["released"] == [f"{id}.3", f"{id}.1"]
    order, more = [each["id"] for each in lease["preload"]], lease["more"]
    while more is not None:
        page = server.ok("promise.children", id=id, limit=1, cursor=more)
        order += [each["id"] for each in page["preload"]]
        more = page.get("more")
    assert order == [f"{id}.{name}" for name in "31245"]
    assert server.status("promise.children", id=id, cursor="bogus") == 400


def test_a_step_is_recorded_once(server: Server) -> None:
    """The stored record for who comes again; what is pending is settled, what is late timed out."""
    id = _running(server)
    first = _record(server, id, 1, f"{id}.1", value={"data": "1"})
    assert first[1]["promise"]["value"] == {"data": "1"}
    assert _record(server, id, 1, f"{id}.1", state="rejected", value={"data": "2"}) == first
    server.child(id, 1, f"{id}.2", **EXTERNAL)
    assert _record(server, id, 1, f"{id}.2")[1]["promise"]["state"] == "resolved"
    late = {"id": f"{id}.3", "timeoutAt": server.now}
    found = _record(server, id, 1, f"{id}.3", step=late)[1]["promise"]
    assert (found["state"], found["createdAt"]) == ("rejected_timedout", server.now)
    assert _record(server, id, 1, id)[0] == 400
    assert _record(server, id, 2, f"{id}.4")[0] == 409
    assert _record(server, "nobody", 1, f"{id}.4")[0] == 404


@pytest.mark.parametrize("kind", ["task.release", "task.nack", "task.fulfill", "task.record"])
def test_a_repeated_request_gets_its_answer_again(server: Server, kind: str) -> None:
    """Under the same `kept:request`; under another one it is a late one."""
    id = _running(server)
    settle = {"kind": "promise.settle", "data": {"id": id, "state": "resolved"}}
    step = {"id": f"{id}.1", "timeoutAt": NEVER}
    fields: dict[str, Any] = {
        "task.fulfill": {"action": settle},
        "task.record": {"step": step, "state": "resolved"},
    }.get(kind, {})
    head = {"kept:request": fresh("request")}
    answers = [server.ask(kind, head, id=id, version=1, **fields) for _ in range(2)]
    assert answers[0] == answers[1]
    assert answers[0][0] == 200
    other = server.ask(kind, {"kept:request": fresh("request")}, id=id, version=1, **fields)
    assert other[0] == (200 if kind == "task.record" else 409)


def test_a_repeated_claim_gets_the_same_leases(server: Server) -> None:
    """And no second ones."""
    queue = fresh()
    for number in range(3):
        server.job(f"{queue}.{number}", queue)
    head = {"kept:request": fresh("request")}
    request = {"queues": [queue], "pid": "w", "ttl": TTL, "limit": 2}
    answers = [server.ok("task.claim", head, **request)["tasks"] for _ in range(2)]
    assert answers[0] == answers[1]
    assert len(server.claimed(queue)) == 1


def test_a_batch_is_applied_in_order_and_item_by_item(server: Server) -> None:
    """A wait in it is refused alone; nothing in it, or too much, is refused whole."""
    id = fresh()
    batch = [
        server.envelope("promise.create", {"id": id, "timeoutAt": NEVER}),
        server.envelope("promise.settle", {"id": id, "state": "resolved"}),
        server.envelope("promise.settle", {"id": id, "state": "rejected"}),
        server.envelope("promise.wait", {"id": id, "timeout": 1}),
        server.envelope("lock.acquire", {"resource": id, "holder": "h", "ttl": 1, "wait": 1}),
        server.envelope("task.claim", {"queues": [id], "pid": "w", "ttl": 1, "wait": 1}),
        server.envelope("promise.get", {"id": f"{id}-no"}),
    ]
    status, answers = server.post(batch, "/batch")
    assert status == 200
    assert [each["head"]["status"] for each in answers] == [200, 200, 200, 400, 400, 400, 404]
    assert {each["data"]["promise"]["state"] for each in answers[1:3]} == {"resolved"}
    one = server.envelope("promise.get", {"id": id})
    assert [server.post(bad, "/batch")[0] for bad in ([], [one] * 1_001, one)] == [400] * 3


# -- cancellation ------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["rejected_canceled", "resolved", "rejected"])
def test_whoever_is_asked_to_stop_compensates_first(server: Server, end: str) -> None:
    """A suspended workflow is woken and told, cleans up in steps and in work of others, waits for
    it, and ends as it likes."""
    id = _running(server)
    server.child(id, 1, f"{id}.1", **EXTERNAL)
    assert server.suspend(id, 1, f"{id}.1") == 200
    asked = server.now
    found = server.ok("promise.cancel", id=id, reason="why", recursive=False)["cancel"]
    assert (found["requestedAt"], found["endsAt"]) == (asked, (asked or 0) + GRACE)
    (lease,) = server.claim(id, ttl=NEVER // 2)
    assert (lease["cancelRequestedAt"], lease["attempt"]) == (asked, 1)
    assert _record(server, id, 2, f"{id}.2", released=[id])[0] == 200
    undo = {"resonate:target": f"queue://{id}u", "kept:compensation": "true"}
    server.child(id, 2, f"{id}.3", **undo)
    assert server.suspend(id, 2, f"{id}.3") == 200
    assert server.task_state(id) == "suspended"
    assert server.claimed(f"{id}u") == [f"{id}.3"]
    assert server.fulfill(f"{id}.3", 1) == 200
    (lease,) = server.claim(id, ttl=NEVER // 2)
    assert lease["released"] == [id]
    assert server.fulfill(id, 3, end) == 200
    promise = server.ok("promise.get", id=id)["promise"]
    assert promise["state"] == end
    reason = {"headers": {"kept-cancel-reason": "why"}} if end == "rejected_canceled" else {}
    assert promise["value"] == reason


def test_who_suspends_without_having_heard_is_told_at_once(server: Server) -> None:
    """A heartbeat alone is no hearing; the next suspend is one."""
    id = _running(server)
    server.child(id, 1, f"{id}.1", **EXTERNAL)
    server.ok("promise.cancel", id=id, recursive=False)
    assert _beat(server, (id, 1))["cancel"] == [id]
    assert server.suspend(id, 1, f"{id}.1") == 200
    assert server.task_state(id) == "pending"
    assert server.claimed(id) == [id]
    assert server.suspend(id, 2, f"{id}.1") == 200
    assert server.task_state(id) == "suspended"


def test_what_never_ran_ends_at_once(server: Server) -> None:
    """Without a task, in line, delayed, halted: with the reason, once."""
    names = [fresh("c") for _ in range(4)]
    plain, queued, delayed, halted = names
    server.create(plain)
    server.create(queued, queued)
    server.create(delayed, delayed, tags={"resonate:delay": str((server.now or 0) + 9_999)})
    server.create(halted, halted)
    server.ok("task.halt", id=halted)
    for id in names:
        answers = [server.ok("promise.cancel", id=id, reason=text) for text in ("first", "second")]
        assert answers[0] == answers[1]
        promise = answers[0]["promise"]
        assert promise["state"] == "rejected_canceled"
        assert promise["value"] == {"headers": {"kept-cancel-reason": "first"}}
        assert server.claimed(id) == []
    assert server.status("promise.cancel", id="nobody") == 404
    assert server.status("promise.cancel", id=plain, mode="gently") == 400
    assert server.status("promise.cancel", id=plain, reason="x" * 1_025) == 400


def test_force_takes_the_lease(server: Server) -> None:
    """Also after a request, whose instant and reason stay."""
    id = _running(server)
    server.ok("promise.cancel", id=id, reason="first")
    server.pass_time(5)
    forced = server.ok("promise.cancel", id=id, mode="force", reason="second")["promise"]
    assert forced["value"] == {"headers": {"kept-cancel-reason": "first"}}
    assert server.fulfill(id, 1) == 409
    assert _beat(server, (id, 1))["lost"][0]["reason"] == "settled"


@pytest.mark.parametrize("mode", ["request", "force"])
def test_a_tree_is_reached_but_what_is_detached(live: Server, mode: str) -> None:
    """Children of children too. A request leaves clean-up and timers to code that still runs, and
    goes on after a crash of the server."""
    id = _running(live, ttl=600_000)
    target = {"resonate:target": f"queue://{id}"}
    live.child(id, 1, f"{id}.call", **target)
    live.child(id, 1, f"{id}.wait", **EXTERNAL)
    live.child(id, 1, f"{id}.free", **target, **{"kept:detached": "true"})
    live.child(id, 1, f"{id}.undo", **target, **{"kept:compensation": "true"})
    live.child(id, 1, f"{id}.timer", **{"resonate:timer": "true"})
    assert len(live.claimed(id, ttl=600_000)) == 3
    live.child(f"{id}.call", 1, f"{id}.call.1", **EXTERNAL)
    live.child(f"{id}.free", 1, f"{id}.free.1", **EXTERNAL)
    live.ok("promise.cancel", id=id, mode=mode)
    live.crash()
    names = ("", ".call", ".call.1", ".wait", ".undo", ".timer", ".free", ".free.1")
    over = names[:6] if mode == "force" else (".call.1", ".wait")
    while any(live.state(id + name) == "pending" for name in over):
        pass
    states = {name: live.state(id + name) for name in names}
    assert states == {name: "rejected_canceled" if name in over else "pending" for name in names}
    if mode == "request":
        refs = [(id + name, 1) for name in ("", ".call", ".undo", ".free")]
        assert _beat(live, *refs)["cancel"] == [id, f"{id}.call"]
