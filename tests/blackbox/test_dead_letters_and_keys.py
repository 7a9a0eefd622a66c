"""B4: dead letters one by one and in bulk, and keys against duplicates."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.blackbox.server import NEVER, Server, fresh

# -- dead letters ------------------------------------------------------------------------------------


def _bury(server: Server, id: str, queue: str, final: str = "reject", **tags: str) -> None:
    server.job(id, queue, **tags)
    (lease,) = server.claim(queue)
    version = lease["task"]["version"]
    server.ok("task.nack", id=id, version=version, final=final, reason=tags.get("lane"))


def test_letters_are_listed_by_what_they_are(server: Server) -> None:
    """`since` is the first instant, `until` past the last; pages hold each once."""
    queue = fresh()
    start = server.now
    assert start is not None
    for number in range(5):
        server.now = start + number * 10
        lane, function = f"r{number % 3}", f"f@{number % 2}"
        _bury(server, f"{queue}{number}", queue, lane=lane, function=function)

    def found(**wanted: Any) -> str:
        letters = server.ok("dead.list", queue=queue, **wanted)["letters"]
        return "".join(letter["id"][len(queue) :] for letter in letters)

    assert found() == "01234"
    assert found(function="f@1") == "13"
    assert found(reason="r0") == "03"
    assert found(since=start + 10, until=start + 30) == "12"
    assert found(since=start + 10, until=start + 10) == ""
    page = server.ok("dead.list", queue=queue, limit=3)
    assert len(page["letters"]) == 3
    assert found(limit=3, cursor=page["cursor"]) == "34"


def test_rejected_work_is_done_again_under_a_new_id(server: Server) -> None:
    """As it was, but for its delay, key and lineage; its deadline moved by the original span. The
    next replay gets the next number, also where somebody has taken one."""
    id = fresh("job")
    born = server.now
    assert born is not None
    tags = {
        "kept:attempts": "1",
        "kept:lane": "L",
        "kept:dedupe": id,
        "own": "tag",
        "resonate:delay": str(born + 10),
        "resonate:parent": "p",
        "resonate:origin": "o",
    }
    param = {"headers": {"h": "1"}, "data": "param"}
    server.create(id, id, timeoutAt=born + 5_000, tags=tags, param=param)
    server.pass_time(10)
    server.claim(id)
    server.ok("task.nack", id=id, version=1)
    server.pass_time(990)
    (replay,) = server.ok("dead.replay", ids=[id], dryRun=True)["replays"]
    assert replay == {"id": id, "status": 200, "replayedAs": f"{id}~1"}
    assert server.status("promise.get", id=f"{id}~1") == 404
    server.create(f"{id}~1")
    (replay,) = server.ok("dead.replay", ids=[id])["replays"]
    assert replay["replayedAs"] == f"{id}~2"
    again = server.ok("promise.get", id=f"{id}~2")["promise"]
    assert again["param"] == param
    assert again["timeoutAt"] - again["createdAt"] == 5_000
    target = {"resonate:target": f"queue://{id}", "kept:replay-of": id}
    assert again["tags"] == {"kept:attempts": "1", "kept:lane": "L", "own": "tag", **target}


def test_a_letter_says_no_more_than_there_is(server: Server) -> None:
    """Pushed work has no queue, and what names no function has none: such fields are left out."""
    id = fresh("job")
    server.create(id, tags={"resonate:target": "http://worker.test/", "kept:attempts": "1"})
    server.ok("task.acquire", id=id, version=0, pid="w", ttl=1)
    server.tick(1)
    assert server.letter(id) == {
        "id": id,
        "reason": "lease_expired",
        "error": {},
        "failures": 1,
        "halted": False,
        "createdAt": (server.now or 0) - 1,
        "diedAt": server.now,
        "param": {},
        "tags": {"resonate:target": "http://worker.test/", "kept:attempts": "1"},
    }


def test_halted_work_is_continued_or_done_again(server: Server) -> None:
    """With its failures forgotten; not twice. With another param it is another promise."""
    id, other = fresh("job"), fresh("job")
    _bury(server, id, id, "halt")
    answers = [server.ok("dead.replay", ids=[id])["replays"][0]["status"] for _ in range(2)]
    assert answers == [200, 409]
    assert [lease["attempt"] for lease in server.claim(id)] == [1]
    _bury(server, other, other, "halt")
    (replay,) = server.ok("dead.replay", ids=[other], param={"data": "new"})["replays"]
    assert replay["replayedAs"] == f"{other}~1"
    assert (server.state(other), server.task_state(other)) == ("pending", "halted")


def test_a_purge_forgets_the_letter_only(server: Server) -> None:
    """A dry run forgets nothing; each id is answered for itself."""
    id = fresh("job")
    _bury(server, id, id, "halt")
    for dry_run, statuses in ((True, [200, 404]), (False, [200, 404]), (False, [404, 404])):
        purges = server.ok("dead.purge", ids=[id, "nobody"], dryRun=dry_run)["purges"]
        assert [each["status"] for each in purges] == statuses
    assert server.task_state(id) == "halted"


@pytest.mark.parametrize("kind", ["dead.replay", "dead.purge"])
@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"ids": []},
        {"ids": ["a", "a"]},
        {"ids": ["a"] * 1_001},
        {"ids": ["a"], "filter": {}},
        {"filter": {"queues": "q"}},
        {"filter": {"queue": "q", "Reason": "r"}},
    ],
)
def test_a_choice_that_is_unclear_is_refused(
    server: Server, kind: str, wanted: dict[str, Any]
) -> None:
    """A misspelt field of a filter above all: what is left of it would match everything."""
    id = fresh("job")
    _bury(server, id, id)
    assert server.status(kind, **wanted) == 400
    assert server.letter(id)["id"] == id


def test_a_bulk_replay_goes_on_through_crashes(live: Server) -> None:
    """Each letter once, however often the server is killed, and whoever asks again."""
    queue, count = fresh(), 1_500
    creates = [
        live.envelope(
            "promise.create", {"id": f"{queue}.{number}", "timeoutAt": NEVER, "tags": tags}
        )
        for number in range(count)
        for tags in ({"resonate:target": f"queue://{queue}"},)
    ]
    ends = [
        live.envelope("task.nack", {"id": f"{queue}.{number}", "version": 1, "final": "reject"})
        for number in range(count)
    ]
    for start in range(0, count, 500):
        assert live.post(creates[start : start + 500], "/batch")[0] == 200
    assert sum(len(live.claim(queue, limit=750, ttl=600_000)) for _ in range(2)) == count
    for start in range(0, count, 500):
        assert live.post(ends[start : start + 500], "/batch")[0] == 200
    bulk = fresh("bulk")
    request = {"filter": {"queue": queue}, "bulk": bulk}
    first = live.ok("dead.replay", **request)["bulk"]
    for _ in range(2):
        live.crash()
        assert live.ok("dead.replay", **request)["bulk"]["startedAt"] == first["startedAt"]
    assert live.status("dead.purge", **request) == 409
    while "finishedAt" not in (progress := live.ok("dead.bulk", id=bulk)["bulk"]):
        pass
    assert (progress["done"], progress.get("failed", 0)) == (count, 0)
    stats = live.ok("queue.stats", name=queue)["stats"]
    assert (stats["depth"], stats["dead"]) == (count, count)


# -- keys --------------------------------------------------------------------------------------------


def _id_of(answer: Any) -> str:
    status, data = answer
    assert status == 200, data
    return str(data["promise"]["id"])


def test_a_dedupe_key_lasts_until_both_are_over(server: Server) -> None:
    """The work and the window; to the millisecond."""
    queue = fresh()
    key = {"kept:dedupe": "k"}
    server.create(f"{queue}a", queue, tags={**key, "kept:dedupe-window": "1000"})
    assert _id_of(server.create(f"{queue}b", queue, tags=key)) == f"{queue}a"
    assert server.status("promise.get", id=f"{queue}b") == 404
    assert _id_of(server.create(f"{queue}e", queue + "else", tags=key)) == f"{queue}e"
    server.pass_time(1_000)
    assert _id_of(server.create(f"{queue}b", queue, tags=key)) == f"{queue}a"
    server.ok("promise.settle", id=f"{queue}a", state="rejected")
    window = {**key, "kept:dedupe-window": "1000"}
    assert _id_of(server.create(f"{queue}c", queue, tags=window)) == f"{queue}c"
    server.ok("promise.settle", id=f"{queue}c", state="resolved")
    server.pass_time(999)
    assert _id_of(server.create(f"{queue}d", queue, tags=key)) == f"{queue}c"
    server.pass_time(1)
    assert _id_of(server.create(f"{queue}d", queue, tags=key)) == f"{queue}d"


def test_other_arguments_under_a_key_are_a_conflict(server: Server) -> None:
    """Compared by fingerprint, else by the bytes; unless they are to be ignored."""
    queue = fresh()
    key = {"kept:dedupe": "k"}
    server.create(f"{queue}a", queue, tags=key, param={"data": "1"})
    other = {"param": {"data": "2"}}
    assert server.create(f"{queue}b", queue, tags=key, **other)[0] == 409
    ignored = {**key, "kept:dedupe-mismatch": "ignore"}
    assert _id_of(server.create(f"{queue}b", queue, tags=ignored, **other)) == f"{queue}a"
    key = {"kept:dedupe": "l", "kept:fingerprint": "same"}
    server.create(f"{queue}c", queue, tags=key, param={"data": "1"})
    assert _id_of(server.create(f"{queue}d", queue, tags=key, **other)) == f"{queue}c"


def test_one_of_many_who_ask_at_once_creates(live: Server) -> None:
    """Under one key and many ids; all are answered with the same record."""
    queue = fresh()

    def ask(number: int) -> str:
        return _id_of(live.create(f"{queue}.{number}", queue, tags={"kept:dedupe": "k"}))

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(ask, range(24)))) == 1
    assert len(live.claimed(queue)) == 1


def test_debounce(server: Server) -> None:
    """Each create puts it off, never sooner, and never beyond the longest delay."""
    queue = fresh()
    start = server.now
    assert start is not None

    def create(name: str, delay: int) -> str:
        at = {"resonate:delay": str((server.now or 0) + delay)}
        tags = {"kept:debounce": "k", "kept:debounce-max": "500", **at}
        return _id_of(server.create(f"{queue}{name}", queue, tags=tags))

    assert create("a", 100) == f"{queue}a"
    for number in range(9):
        server.pass_time(50)
        assert create(f"b{number}", 100 if number != 1 else 10) == f"{queue}a"
    server.now = start + 499
    assert server.claimed(queue) == []
    server.pass_time(1)
    assert server.claimed(queue) == [f"{queue}a"]
    assert create("c", 100) == f"{queue}c"


def test_debounce_that_replaces(server: Server) -> None:
    """The waiting one is canceled; one that was started is left alone."""
    queue = fresh()
    tags = {"kept:debounce": "k", "kept:debounce-mode": "replace"}
    for name in "ab":
        assert _id_of(server.create(queue + name, queue, tags=tags)) == queue + name
    assert server.state(f"{queue}a") == "rejected_canceled"
    assert server.claimed(queue) == [f"{queue}b"]
    server.ok("task.release", id=f"{queue}b", version=1)
    assert _id_of(server.create(f"{queue}c", queue, tags=tags)) == f"{queue}c"
    assert server.state(f"{queue}b") == "pending"


def test_singletons(server: Server) -> None:
    """One of a function, whatever its version: skipped, returned, replaced under its lease."""
    queue = fresh()

    def create(name: str, mode: str, version: int) -> Any:
        tags = {"kept:singleton": mode, "kept:function": f"f@{version}"}
        return server.create(queue + name, queue, tags=tags)

    assert _id_of(create("a", "skip", 1)) == f"{queue}a"
    assert create("b", "skip", 2)[0] == 409
    assert _id_of(create("b", "return", 2)) == f"{queue}a"
    assert server.claimed(queue) == [f"{queue}a"]
    assert _id_of(create("c", "replace", 2)) == f"{queue}c"
    assert server.state(f"{queue}a") == "rejected_canceled"
    assert server.fulfill(f"{queue}a", 1) == 409
    assert server.claimed(queue) == [f"{queue}c"]
    server.fulfill(f"{queue}c", 1)
    assert _id_of(create("d", "skip", 1)) == f"{queue}d"


@pytest.mark.parametrize(
    "tags",
    [
        {"kept:dedupe": ""},
        {"kept:dedupe-window": "5"},
        {"kept:dedupe": "k", "kept:dedupe-window": "-1"},
        {"kept:dedupe": "k", "kept:dedupe-mismatch": "perhaps"},
        {"kept:debounce-mode": "replace"},
        {"kept:debounce": "k", "kept:debounce-max": "soon"},
        {"kept:singleton": "skip"},
        {"kept:singleton": "never", "kept:singleton-key": "k"},
    ],
)
def test_keys_that_make_no_sense_are_refused(server: Server, tags: dict[str, str]) -> None:
    """Half of one, or one without what it is about."""
    id = fresh()
    assert server.create(id, id, tags=tags)[0] == 400
    assert server.status("promise.get", id=id) == 404
