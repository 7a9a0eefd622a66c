"""Everything that can happen next in a state of a world: the moves, each with where it leads.

A request is delivered and answered in one move, because what happens in between is seen by nobody.
What a network does to it besides is told by one move more: the request *hangs*. Its sender waits, and
may ask again under the same id, or crash; the request itself arrives at any time, its answer is
lost. That is a lost request, a lost answer, a duplicate and a late arrival, in every order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple, TypeAlias

from kept.machine import background as b
from kept.protocol.records import MessageKey
from kept.protocol.responses import Response
from kept.sim.explorer.database import Databases, Taken, executes, unblocks
from kept.sim.explorer.normal import ONCE, normal_version
from kept.sim.explorer.programs import (
    ACQUIRE,
    CLAIM,
    HEARTBEAT,
    HELD,
    IDLE,
    NACK,
    NOW_MS,
    OPERATION,
    RELEASE,
    START,
    TICK_MS,
    TOLD,
    Local,
)
from kept.sim.explorer.watch import ONE_HOLDER, Broken
from kept.sim.explorer.worlds import World

# What is never owed to anybody: faults, and what workers may do but need not. Once they did it, they
# do it again until they have an answer.
UNFAIR: Final = frozenset({"crash", "hang", "lose", "deliver twice", NACK, RELEASE, HEARTBEAT})

_STEP_NAMES: Final[dict[type, str]] = {
    b.TimeoutPromise: "timeout",
    b.ExpireLease: "expire",
    b.RetryTask: "dispatch",
    b.ReadyTask: "ready",
    b.LookAtEntry: "cancel further",
}


class Move(NamedTuple):
    """One move: what happened, to which promise, who did it (0: no worker), and how it was answered."""

    name: str
    id: str
    worker: int = 0
    outcome: str = ""


# A request that hangs: its slot, its sender, and the number of the sender's `Local` as it sent it.
Flight: TypeAlias = tuple[int, int, int]


class Situation(NamedTuple):
    """A state of a world. `workers` are numbers of `Local`s; `done` are bits, of what the client did;
    the faults are those still to come."""

    database: int
    workers: tuple[int, ...]
    flights: tuple[Flight, ...]
    done: int
    crashes: int
    hangs: int
    losses: int


class _Answer(NamedTuple):
    move: Move
    database: int
    local: int
    versions: tuple[tuple[str, int], ...]


class Moves:
    """The moves of one world, and what it takes to remember them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.work = world.work
        slots = range(1, world.hangs + 1)
        self._request_ids = [ONCE, *(f"h{slot}" for slot in slots)]
        self.databases = Databases(world.ids, self._request_ids[1:], world.queue)
        self._locals: list[Local] = []
        self._local_numbers: dict[Local, int] = {}
        # Of each `Local`, the bit of the slot under whose request id it may ask again.
        self._slot_bits: list[int] = []
        self._answers: dict[tuple[int, int, int, str], _Answer] = {}
        self._fired: dict[tuple[int, b.InternalStep], tuple[Move, Taken]] = {}
        self._sent: dict[tuple[int, MessageKey, bool], int] = {}
        self._executes: dict[int, list[tuple[str, int]]] = {}
        self._client: dict[tuple[int, int], tuple[Move, Taken] | None] = {}
        self.idle = self.number(IDLE)
        # What was tried last, for whoever tells what broke.
        self.attempt = Move("begin", "")

    def start(self) -> Situation:
        """Where every run begins: nothing exists, nobody knows anything."""
        world = self.world
        idle = (self.idle,) * world.workers
        return Situation(0, idle, (), 0, world.crashes, world.hangs, world.losses)

    def number(self, local: Local) -> int:
        number = self._local_numbers.get(local)
        if number is None:
            number = self._local_numbers[local] = len(self._locals)
            self._locals.append(local)
            self._slot_bits.append(1 << local.slot if local.slot else 0)
        return number

    def local(self, number: int) -> Local:
        return self._locals[number]

    def all_from(self, s: Situation) -> Iterator[tuple[Move, Situation]]:
        """Every move that is possible, with the state that it leads to. Raises `Broken`."""
        yield from self._of_client(s)
        yield from self._of_engine(s)
        yield from self._of_messages(s)
        for worker in range(len(s.workers)):
            yield from self._of_worker(s, worker)
        yield from self._of_flights(s)

    # -- the client and the engine ---------------------------------------------------------------

    def _of_client(self, s: Situation) -> Iterator[tuple[Move, Situation]]:
        for index, request in enumerate(self.world.client):
            bit = 1 << index
            if s.done & bit:
                continue
            key = (s.database, index)
            if key not in self._client:
                self._client[key] = None
                if request.is_enabled(self.databases.dump(s.database)):
                    name = type(request).__name__.lower()
                    self.attempt = Move(name, request.id)
                    taken = self.databases.ask(s.database, request.request())
                    self._client[key] = (Move(name, request.id, 0, _status(taken)), taken)
            found = self._client[key]
            if found is not None:
                yield found[0], self._after(s._replace(done=s.done | bit), found[1])

    def _of_engine(self, s: Situation) -> Iterator[tuple[Move, Situation]]:
        self.attempt = Move("early", "")
        for step in self.databases.due(s.database):
            key = (s.database, step)
            found = self._fired.get(key)
            if found is None:
                assert not isinstance(
                    step,
                    b.TakeMessage
                    | b.DeliveredMessage
                    | b.FailedMessage
                    | b.LeaveLine
                    | b.BulkPart
                    | b.LeaveTree,
                )
                id = step.key.name if isinstance(step, b.LookAtEntry) else step.id
                move = self.attempt = Move(_STEP_NAMES[type(step)], id)
                found = self._fired[key] = (move, self.databases.fire(s.database, step))
            yield found[0], self._after(s, found[1])
        self.attempt = Move("tick", "")
        later = self.databases.later(s.database)
        if later is not None:
            yield Move("tick", "", 0, str(later[0])), s._replace(database=later[1])

    def _of_messages(self, s: Situation) -> Iterator[tuple[Move, Situation]]:
        due = self._executes.get(s.database)
        if due is None:
            due = self._executes[s.database] = executes(self.databases.dump(s.database))
        for id, version in due:
            key = MessageKey.execute(id)
            told = self.number(Local(TOLD, id, version))
            sent = self._send(s.database, key, version, delivered=True)
            for worker, local in enumerate(s.workers):
                if local != self.idle:
                    continue
                workers = (*s.workers[:worker], told, *s.workers[worker + 1 :])
                yield Move("deliver", id, worker + 1), s._replace(database=sent, workers=workers)
                if s.losses:
                    again = self._send(s.database, key, version, delivered=False)
                    after = s._replace(database=again, workers=workers, losses=s.losses - 1)
                    yield Move("deliver twice", id, worker + 1), after
            if s.losses:
                yield Move("lose", id), s._replace(database=sent, losses=s.losses - 1)
        for key in unblocks(self.databases.dump(s.database)) if self._has_listeners else ():
            sent = self._send(s.database, key, 0, delivered=True)
            yield Move("unblock", key.id), s._replace(database=sent)

    @property
    def _has_listeners(self) -> bool:
        return any(type(request).__name__ == "Listen" for request in self.world.client)

    def _send(self, database: int, key: MessageKey, version: int, *, delivered: bool) -> int:
        found = self._sent.get((database, key, delivered))
        if found is None:
            self.attempt = Move("deliver", key.id)
            found = self.databases.fire(database, b.TakeMessage(key, NOW_MS + TICK_MS)).database
            if delivered:
                found = self.databases.fire(found, b.DeliveredMessage(key, version)).database
            self._sent[database, key, delivered] = found
        return found

    # -- the workers -----------------------------------------------------------------------------

    def _of_worker(self, s: Situation, worker: int) -> Iterator[tuple[Move, Situation]]:
        number = s.workers[worker]
        local = self._locals[number]
        # Whoever waits for an answer asks the same again, and may still send heartbeats.
        kinds = [local.asks] if local.slot else self._kinds(local)
        for kind in kinds:
            yield from self._asked(s, worker, number, kind)
            if s.hangs and not local.slot and kind != HEARTBEAT:
                yield self._hang(s, worker, local, kind)
        if local.slot and local.phase == HELD and self.world.heartbeats:
            yield from self._asked(s, worker, number, HEARTBEAT)
        if s.crashes and number != self.idle:
            crashed = self._with_local(s, worker, self.idle)._replace(crashes=s.crashes - 1)
            yield Move("crash", local.task, worker + 1), self._forget(s, crashed)

    def _kinds(self, local: Local) -> list[str]:
        world = self.world
        if local.phase == TOLD:
            return [ACQUIRE]
        if local.phase == HELD:
            kinds = [OPERATION]
            kinds += [NACK] if world.nacks else []
            kinds += [RELEASE] if world.releases else []
            return kinds + ([HEARTBEAT] if world.heartbeats else [])
        kinds = [CLAIM] if world.queue is not None else []
        return kinds + ([START] if world.started is not None else [])

    def _asked(
        self, s: Situation, worker: int, number: int, kind: str
    ) -> Iterator[tuple[Move, Situation]]:
        answer = self._answer(s.database, worker, number, kind)
        if answer.local == number and answer.database == s.database:
            return
        after = self._renamed(s, answer.database, answer.versions)
        after = self._with_local(after, worker, answer.local)
        self._check_holder(after, worker, answer.move)
        yield answer.move, self._forget(s, after)

    def _answer(self, database: int, worker: int, number: int, kind: str) -> _Answer:
        """What becomes of a request that the worker of this `Local` makes; the machine is asked once."""
        key = (database, worker, number, kind)
        found = self._answers.get(key)
        if found is not None:
            return found
        local, work = self._locals[number], self.work
        slot = 0 if kind == HEARTBEAT else local.slot
        name = f"{'repeated ' if slot else ''}{work.name(local, kind)}"
        name = f"{'stale ' if self._is_stale(database, local) else ''}{name}"
        self.attempt = Move(name, local.task, worker + 1)
        request = work.request(f"w{worker + 1}", local, kind)
        taken = self.databases.ask(database, request, self._request_ids[slot])
        assert taken.response is not None
        after = work.after(local, kind, taken.response)
        if after.phase == HELD and after is not local:
            task = dict(taken.versions).get(after.task)
            if task is not None:
                after = after._replace(version=normal_version(after.version, task))
        move = Move(name, local.task or after.task, worker + 1, _status(taken))
        found = _Answer(move, taken.database, self.number(after), taken.versions)
        self._answers[key] = found
        return found

    def _is_stale(self, database: int, local: Local) -> bool:
        task = self.databases.dump(database).tasks.get(local.task)
        if local.phase != HELD or task is None:
            return False
        return task.version != local.version or task.state != "acquired"

    def _check_holder(self, s: Situation, worker: int, move: Move) -> None:
        """Nobody else believes to hold what this worker holds, at the same version."""
        mine = self._locals[s.workers[worker]]
        if mine.phase != HELD:
            return
        for other, number in enumerate(s.workers):
            their = self._locals[number]
            same = their.phase == HELD and their.task == mine.task
            if other != worker and same and their.version == mine.version == 1:
                self.attempt = move
                raise Broken(ONE_HOLDER, f"w{worker + 1} and w{other + 1} hold {mine.task}")

    # -- the network -----------------------------------------------------------------------------

    def _hang(self, s: Situation, worker: int, local: Local, kind: str) -> tuple[Move, Situation]:
        taken = self._slots(s)
        slot = next(n for n in range(1, self.world.hangs + 1) if not taken >> n & 1)
        waiting = self.number(local._replace(slot=slot, asks=kind))
        flights = tuple(sorted((*s.flights, (slot, worker, waiting))))
        after = self._with_local(s, worker, waiting)._replace(flights=flights, hangs=s.hangs - 1)
        return Move("hang", local.task, worker + 1, self.work.name(local, kind)), after

    def _of_flights(self, s: Situation) -> Iterator[tuple[Move, Situation]]:
        for flight in s.flights:
            _, worker, number = flight
            answer = self._answer(s.database, worker, number, self._locals[number].asks)
            left = tuple(each for each in s.flights if each != flight)
            after = self._renamed(s._replace(flights=left), answer.database, answer.versions)
            name = f"late {answer.move.name.replace('repeated ', '')}"
            yield answer.move._replace(name=name), self._forget(s, after)

    def _forget(self, before: Situation, after: Situation) -> Situation:
        """Request ids under which nobody will ask again are forgotten by the records too."""
        if before.hangs == self.world.hangs:
            return after
        gone = self._slots(before) & ~self._slots(after)
        for slot in range(1, self.world.hangs + 1) if gone else ():
            if gone >> slot & 1:
                database = self.databases.forget(after.database, self._request_ids[slot])
                after = after._replace(database=database)
        return after

    def _slots(self, s: Situation) -> int:
        """The bits of the slots under whose request ids somebody may ask again."""
        found = 0
        for slot, _, _ in s.flights:
            found |= 1 << slot
        for number in s.workers:
            found |= self._slot_bits[number]
        return found

    # -- states ----------------------------------------------------------------------------------
    # Most of the time goes into making them, and `_replace` takes four times as long as this.

    def _with_local(self, s: Situation, worker: int, number: int) -> Situation:
        workers = s.workers
        if workers[worker] == number:
            return s
        workers = (*workers[:worker], number, *workers[worker + 1 :])
        return Situation(s.database, workers, s.flights, s.done, s.crashes, s.hangs, s.losses)

    def _after(self, s: Situation, taken: Taken) -> Situation:
        return self._renamed(s, taken.database, taken.versions)

    def _renamed(
        self, s: Situation, database: int, versions: tuple[tuple[str, int], ...]
    ) -> Situation:
        """The state in which those who know a version of a task know its normal form."""
        workers, flights = s.workers, s.flights
        for id, current in versions:
            workers = tuple(self._renamed_local(each, id, current) for each in workers)
            flights = tuple(
                (n, w, self._renamed_local(each, id, current)) for n, w, each in flights
            )
        return Situation(database, workers, flights, s.done, s.crashes, s.hangs, s.losses)

    def _renamed_local(self, number: int, id: str, current: int) -> int:
        local = self._locals[number]
        if local.task != id:
            return number
        version = normal_version(local.version, current)
        return number if version == local.version else self.number(local._replace(version=version))


def _status(taken: Taken) -> str:
    response: Response | None = taken.response
    return "" if response is None else str(response.status)
