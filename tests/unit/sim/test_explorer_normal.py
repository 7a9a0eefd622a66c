"""The normal form loses nothing: what the explorer sees is what happens with true versions,
instants and request ids."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

import pytest
from msgspec.structs import replace

from kept.machine import background as b
from kept.machine.cancellation import cancel_key
from kept.machine.step import MachineConfig
from kept.protocol import requests as r
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import MessageKey
from kept.protocol.responses import AcquiredTask, ClaimResult, Response
from kept.protocol.storage import Dump
from kept.sim.explorer.moves import Move, Moves, Situation
from kept.sim.explorer.normal import FORGOTTEN, fingerprint, normal
from kept.sim.explorer.programs import (
    END_CANCELED,
    GRACE_MS,
    HELD,
    NOW_MS,
    OPERATION,
    OPERATION_NAMES,
    TICK_MS,
)
from kept.sim.explorer.worlds import LISTENER, WORLDS, World
from tests.unit.machine.world import World as Records

STEPS: Final[dict[str, Callable[[str], b.InternalStep]]] = {
    "timeout": b.TimeoutPromise,
    "expire": b.ExpireLease,
    "dispatch": b.RetryTask,
    "ready": b.ReadyTask,
    "cancel further": lambda id: b.LookAtEntry(cancel_key(id)),
}
WALKS: Final = 30
# Most walks cancel the work before anybody has begun it.
WALKS_OF_CANCEL: Final = 600
MOVES_PER_WALK: Final = 80


def without_requests(dump: Dump) -> bytes:
    """A fingerprint in which the ids of requests, which differ, do not count."""
    tasks = {
        id: replace(task, last_request=FORGOTTEN, last_answer=None)
        for id, task in dump.tasks.items()
    }
    return fingerprint(replace(dump, tasks=tasks))


def has_ties(dump: Dump) -> bool:
    """Whether tasks became due at one instant: the normal form has one of their orders, in truth
    the one that was born first is first."""
    ranks = [t.rank for t in dump.tasks.values() if t.queue is not None and t.retry_at is not None]
    return len(set(ranks)) < len(ranks)


class TrueRun:
    """The same moves over tables, with the versions, instants and ids that a real run has."""

    def __init__(self, world: World, moves: Moves) -> None:
        self.world = world
        self.moves = moves
        self.records = Records(
            MachineConfig(retry_timeout_ms=TICK_MS, cancel_grace_ms=GRACE_MS, retention_ms=None)
        )
        self.records.now = NOW_MS
        self.versions = [0] * world.workers
        # Of each slot: the version and the request's id with which it was sent.
        self.sent: dict[int, tuple[int, str]] = {}
        self.requests = 0

    @property
    def passed_ms(self) -> int:
        return self.records.now - NOW_MS

    def take(self, move: Move, s: Situation, after: Situation) -> None:
        name = move.name.removeprefix("late ").removeprefix("stale ").removeprefix("repeated ")
        if name in STEPS:
            self.records.fire(STEPS[name](move.id))
        elif name == "tick":
            self.records.pass_time(int(move.outcome))
        elif name in ("deliver", "deliver twice", "lose", "unblock"):
            self._send(move, name)
        elif name == "hang":
            number = self.moves.local(after.workers[move.worker - 1]).slot
            self.requests += 1
            self.sent[number] = (self.versions[move.worker - 1], f"hung-{self.requests}")
        elif move.worker:
            self._ask(move, name, s, after)
        elif name != "lose":
            index = (s.done ^ after.done).bit_length() - 1
            response = self.records.ask(self._moved(self.world.client[index].request()))
            assert str(response.status) == move.outcome

    def _send(self, move: Move, name: str) -> None:
        unblocks = name == "unblock"
        key = MessageKey.unblock(move.id, LISTENER) if unblocks else MessageKey.execute(move.id)
        version = self.records.dump.outbox[key].version
        self.records.fire(b.TakeMessage(key, self.records.now + TICK_MS))
        if name != "deliver twice":
            self.records.fire(b.DeliveredMessage(key, version))
        if move.worker:
            self.versions[move.worker - 1] = version

    def _ask(self, move: Move, name: str, s: Situation, after: Situation) -> None:
        if name == "crash":
            return
        worker = move.worker - 1
        is_late = move.name.startswith("late ")
        number = (set(s.flights) - set(after.flights)).pop()[2] if is_late else s.workers[worker]
        if is_late and len(s.flights) > 1:
            number = self._arrived(move, s, after)
        local = self.moves.local(number)
        kind = OPERATION if name in (*OPERATION_NAMES.values(), END_CANCELED) else name
        self.requests += 1
        version, request_id = self.versions[worker], f"once-{self.requests}"
        if local.slot and kind != "heartbeat":
            version, request_id = self.sent[local.slot]
        request = self._moved(self.moves.work.request(f"w{move.worker}", local, kind))
        response = self.records.ask(_at(request, version), request_id=request_id)
        assert str(response.status) == move.outcome, (move, response)
        if not is_late and self.moves.local(after.workers[worker]).phase == HELD:
            self.versions[worker] = _version(response, self.versions[worker])

    def _arrived(self, move: Move, s: Situation, after: Situation) -> int:
        left = {slot for slot, _, _ in after.flights}
        return next(n for slot, w, n in s.flights if slot not in left and w == move.worker - 1)

    def _moved(self, request: r.Request) -> r.Request:
        """Deadlines are told from now."""
        if isinstance(request, r.PromiseCreate) and request.timeout_at != NEVER_MS:
            return replace(request, timeout_at=request.timeout_at + self.passed_ms)
        if isinstance(request, r.TaskRecordStep):
            return replace(request, step=self._moved(request.step))
        if isinstance(request, r.TaskFence | r.TaskCreate):
            return replace(
                request, action=replace(request.action, data=self._moved(request.action.data))
            )
        return request


def _at(request: r.Request, version: int) -> r.Request:
    if isinstance(request, r.TaskHeartbeat):
        return replace(request, tasks=[r.TaskRef(each.id, version) for each in request.tasks])
    return replace(request, version=version) if hasattr(request, "version") else request


def _version(response: Response, otherwise: int) -> int:
    if isinstance(response.data, ClaimResult):
        return response.data.tasks[0].task.version
    return response.data.task.version if isinstance(response.data, AcquiredTask) else otherwise


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_a_run_in_normal_form_is_a_true_run(world: World) -> None:
    """Random runs, taken both ways: every answer is the same, and so are the records after every
    move, once they are brought into normal form."""
    highest = 0
    for seed in range(WALKS_OF_CANCEL if world.name == "cancel" else WALKS):
        chance = random.Random(seed)
        moves = Moves(world)
        run, s = TrueRun(world, moves), moves.start()
        for _ in range(MOVES_PER_WALK):
            possible = list(moves.all_from(s))
            if not possible:
                break
            move, after = chance.choice(possible)
            run.take(move, s, after)
            seen = moves.databases.dump(after.database)
            true = normal(run.records.dump, run.passed_ms)
            if has_ties(true):
                break
            assert without_requests(true) == without_requests(seen), (seed, move)
            s = after
        highest = max([highest, *(task.version for task in run.records.dump.tasks.values())])
    # Where versions never rise the two forms are one. Deadlines end some worlds before that.
    assert highest >= (1 if world.name in ("timer", "deadline") else 2)
