"""Raw requests of the protocol by a client that has no SDK, most of them worth asking.

Clients share a small space of ids, so they race for promises, hold leases that others take over, and
ask under versions that are stale. What a client believes, it learned from the answers it got.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping
from random import Random
from typing import Final, NamedTuple

from msgspec.structs import replace

from kept.client.connection import Connection
from kept.protocol import inquiries as i
from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol import worker_requests as w
from kept.protocol.entries import AnnouncedFunction, CancelMode
from kept.protocol.records import PromiseState, TaskState, Value
from kept.protocol.responses import (
    CONFLICT,
    AcquiredTask,
    ClaimResult,
    DeadLetterPage,
    PromisePage,
    Response,
    SchedulePage,
    TaskPage,
    TaskResult,
)
from kept.runtime import Runtime
from kept.sim.drawn_keys import add_keys
from kept.sim.drawn_tags import FUNCTIONS, add_tags

# New ids come as time passes; requests name the latest of them.
WINDOW_IDS: Final = 8
SECONDS_PER_NEW_ID: Final = 2.0
# Where runs are short, so that few seconds see as much: the requests of one action, and the same.
DENSE_REQUESTS: Final = 4
DENSE_SECONDS_PER_NEW_ID: Final = 0.7
TARGETS: Final = ("poll://any@nobody", "queue://raw", "queue://raw", "queue://ordered")
# On the first, some claims want some functions only.
QUEUES: Final = ("raw", "ordered")
MAX_PAGES: Final = 50
# Of several, so that a settlement may have more to tell than one step does.
LISTENERS: Final = tuple(f"poll://uni@nobody/listener-{number}" for number in range(4))
SCHEDULES: Final = 3
# A frequent one misses several instants in any outage.
CRONS: Final = ("*/30 * * * * *", "* * * * *", "*/15 * * * * *")
DENSE_CRONS: Final = (*CRONS[:2], "*/4 * * * * *")
DEADLINE_MS: Final = (500, 5_000, 60_000, 60_000)
LEASE_MS: Final = (1_000, 5_000, 30_000, 30_000)
STATES: Final = (PromiseState.RESOLVED, PromiseState.REJECTED, PromiseState.REJECTED_CANCELED)
MAX_LEASES: Final = 16
MAX_SEEN: Final = 64
SHARE_OF_RARE: Final = 0.3
# A dead letter needs a refusal, which needs a lease.
MAX_NEEDS: Final = 4
SHARE_OF_KNOWN: Final = 0.8
SHARE_OF_KEYED: Final = 0.3
SHARE_OF_TAGGED: Final = 0.5
SHARE_OF_FOLLOWED: Final = 0.3
# Of what is created under a lease.
SHARE_OF_CHILDREN: Final = 0.6
SHARE_OF_DETACHED: Final = 0.3

Paged = r.PromiseSearch | r.TaskSearch | r.ScheduleSearch | r.DeadList
PAGED: Final = (r.PromiseSearch, r.TaskSearch, r.ScheduleSearch, r.DeadList)

Builder = Callable[["RawClient"], r.Request]


class Held(NamedTuple):
    """A task as a client believes it to be."""

    id: str
    version: int


class RawClient:
    """Draws requests and learns from the answers. `succeeded` says how often each kind has, anywhere;
    `kinds` which may be asked, None all; `dense` whether it asks several at one time."""

    def __init__(
        self,
        pid: str,
        connection: Connection,
        runtime: Runtime,
        succeeded: Mapping[str, int],
        addresses: list[str],
        broken: Callable[[str, str], None],
        kinds: Collection[str] | None = None,
        *,
        dense: bool = False,
    ) -> None:
        self._at_once = DENSE_REQUESTS if dense else 1
        self._crons = DENSE_CRONS if dense else CRONS
        self._seconds_per_id = DENSE_SECONDS_PER_NEW_ID if dense else SECONDS_PER_NEW_ID
        self._broken = broken
        self._succeeded = succeeded
        self._kinds = [kind for kind in RAW_KINDS if kinds is None or kind in kinds]
        self._addresses = addresses
        self._targets = [*TARGETS, *addresses]
        self.pid = pid
        self._connection = connection
        self._runtime = runtime
        self._random: Random
        self._known: deque[str] = deque(maxlen=WINDOW_IDS)
        self._leases: list[Held] = []
        self._seen: dict[str, int] = {}
        self._halted: list[str] = []
        self._letters: list[str] = []
        self._schedules: list[str] = []
        self._number = 0

    async def ask(self, random: Random) -> None:
        """One request, or some, drawn from `random`, and what the answers teach; none of a kind that
        may not be asked. Raises `ConnectionFailedError`."""
        for _ in range(self._at_once):
            if random.random() < SHARE_OF_RARE:
                await self._ask_rarest(random)
            else:
                await self._ask(random, random.choices(_BUILDERS, _WEIGHTS)[0])

    async def _ask_rarest(self, random: Random) -> None:
        """One of the kinds that have succeeded least so far, and what it needs right before it: a
        lease that is kept for later has ended then."""
        kinds = self._kinds or RAW_KINDS
        fewest = min(self._succeeded[kind] for kind in kinds)
        # Not the first of them: what does not succeed at all here would hide the others.
        kind = random.choice([k for k in kinds if self._succeeded[k] == fewest])
        builder = _BUILDERS[RAW_KINDS.index(kind)]
        for _ in range(MAX_NEEDS):
            if await self._ask(random, builder) is builder:
                return

    async def _ask(self, random: Random, wanted: Builder) -> Builder:
        """Asks what is wanted, or what it needs first, and tells which."""
        self._random = random
        builder = self._needed(wanted)
        request = builder(self)
        if request.kind in self._kinds:
            response = await self._connection.send(request)
            self._learn(request, response)
            if isinstance(request, PAGED) and random.random() < SHARE_OF_FOLLOWED:
                await self._follow(request, response)
        return builder

    async def _follow(self, request: Paged, response: Response) -> None:
        """All further pages, in whatever the others do meanwhile: in order, and nothing twice."""
        last = ""
        for _ in range(MAX_PAGES):
            for id in _ids_of(response):
                if not isinstance(request, r.DeadList) and id.encode() <= last.encode():
                    self._broken("pages are in order", f"{request}: {id} after {last}")
                last = id
            cursor = getattr(response.data, "cursor", None)
            if cursor is None:
                return
            response = await self._connection.send(replace(request, cursor=cursor))

    def _needed(self, builder: Builder) -> Builder:
        """What has to be asked first, where a request would name what is not there."""
        if builder in _NEEDS_PROMISE and not self._known:
            builder = RawClient.promise_create
        if builder in _NEEDS_LETTER and not self._letters:
            builder = RawClient.task_nack
        if builder is RawClient.task_continue and not self._halted:
            builder = RawClient.task_halt
        if builder in _NEEDS_SCHEDULE and not self._schedules:
            builder = RawClient.schedule_create
        if builder in _NEEDS_LEASE and not self._leases:
            builder = RawClient.task_create
        return builder

    def _learn(self, request: r.Request, response: Response) -> None:
        data = response.data
        acquired = [data] if isinstance(data, AcquiredTask) else []
        if isinstance(data, ClaimResult):
            acquired = data.tasks
        for each in acquired:
            self._seen[each.task.id] = each.task.version
            if each.task.state is TaskState.ACQUIRED:
                self._leases.append(Held(each.task.id, each.task.version))
        del self._leases[:-MAX_LEASES]
        if isinstance(data, DeadLetterPage):
            # Others' work is replayed by those whose it is.
            self._letters = [x.id for x in data.letters if x.id.startswith("raw-")]
        if isinstance(data, TaskPage):
            halted = [t.id for t in data.tasks if t.state is TaskState.HALTED]
            self._halted += [id for id in halted if id.startswith("raw-")]
            del self._halted[:-MAX_LEASES]
        if isinstance(data, TaskResult):
            self._seen[data.task.id] = data.task.version
        if isinstance(request, r.PromiseCreate) and response.ok and request.id not in self._known:
            self._known.append(request.id)
            if tag.TARGET in request.tags:
                self._seen.setdefault(request.id, 0)
        while len(self._seen) > MAX_SEEN:
            del self._seen[next(iter(self._seen))]
        if isinstance(request, r.TaskHalt) and response.ok:
            self._halted.append(request.id)
        if isinstance(request, r.TaskNack) and request.final and response.ok:
            self._letters.append(request.id)
        if isinstance(request, r.ScheduleCreate) and response.ok:
            self._schedules = [request.id]
        if isinstance(request, r.ScheduleDelete):
            self._schedules = []
        if isinstance(request, _ENDING) and (response.ok or response.status == CONFLICT):
            self._leases = [held for held in self._leases if held.id != request.id]
        if isinstance(request, _UNDER_LEASE) and response.status == CONFLICT:
            # Asked once with what was lost, it is not asked for ever.
            self._leases = [held for held in self._leases if held != (request.id, request.version)]

    # -- what a request names

    def _id(self) -> str:
        """Mostly one that is there."""
        if self._known and self._random.random() < SHARE_OF_KNOWN:
            return self._random.choice(self._known)
        return self._window_id()

    def _task_id(self) -> str:
        seen = list(self._seen)[-WINDOW_IDS:]
        return self._random.choice(seen) if seen else self._window_id()

    def _window_id(self) -> str:
        newest = int(self._runtime.now_ms() / 1_000 / self._seconds_per_id)
        return f"raw-{newest - self._random.randrange(WINDOW_IDS)}"

    def _lease(self) -> Held:
        if self._leases and self._random.random() < 0.9:
            return self._random.choice(self._leases[-WINDOW_IDS:])
        id = self._id()
        return Held(id, self._seen.get(id, 1))

    def _any_schedule(self) -> str:
        return f"schedule-{self._random.randrange(SCHEDULES)}"

    def _schedule_id(self) -> str:
        return self._schedules[-1] if self._schedules else self._any_schedule()

    def _deadline(self) -> int:
        return self._runtime.now_ms() + self._random.choice(DEADLINE_MS)

    def _value(self) -> Value:
        self._number += 1
        headers = {"x-number": str(self._number)} if self._number % 3 == 0 else None
        return Value(headers, f"{self.pid}-{self._number}")

    def _create(self, targeted: float = 0.6) -> r.PromiseCreate:
        tags: dict[str, str] = {}
        if self._random.random() < targeted:
            tags[tag.TARGET] = self._random.choice(self._targets)
        elif self._random.random() < 0.8:
            tags[tag.EXTERNAL] = "true"
        deadline = self._deadline()
        if self._random.random() < SHARE_OF_TAGGED:
            add_tags(self._random, tags, self._runtime.now_ms(), deadline)
        return r.PromiseCreate(self._window_id(), deadline, self._value(), tags)

    def _settle(self, id: str) -> r.PromiseSettle:
        return r.PromiseSettle(id, self._random.choice(STATES), self._value())

    # -- the requests

    def promise_get(self) -> r.Request:
        return r.PromiseGet(self._id())

    def promise_create(self) -> r.Request:
        create = self._create()
        if self._random.random() < SHARE_OF_KEYED:
            add_keys(self._random, create.tags, self._runtime.now_ms())
            # Far enough for any delay, and under an id that nobody else uses.
            create.timeout_at = self._runtime.now_ms() + max(DEADLINE_MS)
            create.id = f"{create.id}-{self.pid}-{self._number}"
        return create

    def promise_settle(self) -> r.Request:
        return self._settle(self._id())

    def promise_wait(self) -> r.Request:
        return r.PromiseWait(self._id(), self._random.choice((0, 500, 5_000)))

    def promise_search(self) -> r.Request:
        state = self._random.choice((None, *PromiseState))
        tags = self._random.choice((None, {tag.EXTERNAL: "true"}, {tag.FUNCTION: "f@1"}))
        return r.PromiseSearch(state, tags, self._random.choice((5, 100)))

    def promise_children(self) -> r.Request:
        return r.PromiseChildren(self._id())

    def promise_cancel(self) -> r.Request:
        mode = self._random.choice((CancelMode.REQUEST, CancelMode.FORCE))
        return r.PromiseCancel(self._id(), "raw", mode, recursive=self._random.random() < 0.5)

    def listener(self) -> r.Request:
        address = self._random.choice((*LISTENERS, *self._addresses))
        return r.PromiseRegisterListener(self._id(), address)

    def callback(self) -> r.Request:
        return r.PromiseRegisterCallback(self._id(), self._task_id())

    def task_get(self) -> r.Request:
        return r.TaskGet(self._task_id())

    def task_create(self) -> r.Request:
        create = self._create(targeted=1.0)
        return r.TaskCreate(self.pid, self._random.choice(LEASE_MS), r.CreateAction(create))

    def task_acquire(self) -> r.Request:
        id = self._task_id()
        ttl = self._random.choice(LEASE_MS)
        preload = self._random.choice((None, None, 0, 1))
        return r.TaskAcquire(id, self._seen.get(id, 0), self.pid, ttl, preload)

    def task_claim(self) -> r.Request:
        wait = self._random.choice((0, 0, 2_000))
        limit = self._random.choice((1, 3))
        queues, functions = self._random.choice((QUEUES, QUEUES[:1], QUEUES[1:])), None
        if queues == QUEUES[:1] and self._random.random() < 0.5:
            functions = self._random.sample(FUNCTIONS, 2)
        ttl, preload = self._random.choice(LEASE_MS), self._random.choice((None, 0, 2))
        return r.TaskClaim(list(queues), self.pid, ttl, limit, wait, functions, preload)

    def task_release(self) -> r.Request:
        return r.TaskRelease(*self._lease())

    def task_fulfill(self) -> r.Request:
        held = self._lease()
        return r.TaskFulfill(held.id, held.version, r.SettleAction(self._settle(held.id)))

    def task_suspend(self) -> r.Request:
        held = self._lease()
        awaited = self._id()
        action = r.CallbackAction(r.PromiseRegisterCallback(awaited, held.id))
        return r.TaskSuspend(held.id, held.version, [action])

    def task_fence(self) -> r.Request:
        held = self._lease()
        action: r.CreateAction | r.SettleAction = r.SettleAction(self._settle(self._id()))
        if self._random.random() < 0.6:
            create = self._create()
            if self._random.random() < SHARE_OF_CHILDREN:
                create.tags |= {tag.PARENT: held.id, tag.ORIGIN: held.id}
                if self._random.random() < SHARE_OF_DETACHED:
                    create.tags[tag.DETACHED] = "true"
            action = r.CreateAction(create)
        return r.TaskFence(held.id, held.version, action)

    def task_record(self) -> r.Request:
        held = self._lease()
        self._number += 1
        lineage = {tag.PARENT: held.id, tag.BRANCH: held.id, tag.ORIGIN: held.id}
        id = f"{held.id}.{self._random.randrange(4)}"
        create = r.PromiseCreate(id, self._deadline(), tags=lineage)
        return r.TaskRecordStep(held.id, held.version, create, PromiseState.RESOLVED, self._value())

    def task_heartbeat(self) -> r.Request:
        refs = [r.TaskRef(held.id, held.version) for held in self._leases[-3:]]
        return r.TaskHeartbeat(self.pid, refs, report=self._random.random() < 0.5)

    def task_nack(self) -> r.Request:
        held = self._lease()
        final = self._random.choice((None, None, None, "reject", "reject", "halt"))
        delay, reason = self._random.choice((None, 0, 500)), self._random.choice((None, "raw"))
        error = self._random.choice((None, self._value()))
        consume = self._random.random() < 0.8
        return r.TaskNack(held.id, held.version, delay, error, reason, final, consume)

    def task_annotate(self) -> r.Request:
        held = self._lease()
        said = {self._random.choice("ab"): self._random.choice((None, "1", "2"))}
        return r.TaskAnnotate(held.id, held.version, said, self._random.choice((None, 0.5)))

    def signal_send(self) -> r.Request:
        key = self._random.choice((None, None, "k", "l"))
        return r.SignalSend(self._id(), self._random.choice(("a", "b")), self._value(), key)

    def worker_announce(self) -> r.Request:
        functions = [AnnouncedFunction("raw", self._random.randint(1, 2), QUEUES[0])]
        return w.WorkerAnnounce(self.pid, [QUEUES[0]], functions, self._random.choice(LEASE_MS))

    def worker_list(self) -> r.Request:
        return w.WorkerList()

    def function_list(self) -> r.Request:
        return w.FunctionList()

    def function_get(self) -> r.Request:
        return w.FunctionGet(self._random.choice(("raw", "step")))

    def task_explain(self) -> r.Request:
        return i.TaskExplain(self._task_id())

    def promise_deliveries(self) -> r.Request:
        return i.PromiseDeliveries(self._id())

    def task_halt(self) -> r.Request:
        return r.TaskHalt(self._task_id())

    def task_continue(self) -> r.Request:
        return r.TaskContinue(self._halted.pop() if self._halted else self._id())

    def task_search(self) -> r.Request:
        return r.TaskSearch(self._random.choice((None, *TaskState, TaskState.HALTED)), limit=5)

    def schedule_create(self) -> r.Request:
        id, tags = self._any_schedule(), {tag.EXTERNAL: "true"}
        if self._random.random() < 0.5:
            tags = {tag.TARGET: self._random.choice(self._targets), tag.PRIORITY: "3"}
        cron = self._random.choice(self._crons)
        name = "{{.id}}-{{.timestamp}}"
        return r.ScheduleCreate(id, cron, name, 30_000, self._value(), tags)

    def schedule_get(self) -> r.Request:
        return r.ScheduleGet(self._schedule_id())

    def schedule_delete(self) -> r.Request:
        return r.ScheduleDelete(self._schedule_id())

    def schedule_search(self) -> r.Request:
        return r.ScheduleSearch(self._random.choice((None, {tag.EXTERNAL: "true"})), limit=1)

    def dead_list(self) -> r.Request:
        queue = self._random.choice((None, None, *QUEUES))
        reason = self._random.choice((None, None, "raw", "exhausted", "lease_expired"))
        return r.DeadList(queue, None, reason, limit=5)

    def dead_get(self) -> r.Request:
        return r.DeadGet(self._random.choice(self._letters) if self._letters else self._id())

    def dead_replay(self) -> r.Request:
        return r.DeadReplay([self._letters.pop() if self._letters else self._id()])


def _ids_of(response: Response) -> list[str]:
    data = response.data
    if isinstance(data, PromisePage):
        return [record.id for record in data.promises]
    if isinstance(data, TaskPage):
        return [record.id for record in data.tasks]
    if isinstance(data, SchedulePage):
        return [record.id for record in data.schedules]
    return [letter.id for letter in data.letters] if isinstance(data, DeadLetterPage) else []


_UNDER_LEASE: Final = (r.TaskFence, r.TaskRecordStep, r.TaskAnnotate)
_ENDING: Final = (r.TaskFulfill, r.TaskSuspend, r.TaskRelease, r.TaskNack)

_TABLE: Final[tuple[tuple[type[r.Request], Builder, float], ...]] = (
    (r.PromiseGet, RawClient.promise_get, 4),
    (r.PromiseCreate, RawClient.promise_create, 10),
    (r.PromiseSettle, RawClient.promise_settle, 4),
    (r.PromiseWait, RawClient.promise_wait, 2),
    (r.PromiseSearch, RawClient.promise_search, 1),
    (r.PromiseChildren, RawClient.promise_children, 2),
    (r.PromiseCancel, RawClient.promise_cancel, 2),
    (r.PromiseRegisterCallback, RawClient.callback, 4),
    (r.PromiseRegisterListener, RawClient.listener, 3),
    (r.TaskGet, RawClient.task_get, 5),
    (r.TaskCreate, RawClient.task_create, 6),
    (r.TaskAcquire, RawClient.task_acquire, 8),
    (r.TaskClaim, RawClient.task_claim, 6),
    (r.TaskRelease, RawClient.task_release, 3),
    (r.TaskFulfill, RawClient.task_fulfill, 3),
    (r.TaskSuspend, RawClient.task_suspend, 5),
    (r.TaskFence, RawClient.task_fence, 5),
    (r.TaskRecordStep, RawClient.task_record, 5),
    (r.TaskHeartbeat, RawClient.task_heartbeat, 3),
    (r.TaskNack, RawClient.task_nack, 4),
    (r.TaskAnnotate, RawClient.task_annotate, 3),
    (r.SignalSend, RawClient.signal_send, 4),
    (w.WorkerAnnounce, RawClient.worker_announce, 1),
    (w.WorkerList, RawClient.worker_list, 0.5),
    (w.FunctionList, RawClient.function_list, 0.5),
    (w.FunctionGet, RawClient.function_get, 0.5),
    (i.TaskExplain, RawClient.task_explain, 1),
    (i.PromiseDeliveries, RawClient.promise_deliveries, 0.5),
    (r.TaskHalt, RawClient.task_halt, 3),
    (r.TaskContinue, RawClient.task_continue, 3),
    (r.TaskSearch, RawClient.task_search, 1),
    (r.ScheduleCreate, RawClient.schedule_create, 1),
    (r.ScheduleGet, RawClient.schedule_get, 1),
    (r.ScheduleDelete, RawClient.schedule_delete, 1),
    (r.ScheduleSearch, RawClient.schedule_search, 1),
    (r.DeadList, RawClient.dead_list, 1),
    (r.DeadGet, RawClient.dead_get, 2),
    (r.DeadReplay, RawClient.dead_replay, 1),
)
# The kinds of which a run that is long enough must see each succeed.
RAW_KINDS: Final = tuple(request.kind for request, _, _ in _TABLE)
_BUILDERS: Final = [builder for _, builder, _ in _TABLE]
_WEIGHTS: Final = [weight for _, _, weight in _TABLE]
_NEEDS_PROMISE: Final = (
    RawClient.promise_get,
    RawClient.promise_settle,
    RawClient.promise_wait,
    RawClient.promise_cancel,
    RawClient.callback,
    RawClient.listener,
    RawClient.signal_send,
)
_NEEDS_LETTER: Final = (RawClient.dead_get, RawClient.dead_replay)
_NEEDS_SCHEDULE: Final = (RawClient.schedule_get, RawClient.schedule_delete)
_NEEDS_LEASE: Final = (
    RawClient.task_release,
    RawClient.task_fulfill,
    RawClient.task_suspend,
    RawClient.task_fence,
    RawClient.task_record,
    RawClient.task_nack,
    RawClient.task_annotate,
)
