"""Bugs of the machine: who may act under a lease, and how leases and attempts end."""

from __future__ import annotations

from typing import Any, Final

from msgspec.structs import replace

from kept.machine import effects
from kept.machine.background import ExpireLease
from kept.machine.preload import Preload
from kept.machine.step import Step
from kept.machine.turns import is_due
from kept.protocol import requests as r
from kept.protocol.records import Promise, PromiseState, Task, TaskState
from kept.protocol.responses import OK, AcquiredTask, PromiseResult, Response
from kept.sim.zoo.bug import Menagerie, Walk

LEASES: Final = Menagerie()
bug = LEASES.bug

# What makes a worker lose a lease that it still believes in.
LOSSES: Final = ("worker_crash", "stall", "partition", "lost", "server_crash", "clock_jump")


def _unfenced(original: Any) -> Any:
    """A handler under a lease that takes any version for the present one."""

    def handler(step: Step, request: Any) -> Any:
        task = step.records.task(request.id)
        if task is not None:
            request = replace(request, version=task.version)
        return original(step, request)

    return handler


def _unfenced_kind(name: str, kind: str, place: str, walk: Walk) -> None:
    off = f"{kind} does not compare the version: who lost the lease acts all the same."
    bug(f"{name}-unfenced", off, f"kept.machine.{place}", walks=(walk,), faults=LOSSES)(_unfenced)


_unfenced_kind("fulfil", "task.fulfill", "tasks:task_fulfill", Walk("job", 9))
_unfenced_kind("fence", "task.fence", "tasks:task_fence", Walk("timer", 11))
_unfenced_kind("record", "task.record", "tasks:record_create", Walk("start", 6))
_unfenced_kind("suspend", "task.suspend", "tasks:task_suspend", Walk("timer", 12))
_unfenced_kind("release", "task.release", "tasks:task_release", Walk("job", 6))
_unfenced_kind("nack", "task.nack", "queues:task_nack", Walk("job", 9))


@bug(
    "acquire-unfenced",
    "task.acquire takes any version: an execute of long ago still gives a lease.",
    "kept.machine.tasks:task_acquire",
    walks=(Walk("start", 8),),
)
def _acquire_unfenced(original: Any) -> Any:
    return _unfenced(original)


@bug(
    "stale-holder-extends",
    "A heartbeat extends a lease without asking whose it is, and at which version.",
    "kept.machine.tasks:_beat",
    walks=(Walk("job", 7),),
    faults=LOSSES,
)
def _stale_holder_extends(_original: Any) -> Any:
    def beat(step: Step, ref: r.TaskRef, _pid: str) -> str | None:
        held = effects.read_task(step, ref.id)
        if held is None or held[0].state is not TaskState.ACQUIRED:
            return "expired"
        assert held[0].ttl is not None
        step.records.put_task(replace(held[0], expires_at=step.now + held[0].ttl))
        return None

    return beat


@bug(
    "lease-given-twice",
    "task.acquire grants a task that somebody holds already, at the same version.",
    "kept.machine.tasks:task_acquire",
    walks=(Walk("two", None),),
)
def _lease_given_twice(original: Any) -> Any:
    def acquire(step: Step, request: r.TaskAcquire) -> Response:
        task, promise = step.records.task(request.id), step.records.promise(request.id)
        if task is None or promise is None or task.state is not TaskState.ACQUIRED:
            answer: Response = original(step, request)
            return answer
        return Response(OK, AcquiredTask(task.record(), promise.record(), []))

    return acquire


@bug(
    "lease-ends-early",
    "The end of a lease does not look at the time: a timer that fires too early ends it.",
    "kept.machine.background:expire_lease",
    simulated=False,
    walks=(Walk("one"),),
    unfound="In the simulation nothing asks for a step before it is due.",
)
def _lease_ends_early(_original: Any) -> Any:
    def expire(step: Step, due: ExpireLease) -> None:
        held = effects.read_task(step, due.id)
        if held is not None and held[0].state is TaskState.ACQUIRED:
            effects.put_pending(step, *held, step.now, failures=held[0].failures + 1)

    return expire


@bug(
    "lease-never-ends",
    "Leases never expire: what a dead worker held stays with it.",
    "kept.machine.background:expire_lease",
    walks=(Walk("one"),),
)
def _lease_never_ends(_original: Any) -> Any:
    return lambda *_: None


@bug(
    "dead-lease-ends",
    "A lease expires although its promise is past its deadline: what is dead is offered again.",
    "kept.machine.background:expire_lease",
    walks=(Walk("timer", 8),),
)
def _dead_lease_ends(_original: Any) -> Any:
    def expire(step: Step, due: ExpireLease) -> None:
        task, promise = step.records.task(due.id), step.records.promise(due.id)
        if task is None or promise is None or task.state is not TaskState.ACQUIRED:
            return
        if task.expires_at is not None and task.expires_at <= step.now:
            effects.put_pending(step, task, promise, step.now, failures=task.failures + 1)

    return expire


# -- attempts and their end


@bug(
    "expiry-no-failure",
    "An expired lease is no failure: work that kills its workers is tried for ever.",
    "kept.machine.background:expire_lease",
    walks=(Walk("job", 7),),
    faults=LOSSES,
)
def _expiry_no_failure(original: Any) -> Any:
    def expire(step: Step, due: ExpireLease) -> None:
        task = step.records.task(due.id)
        if task is not None and task.state is TaskState.ACQUIRED:
            promise = step.records.promise(due.id)
            late = task.expires_at is not None and task.expires_at <= step.now
            if late and promise is not None and promise.pending and promise.timeout_at > step.now:
                effects.put_pending(step, task, promise, step.now)
                return
        original(step, due)

    return expire


@bug(
    "exhausted-never",
    "Failures are never counted as the last: a job has attempts without end.",
    "kept.machine.queues:is_exhausted",
    walks=(Walk("job", 7),),
)
def _exhausted_never(_original: Any) -> Any:
    return lambda *_: False


@bug(
    "exhausted-one-too-late",
    "One attempt more than allowed is made.",
    "kept.machine.queues:is_exhausted",
    walks=(Walk("job", 7),),
)
def _exhausted_one_too_late(original: Any) -> Any:
    return lambda promise, failures: original(promise, failures - 1)


@bug(
    "exhausted-one-too-early",
    "The last attempt that is allowed is not made.",
    "kept.machine.queues:is_exhausted",
    walks=(Walk("job", 7),),
)
def _exhausted_one_too_early(original: Any) -> Any:
    return lambda promise, failures: original(promise, failures + 1)


@bug(
    "dead-letter-not-filed",
    "Work that is given up leaves no dead letter in its commit.",
    "kept.machine.queues:give_up",
    walks=(Walk("job", 7),),
)
def _dead_letter_not_filed(_original: Any) -> Any:
    def give_up(
        step: Step, task: Task, promise: Promise, outcome: str, _reason: str, error: Any
    ) -> None:
        if outcome == "halt":
            effects.put_parked(step, task, TaskState.HALTED, failures=task.failures)
        else:
            step.records.put_task(task)
            effects.settle(step, promise, PromiseState.REJECTED, error, step.now)

    return give_up


@bug(
    "backoff-forgotten",
    "A failed attempt is due again at once, whatever its backoff or delay says.",
    "kept.machine.queues:task_nack",
    walks=(Walk("job", 7),),
)
def _backoff_forgotten(original: Any) -> Any:
    def nack(step: Step, request: r.TaskNack) -> Response:
        answer: Response = original(step, request)
        task, promise = step.records.task(request.id), step.records.promise(request.id)
        if task is not None and promise is not None and task.state is TaskState.PENDING:
            effects.put_pending(step, task, promise, step.now)
        return answer

    return nack


# -- answers


@bug(
    "requests-not-remembered",
    "A request that is asked again under its id is taken for a new one.",
    "kept.machine.dispatch:Machine._repeated",
    walks=(Walk("job", 6),),
)
def _requests_not_remembered(_original: Any) -> Any:
    return lambda *_: None


@bug(
    "claim-not-remembered",
    "A claim that is asked again takes further tasks; those it had got are held for nobody.",
    "kept.machine.repeat:claimed_before",
    walks=(Walk("job", 8),),
)
def _claim_not_remembered(_original: Any) -> Any:
    return lambda *_: None


@bug(
    "answer-without-the-fact",
    "task.fulfill answers with a settlement that is not stored.",
    "kept.machine.tasks:task_fulfill",
    walks=(Walk("one"),),
)
def _answer_without_the_fact(_original: Any) -> Any:
    from kept.machine import tasks

    def fulfil(step: Step, request: r.TaskFulfill) -> Response:
        lease = tasks.held(step, request.id, request.version)
        if isinstance(lease, Response):
            return lease
        settled = replace(lease[1], state=PromiseState.RESOLVED, settled_at=step.now)
        return Response(OK, PromiseResult(settled.record()))

    return fulfil


@bug(
    "preload-without-the-settled",
    "Who takes work over is not told of the children that are settled, and does them again.",
    "kept.machine.preload:preload_of",
    walks=(Walk("timer", 9),),
    unfound="Our workers ask for no preload: they page through the children (history-not-read).",
)
def _preload_without_the_settled(original: Any) -> Any:
    def preload_of(step: Step, id: str, limit: int | None) -> Preload:
        page: Preload = original(step, id, limit)
        pending = [child for child in page.records if child.state is PromiseState.PENDING]
        return page._replace(records=pending)

    return preload_of


@bug(
    "claim-of-what-is-over",
    "A claim does not look whether the promise's deadline has passed.",
    "kept.machine.queues:_tasks_by_rank",
    walks=(),
)
def _claim_of_what_is_over(_original: Any) -> Any:
    def tasks_by_rank(step: Step, head: Any) -> Any:
        for id in step.records.heads.candidates(head, step.now):
            task, promise = step.records.task(id), step.records.promise(id)
            if task is not None and promise is not None and is_due(task, step.now):
                yield task, promise

    return tasks_by_rank


@bug(
    "queue-limits-not-asked",
    "A claim does not ask whether its queue may start anything more now.",
    "kept.machine.limits:queue_refusal",
    walks=(Walk("limit", 8),),
)
def _queue_limits_not_asked(_original: Any) -> Any:
    return lambda *_: None
