"""The model itself: one envelope in, one answer out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Final

from kept.check.model import background, promises, schedules, tasks
from kept.check.model import validation as v
from kept.check.model.state import JsonObject, Refused, State

VERSION: Final = "2026-04-01"

Answer = tuple[int, Any]
Handler = Callable[[State, JsonObject, int], JsonObject | tuple[int, JsonObject]]

HANDLERS: Final[dict[str, Handler]] = {
    "promise.get": promises.promise_get,
    "promise.create": promises.promise_create,
    "promise.settle": promises.promise_settle,
    "promise.register_callback": promises.promise_register_callback,
    "promise.register_listener": promises.promise_register_listener,
    "promise.search": promises.promise_search,
    "task.get": tasks.task_get,
    "task.create": tasks.task_create,
    "task.acquire": tasks.task_acquire,
    "task.release": tasks.task_release,
    "task.fulfill": tasks.task_fulfill,
    "task.suspend": tasks.task_suspend,
    "task.fence": tasks.task_fence,
    "task.heartbeat": tasks.task_heartbeat,
    "task.halt": tasks.task_halt,
    "task.continue": tasks.task_continue,
    "task.search": tasks.task_search,
    "schedule.create": schedules.schedule_create,
    "schedule.get": schedules.schedule_get,
    "schedule.delete": schedules.schedule_delete,
    "schedule.search": schedules.schedule_search,
}
DEBUG_KINDS: Final = ("debug.start", "debug.stop", "debug.reset", "debug.snap", "debug.tick")


class Model:
    """A server of the base protocol as the text has it; `debug` says whether `debug.*` is on."""

    def __init__(self, *, debug: bool = True) -> None:
        self.debug = debug
        self.state = State()

    def receive(self, envelope: JsonObject) -> Answer:
        """The status and data of the answer to an envelope; its debug time is the clock (A1)."""
        head = envelope.get("head")
        kind = envelope.get("kind")
        sound = isinstance(head, dict) and isinstance(kind, str) and kind != ""
        if not sound or not isinstance(envelope.get("data"), dict):
            return 400, "envelope"
        assert isinstance(head, dict)
        if head.get("version") != VERSION:
            return 400, f"version: supported is {VERSION}"
        if kind not in HANDLERS and kind not in DEBUG_KINDS:
            return 400, "kind: unknown"
        debug_time = head.get("resonate:debug_time")
        now = envelope["data"].get("time", 0) if debug_time is None else debug_time
        return self.answer(kind, envelope["data"], now, debug_time)

    def answer(
        self, kind: str, data: JsonObject, now: int, debug_time: int | None = None
    ) -> Answer:
        """The status and data of the answer to a request at `now` (ms)."""
        try:
            if kind in DEBUG_KINDS:
                return self._debug(kind, data, now, debug_time)
            answer = HANDLERS[kind](self.state, data, now)
        except Refused as refusal:
            return refusal.status, refusal.text
        status, result = answer if isinstance(answer, tuple) else (200, answer)
        return status, copy.deepcopy(result)

    def overdue_edges(self, now: int) -> bool:
        """Whether a store that stores what it shows may differ from the model now (reading 18)."""
        return background.overdue_edges(self.state, now)

    def _debug(self, kind: str, data: JsonObject, now: int, debug_time: int | None) -> Answer:
        if not self.debug:
            raise Refused(403, "debug is off")
        match kind:
            case "debug.reset":
                self.state = State()
            case "debug.snap":
                return 200, copy.deepcopy(background.snapshot(self.state, now))
            case "debug.tick":
                v.check_whole(data, "time", 0)
                v.demand(debug_time in (None, data["time"]), "time: differs from the debug time")
                background.tick(self.state, data["time"])
                return 200, []
        return 200, {}
