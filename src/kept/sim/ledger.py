"""What clients and workers were told, held against what they are told later, and against the store.

These oracles know nothing of the machine: they look at answers, as a user would.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from kept.client.connection import Connection
from kept.errors import ConnectionFailedError
from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.addresses import queue_of
from kept.protocol.records import Promise, PromiseRecord, PromiseState, TaskState, Value
from kept.protocol.responses import (
    INTERNAL,
    AcquiredTask,
    ClaimResult,
    FenceResult,
    PreloadResult,
    PromiseResult,
    Response,
)
from kept.protocol.storage import Dump
from kept.sim.breakage import Broken
from kept.sim.drawn_keys import overlapping
from kept.sim.process import Process, current_owner
from kept.sim.trace import BROKEN, Trace

if TYPE_CHECKING:
    from kept.sim.witness import Witness

NONDETERMINISTIC: Final = "nondeterministic"
UNREGISTERED: Final = "unregistered"
CLAIMED: Final = "claims bring what they ask for"
_UNDER_LEASE: Final = (
    r.TaskFulfill,
    r.TaskSuspend,
    r.TaskFence,
    r.TaskRecordStep,
    r.TaskRelease,
    r.TaskNack,
)


class Verdict(NamedTuple):
    """How a promise was settled."""

    state: PromiseState
    value: Value
    settled_at: int | None


class _Created(NamedTuple):
    """What is known of a promise since its first answer: when it was born, its tree, its queue."""

    created_at: int
    origin: str
    queue: str | None


class Ledger:
    """Everything that was acknowledged. It raises nothing itself, because what it would raise would
    reach the code under test: the first thing broken waits in `broken`."""

    def __init__(self, trace: Trace) -> None:
        self.broken: Broken | None = None
        # Who else hears every question and answer.
        self.witness: Witness | None = None
        # How often each (kind, status) was answered.
        self.answers: Counter[tuple[str, int]] = Counter()
        self.succeeded: Counter[str] = Counter()
        # Refusals that were asked for, by kind and status.
        self.provoked: Counter[tuple[str, int]] = Counter()
        self.checked = 0
        self._trace = trace
        # Each question and each answer has a number, so that before and after are known.
        self._clock = 0
        self._created: dict[str, _Created] = {}
        # The latest settlement (ms) of each tree, by origin.
        self._latest: dict[str, int] = {}
        # The shortest retention (ms) that anybody asked for a queue.
        self._retentions: dict[str, int] = {}
        self._settled: dict[str, tuple[Verdict, int]] = {}
        # Workers that were told to stop: their claims are given up, and asked again to learn what
        # they got; what one gets after that, before its server knows, is left to expire.
        self.leaving: dict[str, None] = {}
        # Workers of which a claim ended in a fault of the server: what it got, they never know.
        self.unheard: dict[str, None] = {}
        # Leases whose holder wanted to hand them back and reached nobody, or never knew of.
        self.unreleased: dict[tuple[str, int], None] = {}
        # Who got a task under a version, and the latest version of each, with when it was known.
        self._holders: dict[tuple[str, int], str] = {}
        self._versions: dict[str, list[tuple[int, int]]] = {}

    def asked(self) -> int:
        """The number of a question that is asked now."""
        self._clock += 1
        return self._clock

    def answered(self, asked: int, who: Process, request: r.Request, response: Response) -> None:
        """Takes an answer down and compares it with what is known."""
        self._clock += 1
        self.answers[request.kind, response.status] += 1
        self._trace.note("answer", who.name, f"{request.kind} {response.status}")
        if not response.ok:
            return
        self.succeeded[request.kind] += 1
        data = response.data
        if isinstance(data, PromiseResult):
            self._promise(data.promise, asked)
        elif isinstance(data, FenceResult):
            if isinstance(data.action.data, PromiseResult):
                self._promise(data.action.data.promise, asked)
        elif isinstance(data, PreloadResult):
            for record in data.preload:
                self._promise(record, asked)
        elif isinstance(data, ClaimResult):
            for acquired in data.tasks:
                self._acquired(acquired, request, asked)
        elif isinstance(data, AcquiredTask):
            self._acquired(data, request, asked)
        self._under_a_lease(asked, who, request)

    def shown(self, record: PromiseRecord) -> None:
        """A settled record that a page showed."""
        self._promise(record, self._clock)

    def retained(self, request: r.Request) -> None:
        """Somebody says how long what has settled stays, whether or not that arrives (B6)."""
        if isinstance(request, r.QueuePut) and isinstance(request.retention, int):
            known = self._retentions.get(request.name, request.retention)
            self._retentions[request.name] = min(known, request.retention)

    def _may_be_gone(self, id: str, now: int) -> bool:
        """Whether a promise may have left by `now` (ms): its root's queue lets things go, and no
        settlement of its tree that anybody was told is younger than that."""
        known = self._created.get(id)
        root = self._created.get(known.origin) if known is not None else None
        retention = self._retentions.get(root.queue or "") if root is not None else None
        if known is None or root is None or retention is None:
            return False
        if root.created_at > known.created_at:
            # Its root was born again, and roots leave last.
            return True
        # To the millisecond nobody outside knows when it was stored.
        latest = self._latest.get(known.origin, 0)
        return latest + retention <= now

    def _is_born_again(self, record: PromiseRecord) -> bool:
        """Whether a record is of another promise than the one that was known under its id."""
        known = self._created.get(record.id)
        if known is None or known.created_at == record.created_at:
            return False
        if not self._may_be_gone(record.id, record.created_at):
            why = f"{record.id}: born at {known.created_at}, then at {record.created_at}"
            self.break_off("nothing acknowledged is lost", why)
        return True

    def _forget(self, id: str) -> None:
        self._created.pop(id, None)
        # Where it is a root: what is told of its tree from here on is of another one.
        self._latest.pop(id, None)
        self._settled.pop(id, None)
        self._versions.pop(id, None)
        for key in [key for key in self._holders if key[0] == id]:
            del self._holders[key]

    def nacked(self, request: r.Request) -> None:
        """A worker gives up a workflow whose replay took another way: the programs here do not."""
        if isinstance(request, r.TaskNack) and request.reason == NONDETERMINISTIC:
            why = request.error.data if request.error else ""
            self.break_off("replays are deterministic", f"{request.id}: {why}")
        if isinstance(request, r.TaskNack) and request.reason == UNREGISTERED:
            self.break_off(CLAIMED, f"{request.id} went to a worker that does not know it")

    def _promise(self, record: PromiseRecord, asked: int) -> None:
        self.checked += 1
        known_birth = self._created.get(record.id)
        if known_birth is not None and record.created_at < known_birth.created_at:
            # A late answer, of one that has left since.
            return
        if self._is_born_again(record):
            self._forget(record.id)
        if record.id not in self._created:
            target = record.tags.get(tag.TARGET)
            origin = record.tags.get(tag.ORIGIN, record.id)
            queue = queue_of(target) if target is not None else None
            self._created[record.id] = _Created(record.created_at, origin, queue)
        known = self._settled.get(record.id)
        if record.settled_at is not None:
            origin = self._created[record.id].origin
            self._latest[origin] = max(self._latest.get(origin, 0), record.settled_at)
        if tag.LEFT_HEADER in (record.value.headers or {}):
            # Of what has left, only the verdict is known.
            if known is not None and (known[0].state, known[0].settled_at) != (
                record.state,
                record.settled_at,
            ):
                self.break_off("settled once", f"{record.id}: first {known[0]}, then {record}")
            return
        if record.state is PromiseState.PENDING:
            if known is not None and known[1] < asked:
                self.break_off("settled stays settled", f"{record.id} is pending after {known[0]}")
            return
        verdict = Verdict(record.state, record.value.normal(), record.settled_at)
        if known is None:
            self._settled[record.id] = (verdict, self._clock)
        elif known[0] != verdict:
            self.break_off("settled once", f"{record.id}: first {known[0]}, then {verdict}")

    def _acquired(self, acquired: AcquiredTask, request: r.Request, asked: int) -> None:
        self._promise(acquired.promise, asked)
        task = acquired.task
        if task.state is not TaskState.ACQUIRED:
            return
        pid = getattr(request, "pid", "")
        self.checked += 1
        wanted = request.functions if isinstance(request, r.TaskClaim) else None
        function = acquired.promise.tags.get(tag.FUNCTION)
        if wanted is not None and function not in wanted:
            self.break_off(CLAIMED, f"{task.id} is of {function}, and went to {pid}")
        holder = self._holders.setdefault((task.id, task.version), pid)
        if holder != pid:
            why = f"{task.id} at version {task.version} went to {holder} and to {pid}"
            self.break_off("one holder", why)
        self._versions.setdefault(task.id, []).append((task.version, self._clock))

    def _under_a_lease(self, asked: int, who: Process, request: r.Request) -> None:
        """A request under an old version succeeded although a newer one was known before."""
        if not isinstance(request, _UNDER_LEASE):
            return
        self.checked += 1
        for version, known in self._versions.get(request.id, ()):
            if version > request.version and known < asked:
                why = f"{request.kind} of {request.id} at {request.version} by {who.name}"
                self.break_off("stale holders are refused", f"{why}, after {version} was held")

    def break_off(self, oracle: str, why: str) -> None:
        """Something is broken; the first is kept."""
        if self.broken is None:
            self.broken = Broken(oracle, why)
            owner = current_owner()
            self._trace.note(BROKEN, owner.name if owner else "world", str(self.broken))

    def _is_another(self, id: str, promise: Promise | None) -> bool:
        return promise is None or promise.created_at > self._created[id].created_at

    def compare(self, dump: Dump, now: int) -> None:
        """Everything acknowledged is in the store, but what may have left by `now` (ms), and no two
        promises had one key at one time."""
        for why in overlapping(dump.promises.values()):
            self.break_off("one promise for a key", why)
        for id in self._created:
            if id not in dump.promises and not self._may_be_gone(id, now):
                self.break_off("nothing acknowledged is lost", f"{id} is gone")
        for id, (verdict, _) in self._settled.items():
            promise = dump.promises.get(id)
            if self._may_be_gone(id, now) and self._is_another(id, promise):
                continue
            if promise is None or promise.pending:
                # Of one that is not external a passed deadline is projected, never stored (A3).
                if promise is None or verdict.state is not PromiseState.REJECTED_TIMEDOUT:
                    self.break_off("nothing acknowledged is lost", f"{id} is not {verdict}")
                continue
            stored = Verdict(promise.state, promise.value.normal(), promise.settled_at)
            if stored != verdict:
                self.break_off("settled once", f"{id}: told {verdict}, stored {stored}")


class ObservedConnection:
    """A `Connection` whose answers are taken down."""

    def __init__(self, inner: Connection, ledger: Ledger, process: Process) -> None:
        self._inner = inner
        self._ledger = ledger
        self._process = process

    async def send(self, request: r.Request, *, request_id: str | None = None) -> Response:
        self._ledger.nacked(request)
        self._ledger.retained(request)
        asked, witness = self._ledger.asked(), self._ledger.witness
        asked_at = witness.asked(request) if witness is not None else 0.0
        try:
            response = await self._inner.send(request, request_id=request_id)
        except ConnectionFailedError:
            if isinstance(request, r.TaskRelease):
                self._ledger.unreleased[request.id, request.version] = None
            raise
        if isinstance(request, r.TaskClaim) and response.status == INTERNAL:
            self._ledger.unheard[request.pid] = None
        self._ledger.answered(asked, self._process, request, response)
        if witness is not None:
            witness.answered(self._process, request, response, asked_at)
        return response

    async def close(self) -> None:
        await self._inner.close()


class Boundary:
    """The world outside, where effects happen, once for each key that they name."""

    def __init__(self, ledger: Ledger, now: Callable[[], float]) -> None:
        self._ledger = ledger
        self._now = now
        # The virtual instants (s) of all tries that may fail.
        self.attempted_at: dict[str, list[float]] = {}
        self._effects: dict[str, str] = {}
        self.tries: Counter[str] = Counter()
        self.attempts: Counter[str] = Counter()
        self._repaired: dict[str, None] = {}

    def apply(self, key: str, text: str) -> None:
        """An effect with an idempotency key; the same key must always mean the same."""
        self.tries[key] += 1
        if self._ledger.witness is not None:
            self._ledger.witness.effect(key)
        first = self._effects.setdefault(key, text)
        if first != text:
            self._ledger.break_off("effects are the same", f"{key}: first {first}, then {text}")

    def attempt(self, key: str, most: int = 1) -> int:
        """Counts a try that may fail; how many there were, with this one. `most` are allowed under
        one lease."""
        self.attempts[key] += 1
        if self._ledger.witness is not None:
            self._ledger.witness.attempt(key, most)
        self.attempted_at.setdefault(key, []).append(self._now())
        return self.attempts[key]

    def repair(self, key: str) -> None:
        """From now on, what failed under this key works."""
        self._repaired[key] = None

    def is_repaired(self, key: str) -> bool:
        return key in self._repaired

    def applied(self, key: str) -> bool:
        return key in self._effects

    @property
    def repeated(self) -> int:
        """Effects that were tried more than once."""
        return sum(count > 1 for count in self.tries.values())

    def __len__(self) -> int:
        return len(self._effects)
