"""What random requests are chosen from, and how often: the tables of the generator."""

from __future__ import annotations

from typing import Any, Final

TARGETS: Final = (
    "poll://any@workers",
    "poll://any@workers/w1",
    "poll://uni@workers/w2",
    "http://127.0.0.1:9/work",
    "https://example.invalid/work",
)
BAD_ADDRESSES: Final = ("", "nowhere", "poll://", "ftp://example.invalid/x", "poll:any@workers")
LISTENERS: Final = ("poll://uni@clients/c1", "poll://any@clients", "http://127.0.0.1:9/listen")
CRONS: Final = ("* * * * *", "*/20 * * * * *", "*/5 * * * *", "0 0 1 1 *", "30 10-12 * * 1-5")
BAD_CRONS: Final = ("", "often", "61 * * * *", "* * * *")
# Ids of which a careless comparison mistakes the order, the case or the end.
ODD_IDS: Final = ("P1", "p1 ", "p%1", "p_1", "～", "😀", "é", "e\u0301", "a/b?c#d", "'\"\\")
PIDS: Final = ("w1", "w2")
# Milliseconds of a lease, and how often.
TTLS: Final = {1: 3, 500: 7, 5_000: 20, 30_000: 40, 3_600_000: 30}

# Every (kind, status) that the model can answer; a run that misses one did not look everywhere.
POSSIBLE: Final[dict[str, tuple[int, ...]]] = {
    "promise.get": (200, 400, 404),
    "promise.create": (200, 400),
    "promise.settle": (200, 400, 404),
    "promise.register_callback": (200, 400, 404, 422),
    "promise.register_listener": (200, 400, 404, 422),
    "promise.search": (200, 400),
    "task.get": (200, 400, 404),
    "task.create": (200, 400, 409, 422),
    "task.acquire": (200, 400, 404, 409),
    "task.release": (200, 400, 404, 409),
    "task.fulfill": (200, 400, 404, 409),
    "task.suspend": (200, 300, 400, 404, 409, 422),
    "task.fence": (200, 400, 404, 409),
    "task.fence inner promise.create": (200, 400),
    "task.fence inner promise.settle": (200, 400, 404),
    "task.heartbeat": (200, 400),
    "task.halt": (200, 400, 404, 409),
    "task.continue": (200, 400, 404, 409),
    "task.search": (200, 400),
    "schedule.create": (200, 400),
    "schedule.get": (200, 400, 404),
    "schedule.delete": (200, 400, 404),
    "schedule.search": (200, 400),
    "debug.start": (200,),
    "debug.stop": (200,),
    "debug.reset": (200,),
    "debug.snap": (200,),
    "debug.tick": (200, 400),
    "promise.unknown": (400,),
}
POSSIBLE_PAIRS: Final = frozenset(
    (kind, status) for kind, statuses in POSSIBLE.items() for status in statuses
)

WEIGHTS: Final = {
    "promise.get": 4,
    "promise.create": 14,
    "promise.settle": 9,
    "promise.register_callback": 6,
    "promise.register_listener": 6,
    "promise.search": 3,
    "task.get": 5,
    "task.create": 8,
    "task.acquire": 12,
    "task.release": 3,
    "task.fulfill": 4,
    "task.suspend": 10,
    "task.fence": 9,
    "task.heartbeat": 5,
    "task.halt": 2,
    "task.continue": 3,
    "task.search": 2,
    "schedule.create": 2,
    "schedule.get": 2,
    "schedule.delete": 2,
    "schedule.search": 1.5,
    "debug.start": 0.1,
    "debug.tick": 0.8,
    "promise.unknown": 0.4,
}
# Kinds that need a task in some state, and what is asked instead where there is none.
NEEDS: Final = (
    ("halted", ("task.continue",), "task.halt"),
    (
        "acquired",
        ("task.release", "task.fulfill", "task.suspend", "task.fence", "task.heartbeat"),
        "task.acquire",
    ),
    ("pending", ("task.acquire",), "task.create"),
)
# What replaces a field of a malformed request: each is wrong for every required field.
WRONG: Final[tuple[Any, ...]] = (None, "", -1, 1.5, True, [], {}, "x" * 1_025)
# Except these, about which the text is silent, or installed clients differ from it: they compute
# deadlines as fractions.
MAYBE_RIGHT: Final = (("pid", "x" * 1_025), ("timeoutAt", 1.5))
REQUIRED: Final = {
    "promise.create": ("id", "timeoutAt"),
    "promise.settle": ("id", "state"),
    "promise.register_callback": ("awaited", "awaiter"),
    "promise.register_listener": ("awaited", "address"),
    "task.create": ("pid", "ttl", "action"),
    "task.acquire": ("id", "version", "pid", "ttl"),
    "task.release": ("id", "version"),
    "task.fulfill": ("id", "version", "action"),
    "task.suspend": ("id", "version", "actions"),
    "task.fence": ("id", "version", "action"),
    "task.heartbeat": ("pid",),
    "schedule.create": ("id", "cron", "promiseId", "promiseTimeout"),
    "debug.tick": ("time",),
    "debug.start": (),
    "promise.unknown": (),
}
