"""Random requests of the base protocol, from a seed, most of them worth asking.

The generator looks at the model's state: it names leases that hold and promises that wait more often
than not, and stale, missing and malformed ones often enough that every (kind, status) pair occurs.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, Final

from kept.check.choices import (
    BAD_ADDRESSES,
    BAD_CRONS,
    CRONS,
    LISTENERS,
    MAYBE_RIGHT,
    NEEDS,
    ODD_IDS,
    PIDS,
    REQUIRED,
    TARGETS,
    TTLS,
    WEIGHTS,
    WRONG,
)
from kept.check.model import Model
from kept.check.model.state import NEVER, is_external, task_state

JsonObject = dict[str, Any]

START_MS: Final = 1_700_000_000_000
WINDOW_IDS: Final = 14
REQUESTS_PER_NEW_ID: Final = 10
REQUESTS_PER_RESET: Final = 1_500
MAX_CONTINUATIONS: Final = 8
LONGEST_JUMP_MS: Final = 600_000
RARE_WEIGHT: Final = 3


class Generator:
    """Requests as `{"kind", "data"}`, each for the instant `now` (ms) that the same call chose."""

    def __init__(self, seed: int, model: Model) -> None:
        self.random = Random(seed)
        self.model = model
        self.now = START_MS
        self.asked = 0
        self._continuations: deque[JsonObject] = deque(maxlen=MAX_CONTINUATIONS)

    def next(self) -> JsonObject:
        """The next request; `now` may have moved on."""
        self.asked += 1
        self.now += self._pause()
        if self.asked % REQUESTS_PER_RESET == 0:
            self._continuations.clear()
            return {"kind": "debug.reset", "data": {}}
        if self._continuations and self._chance(0.02):
            return self._continuations.popleft()
        kind = self._kind()
        data: JsonObject = _BUILDERS[kind](self) if kind in _BUILDERS else {}
        if self._chance(0.05 if WEIGHTS[kind] > RARE_WEIGHT else 0.25):
            self._spoil(kind, data)
        return {"kind": kind, "data": data}

    def _kind(self) -> str:
        """Mostly one for which the state holds what it needs, else one that brings that about."""
        kind = self.random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        for needed, kinds, instead in NEEDS:
            if kind in kinds and not self._tasks(needed) and self._chance(0.85):
                kind = instead
        return kind

    def observe(self, request: JsonObject, data: Any) -> None:
        """The model's answer: a cursor in it is followed later."""
        if isinstance(data, dict) and isinstance(data.get("cursor"), str):
            again = request["data"] | {"cursor": data["cursor"]}
            self._continuations.append({"kind": request["kind"], "data": again})

    def _chance(self, share: float) -> bool:
        return self.random.random() < share

    def _pause(self) -> int:
        if self._chance(0.1):
            # To the instant at which something is due, or just beside it.
            due = [at for at in self._instants() if self.now < at <= self.now + LONGEST_JUMP_MS]
            if due:
                return max(0, self.random.choice(due) - self.now + self.random.choice((-1, 0, 1)))
        spans = ((0, 0), (1, 50), (100, 3_000), (5_000, 20_000), (60_000, LONGEST_JUMP_MS))
        low, high = self.random.choices(spans, (45, 40, 12, 2, 0.3))[0]
        return self.random.randint(low, high)

    def _instants(self) -> list[int]:
        state = self.model.state
        instants = [p["timeoutAt"] for p in state.promises.values() if p["state"] == "pending"]
        for task in state.tasks.values():
            instants += [at for at in (task["expiresAt"], task["retryAt"]) if at is not None]
        return instants + [schedule["nextRunAt"] for schedule in state.schedules.values()]

    def _spoil(self, kind: str, data: JsonObject) -> None:
        fields = REQUIRED.get(kind, ("limit",) if kind.endswith("search") else ("id",))
        if not fields:
            return
        field = self.random.choice(fields)
        if field == "limit":
            data["limit"] = self.random.choice((0, -1, 1_001, "10"))
        elif self._chance(0.3):
            data.pop(field, None)
        else:
            data[field] = self.random.choice(WRONG)
            if (field, data[field]) in MAYBE_RIGHT:
                data[field] = {}

    # What a request names.

    def _id(self, existing: float = 0.75) -> str:
        if self._chance(0.05) and self.model.state.promises:
            return self.random.choice(sorted(self.model.state.promises))
        if self._chance(0.02):
            return self.random.choice(ODD_IDS)
        newest = self.asked % REQUESTS_PER_RESET // REQUESTS_PER_NEW_ID + WINDOW_IDS
        window = [f"p{number}" for number in range(newest - WINDOW_IDS, newest + 1)]
        wanted = self._chance(existing)
        found = [id for id in window if (id in self.model.state.promises) == wanted]
        return self.random.choice(found or window)

    def _one_of(self, ids: list[str], share: float) -> str:
        recent = ids[-WINDOW_IDS:]
        return self.random.choice(recent) if recent and self._chance(share) else self._id()

    def _task(self, *states: str) -> str:
        """Mostly a task in one of the states, as projected."""
        return self._one_of(self._tasks(*states), 0.85)

    def _tasks(self, *states: str) -> list[str]:
        state = self.model.state
        tasks = state.tasks.values()
        return [task["id"] for task in tasks if task_state(state, task, self.now) in states]

    def _awaitable(self) -> str:
        promises = self.model.state.promises.values()
        waiting = [p["id"] for p in promises if p["state"] == "pending" and is_external(p["tags"])]
        return self._one_of(waiting, 0.75)

    def _version(self, id: str) -> int:
        version: int = self.model.state.tasks.get(id, {"version": 1})["version"]
        return version if self._chance(0.88) else self.random.choice((0, 1, version + 1))

    def _pid(self, id: str) -> str:
        pid = self.model.state.tasks.get(id, {"pid": None})["pid"]
        return str(pid) if pid and self._chance(0.85) else self.random.choice(PIDS)

    # What a request carries.

    def _deadline(self) -> int:
        spans = ((1, 100), (500, 5_000), (10_000, 60_000), (120_000, 3_600_000), (-1_000, 0))
        if self._chance(0.15):
            return NEVER
        if self._chance(0.01):
            return 0
        low, high = self.random.choices(spans, (10, 25, 30, 25, 6))[0]
        return self.now + self.random.randint(low, high)

    def _payload(self, data: JsonObject, field: str) -> JsonObject:
        payloads: tuple[JsonObject | None, ...] = (
            None,
            {},
            {"data": "aGVsbG8="},
            {"headers": {"a": "1"}},
            {"headers": {}, "data": "naïve ☃"},
            {"headers": {"a": "1", "b": ""}, "data": str(self.asked)},
        )
        payload = self.random.choice(payloads)
        return data if payload is None else data | {field: payload}

    def _tags(self, deadline: int, targeted: float) -> dict[str, str]:
        tags: dict[str, str] = {}
        if self._chance(targeted):
            tags["resonate:target"] = self.random.choice(TARGETS)
            if self._chance(0.15):
                latest = max(1, min(deadline - 1, self.now + 20_000))
                tags["resonate:delay"] = (
                    str(self.random.randint(self.now - 2_000, latest))
                    if latest > self.now
                    else str(latest)
                )
            if self._chance(0.05):
                tags["resonate:timer"] = "true"
        elif self._chance(0.65):
            name = self.random.choice(("timer", "external"))
            tags[f"resonate:{name}"] = self.random.choices(("true", "false"), (9, 1))[0]
        if self._chance(0.4):
            name = self.random.choice(("parent", "branch", "origin"))
            tags[f"resonate:{name}"] = self._task("acquired", "pending")
        if self._chance(0.3):
            tags["color"] = self.random.choice(("red", "blue"))
        if self._chance(0.04):
            self._spoil_tags(tags, deadline)
        return tags

    def _spoil_tags(self, tags: dict[str, str], deadline: int) -> None:
        match self.random.randrange(5):
            case 0:
                tags["resonate:target"] = self.random.choice(BAD_ADDRESSES)
            case 1:
                tags["resonate:delay"] = str(deadline + self.random.randint(0, 1))
            case 2:
                tags["resonate:delay"] = self.random.choice(("soon", "", "1.5", "-1"))
            case 3:
                tags |= {f"tag{number}": "" for number in range(65)}
            case 4:
                tags["big"] = "x" * 16_385

    # The requests.

    def by_id(self) -> JsonObject:
        return {"id": self._id()}

    def create(self, targeted: float = 0.5) -> JsonObject:
        deadline = self._deadline()
        data: JsonObject = {"id": self._id(0.3), "timeoutAt": deadline}
        tags = self._tags(deadline, targeted)
        if tags or self._chance(0.5):
            data["tags"] = tags
        return self._payload(data, "param")

    def settle(self, id: str | None = None) -> JsonObject:
        states = ("resolved", "rejected", "rejected_canceled", "rejected_timedout", "pending")
        state = self.random.choices(states, (60, 20, 15, 2, 2))[0]
        return self._payload({"id": id or self._awaitable(), "state": state}, "value")

    def callback(self) -> JsonObject:
        awaiter = self._task("pending", "acquired", "suspended", "halted")
        return {"awaited": self._awaitable(), "awaiter": awaiter}

    def listener(self) -> JsonObject:
        addresses = BAD_ADDRESSES if self._chance(0.04) else LISTENERS
        return {"awaited": self._awaitable(), "address": self.random.choice(addresses)}

    def search(self, states: tuple[str, ...], *, tagged: bool) -> JsonObject:
        data: JsonObject = {}
        if states and self._chance(0.5):
            data["state"] = self.random.choice((*states, "bogus") if self._chance(0.1) else states)
        if tagged and self._chance(0.4):
            data["tags"] = {"color": self.random.choice(("red", "blue", "green"))}
        if self._chance(0.6):
            data["limit"] = self.random.choice((1, 2, 3, 7, 50, 1_000))
        return data

    def promise_search(self) -> JsonObject:
        return self.search(("pending", "resolved", "rejected", "rejected_timedout"), tagged=True)

    def task_search(self) -> JsonObject:
        states = ("pending", "acquired", "suspended", "halted", "fulfilled")
        return self.search(states, tagged=False)

    def schedule_search(self) -> JsonObject:
        return self.search((), tagged=True)

    def task_create(self) -> JsonObject:
        action: JsonObject = {"kind": "promise.create", "data": self.create(0.97)}
        if self._chance(0.3):
            action["data"]["id"] = self._task("pending", "suspended", "halted")
        if self._chance(0.5):
            action["head"] = {"corrId": "inner"}
        return self.holder() | {"action": action}

    def holder(self) -> JsonObject:
        ttl = self.random.choices(list(TTLS), list(TTLS.values()))[0]
        return {"pid": self.random.choice(PIDS), "ttl": ttl}

    def lease(self, *states: str) -> JsonObject:
        id = self._task(*(states or ("acquired",)))
        return {"id": id, "version": self._version(id)}

    def acquire(self) -> JsonObject:
        return self.lease("pending") | self.holder()

    def fulfill(self) -> JsonObject:
        data = self.lease()
        id = data["id"] if self._chance(0.97) else self._id()
        return data | {"action": {"kind": "promise.settle", "data": self.settle(id)}}

    def suspend(self) -> JsonObject:
        data = self.lease()
        count = self.random.choices((0, 1, 2, 3), (2, 60, 25, 13))[0]
        awaited = [self._awaitable() for _ in range(count)]
        if self._chance(0.9):
            awaited = [id for id in dict.fromkeys(awaited) if id != data["id"]]
        awaiter = data["id"] if self._chance(0.98) else self._id()
        actions = [
            {"kind": "promise.register_callback", "data": {"awaited": id, "awaiter": awaiter}}
            for id in awaited
        ]
        return data | {"actions": actions}

    def fence(self) -> JsonObject:
        data = self.lease()
        create = self._chance(0.6)
        inner = self.create() if create else self.settle(self._id(0.6))
        kind = "promise.create" if create else "promise.settle"
        if self._chance(0.02):
            kind = "promise.get"
        elif not create and self._chance(0.05):
            inner["state"] = "rejected_timedout"
        head = {"corrId": "inner", "version": "2026-04-01"}
        return data | {"action": {"kind": kind, "head": head, "data": inner}}

    def heartbeat(self) -> JsonObject:
        leases = [self.lease() for _ in range(self.random.choice((0, 1, 1, 2, 5)))]
        return {"pid": self._pid(leases[0]["id"] if leases else ""), "tasks": leases}

    def halt(self) -> JsonObject:
        return {"id": self._task("pending", "acquired", "suspended", "halted")}

    def resume(self) -> JsonObject:
        return {"id": self._task("halted")}

    def schedule_id(self) -> JsonObject:
        return {"id": f"s{self.random.randint(1, 6)}"}

    def schedule_create(self) -> JsonObject:
        crons = BAD_CRONS if self._chance(0.1) else CRONS
        templates = ("{{.id}}.{{.timestamp}}", "{{.id}}-{{.timestamp}}-{{.id}}", "once", "p1")
        data = self.schedule_id() | {
            "cron": self.random.choice(crons),
            "promiseId": self.random.choices(templates, (60, 20, 10, 10))[0],
            "promiseTimeout": self.random.choice((0, 1_000, 30_000, 3_600_000)),
        }
        tags = self._tags(NEVER, 0.5)
        tags.pop("resonate:delay", None)
        data["promiseTags"] = tags
        return self._payload(data, "promiseParam")

    def tick(self) -> JsonObject:
        return {"time": self.now}


_BUILDERS: Final[dict[str, Callable[[Generator], JsonObject]]] = {
    "promise.get": Generator.by_id,
    "promise.create": Generator.create,
    "promise.settle": Generator.settle,
    "promise.register_callback": Generator.callback,
    "promise.register_listener": Generator.listener,
    "promise.search": Generator.promise_search,
    "task.get": Generator.by_id,
    "task.create": Generator.task_create,
    "task.acquire": Generator.acquire,
    "task.release": Generator.lease,
    "task.fulfill": Generator.fulfill,
    "task.suspend": Generator.suspend,
    "task.fence": Generator.fence,
    "task.heartbeat": Generator.heartbeat,
    "task.halt": Generator.halt,
    "task.continue": Generator.resume,
    "task.search": Generator.task_search,
    "schedule.create": Generator.schedule_create,
    "schedule.get": Generator.schedule_id,
    "schedule.delete": Generator.schedule_id,
    "schedule.search": Generator.schedule_search,
    "debug.tick": Generator.tick,
}


def envelope(request: JsonObject, now: int | None, number: int) -> JsonObject:
    """A request as it travels, with `now` (ms) as its debug time."""
    head: JsonObject = {"corrId": str(number), "version": "2026-04-01"}
    if now is not None:
        head["resonate:debug_time"] = now
    # A copy, so that nothing that happens later changes what was asked.
    data = json.loads(json.dumps(request["data"]))
    return {"kind": request["kind"], "head": head, "data": data}
