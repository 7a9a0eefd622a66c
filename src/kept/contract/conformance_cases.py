"""Conformance cases for the base protocol, as data: what is asked, when, and what must come back.

The names C1 to C12 are the conformance questions, F1 to F9 the sentences that are plausible and
false, A the rows of the protocol's own table. `server_suite` runs them against any server.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

JsonObject = dict[str, Any]

# The instant from which the times of the steps are counted (ms since the epoch).
START_MS: Final = 1_700_000_000_000
NEVER_MS: Final = 9_007_199_254_740_991
FAR_MS: Final = 1_000_000

TARGET: Final = {"resonate:target": "poll://any@workers"}
EXTERNAL: Final = {"resonate:external": "true"}
TIMER: Final = {"resonate:timer": "true"}
CLIENT: Final = "poll://uni@clients/c1"


class Absent:
    """Expected in place of a field that must not be there."""

    def __repr__(self) -> str:
        return "absent"


ABSENT: Final = Absent()


class Ask(NamedTuple):
    """One request `at` ms after the start, the status and, of its data, what must be in it.

    Of an object in `expect` the named fields are compared, of a list all items, in order; None
    stands for any data.
    """

    at: int
    kind: str
    data: JsonObject
    status: int = 200
    expect: Any = None


class Case(NamedTuple):
    """Requests in order, on an empty server; `debug` says whether `debug.*` must be switched on."""

    name: str
    property: str
    steps: tuple[Ask, ...]
    debug: bool = True


def create(at: int, id: str, deadline: int, tags: JsonObject, /, **expect: Any) -> Ask:
    timeout_at = deadline if deadline == NEVER_MS else START_MS + deadline
    data = {"id": id, "timeoutAt": timeout_at, "tags": tags}
    return Ask(at, "promise.create", data, 200, {"promise": {"id": id, **expect}})


def settle(at: int, id: str, outcome: str, /, **expect: Any) -> Ask:
    data = {"id": id, "state": outcome, "value": {"data": outcome}}
    return Ask(at, "promise.settle", data, 200, {"promise": expect})


def get(at: int, id: str, /, **expect: Any) -> Ask:
    return Ask(at, "promise.get", {"id": id}, 200, {"promise": expect})


def task(at: int, id: str, /, **expect: Any) -> Ask:
    return Ask(at, "task.get", {"id": id}, 200, {"task": expect})


def acquire(at: int, id: str, version: int, status: int = 200, pid: str = "w1") -> Ask:
    data = {"id": id, "version": version, "pid": pid, "ttl": 50}
    expect = {"task": {"state": "acquired", "version": version + 1, "pid": pid, "ttl": 50}}
    return Ask(at, "task.acquire", data, status, expect if status == 200 else None)


def task_create(at: int, id: str, deadline: int, status: int = 200, /, **expect: Any) -> Ask:
    create_data = {"id": id, "timeoutAt": START_MS + deadline, "tags": TARGET}
    action = {"kind": "promise.create", "data": create_data}
    data = {"pid": "w1", "ttl": 50, "action": action}
    return Ask(at, "task.create", data, status, {"task": expect} if expect else None)


def suspend(at: int, id: str, version: int, *awaited: str, status: int = 200) -> Ask:
    actions = [
        {"kind": "promise.register_callback", "data": {"awaited": one, "awaiter": id}}
        for one in awaited
    ]
    return Ask(at, "task.suspend", {"id": id, "version": version, "actions": actions}, status)


def fulfill(at: int, id: str, version: int, status: int = 200) -> Ask:
    action = {"kind": "promise.settle", "data": {"id": id, "state": "resolved"}}
    return Ask(at, "task.fulfill", {"id": id, "version": version, "action": action}, status)


def callback(at: int, awaited: str, awaiter: str, status: int = 200, /, **expect: Any) -> Ask:
    data = {"awaited": awaited, "awaiter": awaiter}
    return Ask(
        at, "promise.register_callback", data, status, {"promise": expect} if expect else None
    )


def listener(at: int, awaited: str, status: int = 200, /, **expect: Any) -> Ask:
    data = {"awaited": awaited, "address": CLIENT}
    return Ask(
        at, "promise.register_listener", data, status, {"promise": expect} if expect else None
    )


def by_id(at: int, kind: str, id: str, status: int = 200) -> Ask:
    return Ask(at, kind, {"id": id}, status)


def tick(at: int) -> Ask:
    return Ask(at, "debug.tick", {"time": START_MS + at}, 200, [])


def snap(at: int, /, **expect: Any) -> Ask:
    return Ask(at, "debug.snap", {}, 200, expect)


def execute(id: str, version: int) -> JsonObject:
    message = {"kind": "execute", "data": {"task": {"id": id, "version": version}}}
    return {"address": TARGET["resonate:target"], "message": message}


def unblock(id: str, state: str) -> JsonObject:
    message = {"kind": "unblock", "data": {"promise": {"id": id, "state": state}}}
    return {"address": CLIENT, "message": message}


def fence(at: int, id: str, version: int, action: JsonObject, inner: int | None) -> Ask:
    """`inner` is the inner status, or None where the lease does not hold."""
    data = {"id": id, "version": version, "action": action}
    if inner is None:
        return Ask(at, "task.fence", data, 409)
    return Ask(at, "task.fence", data, 200, {"action": {"head": {"status": inner}}})


QUESTIONS: Final = (
    Case(
        "C1",
        "exactly the external promises get a durable timeout",
        (
            create(0, "external", 100, EXTERNAL),
            create(0, "internal", 100, {}),
            create(0, "never", NEVER_MS, EXTERNAL),
            create(0, "not", 100, {"resonate:external": "yes", "resonate:timer": "false"}),
            create(0, "target", 100, TARGET),
            create(0, "timer", 100, TIMER),
            snap(
                0,
                promiseTimeouts=[
                    {"id": id, "timeout": START_MS + 100} for id in ("external", "target", "timer")
                ],
            ),
            tick(100),
            get(100, "external", state="rejected_timedout", settledAt=START_MS + 100),
            get(100, "internal", state="rejected_timedout", settledAt=START_MS + 100),
            get(100, "timer", state="resolved", settledAt=START_MS + 100, value={}),
            get(100, "never", state="pending"),
            snap(100, promiseTimeouts=[]),
        ),
    ),
    Case(
        "C1 waits end",
        "a wait on an external promise ends with its deadline",
        (
            create(0, "root", FAR_MS, TARGET),
            create(0, "wait", 100, EXTERNAL),
            acquire(0, "root", 0),
            suspend(0, "root", 1, "wait"),
            tick(99),
            task(99, "root", state="suspended", pid=ABSENT, ttl=ABSENT),
            tick(100),
            task(100, "root", state="pending", version=1, resumes=1),
        ),
    ),
    Case(
        "C2",
        "no callback attaches to an internal promise",
        (
            create(0, "root", FAR_MS, TARGET),
            create(0, "internal", FAR_MS, {}),
            callback(0, "internal", "root", 422),
            acquire(0, "root", 0),
            suspend(0, "root", 1, "internal", status=422),
            snap(0, callbacks=[]),
        ),
    ),
    Case(
        "C3",
        "no listener attaches to an internal promise",
        (create(0, "internal", FAR_MS, {}), listener(0, "internal", 422), snap(0, listeners=[])),
    ),
    Case(
        "C4",
        "task.create, halt and continue decide on the projection",
        (
            task_create(0, "held", 100, state="acquired", version=1),
            task_create(0, "held", 100, 409),
            create(0, "halted", 100, TARGET),
            by_id(0, "task.halt", "halted"),
            task_create(100, "held", 100, state="fulfilled", version=1, pid=ABSENT),
            task_create(100, "new", 100, state="fulfilled", version=0),
            by_id(100, "task.halt", "held", 409),
            by_id(100, "task.continue", "halted", 409),
        ),
    ),
    Case(
        "C5",
        "lease expiry and retry decide on the projection: nothing dead is dispatched",
        (
            create(0, "held", 100, TARGET),
            acquire(0, "held", 0),
            create(0, "waiting", 100, TARGET),
            tick(100),
            task(100, "held", state="fulfilled", version=1),
            task(100, "waiting", state="fulfilled", version=0),
            snap(100, messages=[], taskTimeouts=[]),
        ),
    ),
    Case(
        "C6",
        "a drained callback times out an awaiter past its own deadline, and never wakes it",
        (
            create(0, "awaiter", 100, TARGET),
            create(0, "awaited", FAR_MS, EXTERNAL),
            acquire(0, "awaiter", 0),
            suspend(0, "awaiter", 1, "awaited"),
            listener(0, "awaiter"),
            settle(150, "awaited", "resolved", state="resolved"),
            task(150, "awaiter", state="fulfilled", version=1, resumes=0),
            snap(150, messages=[unblock("awaiter", "rejected_timedout")], taskTimeouts=[]),
            tick(10_000),
            snap(10_000, messages=[unblock("awaiter", "rejected_timedout")]),
        ),
    ),
    Case(
        "C7",
        "task.heartbeat decides on the projection, and extends no dead promise's lease",
        (
            create(0, "live", FAR_MS, TARGET),
            create(0, "dead", 40, TARGET),
            acquire(0, "live", 0),
            acquire(0, "dead", 0),
            Ask(
                45,
                "task.heartbeat",
                {
                    "pid": "w1",
                    "tasks": [{"id": "live", "version": 1}, {"id": "dead", "version": 1}],
                },
                200,
                {},
            ),
            snap(45, taskTimeouts=[{"id": "live", "type": 1, "timeout": START_MS + 95}]),
            task(45, "dead", state="fulfilled", pid=ABSENT, ttl=ABSENT),
        ),
    ),
    Case(
        "C8",
        "every response carries the projection, those on tasks too",
        (
            create(0, "target", 100, TARGET),
            create(0, "wait", 100, EXTERNAL),
            create(0, "root", FAR_MS, TARGET),
            create(0, "child", 100, {"resonate:parent": "root"}),
            get(100, "wait", state="rejected_timedout"),
            create(100, "wait", 500, EXTERNAL, state="rejected_timedout"),
            callback(100, "wait", "root", state="rejected_timedout"),
            listener(100, "wait", state="rejected_timedout"),
            settle(100, "wait", "resolved", state="rejected_timedout", value={}),
            task(100, "target", state="fulfilled", resumes=0),
            Ask(
                100,
                "promise.search",
                {"state": "pending"},
                200,
                {"promises": [{"id": "root"}], "cursor": ABSENT},
            ),
            Ask(
                100,
                "task.search",
                {"state": "fulfilled"},
                200,
                {"tasks": [{"id": "target"}], "cursor": ABSENT},
            ),
            Ask(
                100,
                "task.acquire",
                {"id": "root", "version": 0, "pid": "w1", "ttl": 50},
                200,
                {"preload": [{"id": "child", "state": "rejected_timedout"}]},
            ),
        ),
    ),
    Case(
        "C9",
        "an execute names the task's own version, never one not yet issued",
        (
            create(0, "job", FAR_MS, TARGET),
            tick(0),
            snap(0, messages=[execute("job", 0)]),
            acquire(1, "job", 0),
            snap(1, messages=[execute("job", 0)]),
            tick(51),
            snap(51, messages=[execute("job", 1)]),
        ),
    ),
    Case(
        "C10",
        "one holder per version, and only the current version counts",
        (
            create(0, "job", FAR_MS, TARGET),
            acquire(0, "job", 0, pid="w1"),
            acquire(0, "job", 0, 409, pid="w2"),
            acquire(0, "job", 1, 409, pid="w2"),
            tick(50),
            acquire(50, "job", 1, pid="w2"),
            fulfill(50, "job", 1, 409),
            suspend(50, "job", 1, "other", status=409),
            Ask(50, "task.release", {"id": "job", "version": 1}, 409),
            fence(
                50,
                "job",
                1,
                {"kind": "promise.settle", "data": {"id": "x", "state": "resolved"}},
                None,
            ),
            fulfill(50, "job", 2),
        ),
    ),
    Case(
        "C11",
        "a settled promise takes no callback and no listener",
        (
            create(0, "root", FAR_MS, TARGET),
            create(0, "wait", FAR_MS, EXTERNAL),
            settle(1, "wait", "rejected", state="rejected"),
            callback(2, "wait", "root", state="rejected"),
            listener(2, "wait", state="rejected"),
            snap(2, callbacks=[], listeners=[], messages=[]),
            tick(2),
            snap(2, messages=[execute("root", 0)]),
        ),
    ),
    Case(
        "C12",
        "debug is off unless it is switched on",
        tuple(
            Ask(0, f"debug.{name}", {"time": START_MS} if name == "tick" else {}, 403)
            for name in ("start", "stop", "reset", "snap", "tick")
        ),
        debug=False,
    ),
)
"""The twelve conformance questions."""

FALSE_SENTENCES: Final = (
    Case(
        "F1",
        "a settled promise's callbacks and listeners still drain",
        (
            create(0, "root", FAR_MS, TARGET),
            create(0, "wait", FAR_MS, EXTERNAL),
            acquire(0, "root", 0),
            suspend(0, "root", 1, "wait"),
            listener(0, "wait"),
            snap(
                0,
                callbacks=[{"awaiter": "root", "awaited": "wait"}],
                listeners=[{"id": "wait", "address": CLIENT}],
            ),
            settle(1, "wait", "resolved", state="resolved"),
            snap(1, callbacks=[], listeners=[], messages=[unblock("wait", "resolved")]),
        ),
    ),
    Case(
        "F2",
        "a stored pending promise may be past its deadline; whoever reads it sees it settled",
        (
            create(0, "late", 100, {}),
            get(99, "late", state="pending"),
            get(100, "late", state="rejected_timedout"),
        ),
    ),
    Case(
        "F3",
        "a second settle answers the stored record",
        (
            create(0, "one", FAR_MS, {}),
            settle(1, "one", "resolved", state="resolved", settledAt=START_MS + 1),
            settle(
                2,
                "one",
                "rejected",
                state="resolved",
                settledAt=START_MS + 1,
                value={"data": "resolved"},
            ),
        ),
    ),
    Case(
        "F4",
        "a settle after the deadline answers the deadline's verdict",
        (
            create(0, "plain", 100, {}),
            create(0, "timer", 100, TIMER),
            settle(200, "plain", "resolved", state="rejected_timedout", settledAt=START_MS + 100),
            settle(200, "timer", "rejected", state="resolved", settledAt=START_MS + 100, value={}),
        ),
    ),
    Case(
        "F5",
        "a drained callback and an expired lease show in task.get",
        (
            create(0, "root", FAR_MS, TARGET),
            create(0, "wait", FAR_MS, EXTERNAL),
            acquire(0, "root", 0),
            callback(0, "wait", "root"),
            settle(1, "wait", "resolved", state="resolved"),
            task(1, "root", state="acquired", resumes=1),
            task(60, "root", state="acquired", resumes=1),
            tick(60),
            task(60, "root", state="pending", resumes=1, pid=ABSENT),
        ),
    ),
    Case(
        "F6",
        "task.acquire is exclusive, not idempotent",
        (create(0, "job", FAR_MS, TARGET), acquire(0, "job", 0), acquire(0, "job", 0, 409)),
    ),
    Case(
        "F7",
        "time alone changes what is not settled, and nothing that is",
        (
            create(0, "open", 100, {}),
            create(0, "done", 100, {}),
            settle(1, "done", "rejected_canceled", state="rejected_canceled"),
            get(100, "open", state="rejected_timedout", settledAt=START_MS + 100),
            get(100, "done", state="rejected_canceled", settledAt=START_MS + 1),
        ),
    ),
    Case(
        "F8",
        "promise.create does not commute with the clock",
        (
            create(0, "early", 100, {}, state="pending", createdAt=START_MS, settledAt=ABSENT),
            create(
                150,
                "dead",
                100,
                TARGET,
                state="rejected_timedout",
                createdAt=START_MS + 100,
                settledAt=START_MS + 100,
            ),
            task(150, "dead", state="fulfilled", version=0),
        ),
    ),
    Case(
        "F9",
        "a lapsed lease holds until it is reaped, then the next version is granted",
        (
            create(0, "job", FAR_MS, TARGET),
            create(0, "late", FAR_MS, TARGET),
            acquire(0, "job", 0),
            acquire(0, "late", 0),
            fulfill(500, "late", 1),
            Ask(500, "task.heartbeat", {"pid": "w1", "tasks": [{"id": "job", "version": 1}]}),
            tick(549),
            task(549, "job", state="acquired", version=1),
            tick(550),
            acquire(550, "job", 1, pid="w2"),
            fulfill(550, "job", 1, 409),
        ),
    ),
)
"""What is plausible and false, each with the counterexample."""

ROWS: Final = (
    Case(
        "A suspend",
        "an awaited that is settled answers 300 with the preload and leaves the lease",
        (
            create(0, "root", FAR_MS, TARGET),
            create(0, "open", FAR_MS, EXTERNAL | {"resonate:parent": "root"}),
            create(0, "done", FAR_MS, EXTERNAL | {"resonate:branch": "root"}),
            acquire(0, "root", 0),
            settle(1, "done", "resolved", state="resolved"),
            suspend(1, "root", 1, "open", "done", status=300)._replace(
                expect={"preload": [{"id": "done"}, {"id": "open"}]}
            ),
            task(1, "root", state="acquired", resumes=0, version=1),
            snap(1, callbacks=[]),
            suspend(1, "root", 1, status=400),
            suspend(1, "root", 1, "root", status=400),
            suspend(1, "root", 1, "open", "open", status=400),
            suspend(1, "root", 1, "missing", status=422),
            suspend(1, "missing", 1, "open", status=404),
            suspend(1, "root", 1, "open"),
            task(1, "root", state="suspended", resumes=0),
        ),
    ),
    Case(
        "A fence",
        "the inner status is inside a 200, and only a holder gets one",
        (
            create(0, "root", FAR_MS, TARGET),
            acquire(0, "root", 0),
            fence(
                0,
                "root",
                1,
                {"kind": "promise.create", "data": {"id": "c", "timeoutAt": START_MS + 9}},
                200,
            ),
            fence(
                0,
                "root",
                1,
                {"kind": "promise.settle", "data": {"id": "c", "state": "resolved"}},
                200,
            ),
            fence(
                0,
                "root",
                1,
                {"kind": "promise.settle", "data": {"id": "d", "state": "resolved"}},
                404,
            ),
            fence(
                0,
                "root",
                1,
                {"kind": "promise.settle", "data": {"id": "c", "state": "rejected_timedout"}},
                400,
            ),
            fence(
                0,
                "root",
                2,
                {"kind": "promise.settle", "data": {"id": "c", "state": "resolved"}},
                None,
            ),
            Ask(
                0,
                "task.fence",
                {
                    "id": "root",
                    "version": 1,
                    "action": {
                        "kind": "promise.settle",
                        "data": {"id": "root", "state": "resolved"},
                    },
                },
                400,
            ),
            get(0, "root", state="pending"),
        ),
    ),
    Case(
        "A delay",
        "a delayed task is dispatched at its delay, and may be acquired by id before",
        (
            create(0, "one", FAR_MS, TARGET | {"resonate:delay": str(START_MS + 100)}),
            create(0, "two", FAR_MS, TARGET | {"resonate:delay": str(START_MS + 100)}),
            tick(99),
            snap(99, messages=[]),
            acquire(99, "two", 0),
            fulfill(99, "two", 1),
            tick(100),
            snap(
                100,
                messages=[execute("one", 0)],
                taskTimeouts=[{"id": "one", "type": 0, "timeout": START_MS + 5_100}],
            ),
        ),
    ),
    Case(
        "A timer with a target",
        "a timer's task is never dispatched, and its deadline resolves it",
        (
            create(0, "sleep", 100, TARGET | TIMER),
            task(0, "sleep", state="pending", version=0),
            tick(0),
            tick(99),
            snap(99, messages=[]),
            tick(100),
            get(100, "sleep", state="resolved", settledAt=START_MS + 100),
            task(100, "sleep", state="fulfilled"),
            snap(100, messages=[]),
        ),
    ),
    Case(
        "A schedule",
        "each missed instant fires in order, as of its instant",
        (
            Ask(
                0,
                "schedule.create",
                {
                    "id": "s",
                    "cron": "* * * * *",
                    "promiseId": "{{.id}}/{{.timestamp}}",
                    "promiseTimeout": 30_000,
                },
                200,
                # START_MS is 20 seconds past a full minute.
                {"schedule": {"nextRunAt": START_MS + 40_000, "lastRunAt": ABSENT}},
            ),
            tick(110_000),
            Ask(
                110_000,
                "schedule.get",
                {"id": "s"},
                200,
                {"schedule": {"lastRunAt": START_MS + 100_000, "nextRunAt": START_MS + 160_000}},
            ),
            get(
                110_000,
                f"s/{START_MS + 40_000}",
                state="rejected_timedout",
                createdAt=START_MS + 40_000,
                settledAt=START_MS + 70_000,
                tags={"resonate:schedule": "s"},
            ),
            get(110_000, f"s/{START_MS + 100_000}", state="pending", createdAt=START_MS + 100_000),
        ),
    ),
)
"""Rows of the protocol's table that the questions do not touch."""

CASES: Final = (*QUESTIONS, *FALSE_SENTENCES, *ROWS)
