"""Bugs of the machine: how promises settle, who is told of it, schedules, and the working set."""

from __future__ import annotations

from typing import Any, Final

from msgspec.structs import replace

from kept.machine import effects, tasks
from kept.machine.background import RetryTask
from kept.machine.step import Step
from kept.protocol import requests as r
from kept.protocol.limits import MAX_EDGES_PER_STEP, NEVER_MS
from kept.protocol.records import MessageKey, OutboxEntry, Promise, ScheduleRecord, TaskState
from kept.protocol.responses import OK, PromiseResult, Response
from kept.sim.zoo.bug import Menagerie, Walk

PROMISES: Final = Menagerie()
bug = PROMISES.bug


@bug(
    "suspend-without-a-look",
    "task.suspend does not look whether what it awaits is settled: the wake-up came before.",
    "kept.machine.tasks:task_suspend",
    walks=(Walk("timer", 9),),
)
def _suspend_without_a_look(_original: Any) -> Any:
    def suspend(step: Step, request: r.TaskSuspend) -> Response:
        lease = tasks.held(step, request.id, request.version)
        if isinstance(lease, Response):
            return lease
        task = tasks.number_releases(step, lease[0], request.released)
        for action in request.actions:
            if effects.read_promise(step, action.data.awaited) is not None:
                step.records.add_callback(action.data.awaited, task.id)
        task = effects.clear_resumes(step, task)
        effects.put_parked(step, task, TaskState.SUSPENDED, failures=0)
        return tasks.NOTHING

    return suspend


@bug(
    "suspend-without-callbacks",
    "A suspended task leaves no callback with what it awaits.",
    "kept.machine.working_set:WorkingSet.add_callback",
    walks=(Walk("timer"),),
)
def _suspend_without_callbacks(_original: Any) -> Any:
    return lambda *_: None


@bug(
    "suspend-on-the-first",
    "A task that suspends on several promises leaves a callback with the first only.",
    "kept.machine.tasks:task_suspend",
    walks=(Walk("fan-out", 10),),
)
def _suspend_on_the_first(original: Any) -> Any:
    def suspend(step: Step, request: r.TaskSuspend) -> Response:
        answer: Response = original(step, request)
        if answer.status == OK:
            for action in request.actions[1:]:
                step.records.remove_callback(action.data.awaited, request.id)
        return answer

    return suspend


@bug(
    "awaiter-not-woken",
    "A settlement drops its callbacks and wakes nobody.",
    "kept.machine.background:drain_callback",
    walks=(Walk("timer"),),
)
def _awaiter_not_woken(_original: Any) -> Any:
    def drain_callback(step: Step, id: str, awaiter: str) -> None:
        step.records.remove_callback(id, awaiter)

    return drain_callback


@bug(
    "dead-awaiter-woken",
    "An awaiter past its own deadline is woken, not timed out.",
    "kept.machine.background:drain_callback",
    walks=(Walk("timer"),),
)
def _dead_awaiter_woken(_original: Any) -> Any:
    def drain_callback(step: Step, id: str, awaiter: str) -> None:
        step.records.remove_callback(id, awaiter)
        task, promise = step.records.task(awaiter), step.records.promise(awaiter)
        assert task is not None
        assert promise is not None
        if task.state is TaskState.SUSPENDED:
            step.records.add_resume(awaiter, id)
            resumed = replace(task, resumes=task.resumes + 1)
            effects.put_pending(step, resumed, promise, step.now)

    return drain_callback


@bug(
    "listener-not-told",
    "A settlement drops its listeners and puts no message into the outbox.",
    "kept.machine.background:drain_listener",
    walks=(Walk("timer", 6),),
)
def _listener_not_told(_original: Any) -> Any:
    return lambda step, id, address: step.records.remove_listener(id, address)


@bug(
    "edges-not-drained",
    "A settlement does not drain its callbacks and listeners in its commit.",
    "kept.machine.dispatch:Machine._drain",
    walks=(Walk("timer", 6),),
)
def _edges_not_drained(_original: Any) -> Any:
    return lambda *_: None


@bug(
    "edges-not-continued",
    "Of a settlement's callbacks only those that one step drains are drained; nothing goes on.",
    "kept.machine.working_set:WorkingSet.put_undrained",
    fits=lambda mix: "MAX_EDGES_PER_STEP" in mix.bounds,
)
def _edges_not_continued(_original: Any) -> Any:
    return lambda *_args, **_fields: None


@bug(
    "listeners-beyond-one-step-dropped",
    "Listeners that are more than one step drains are dropped with it.",
    "kept.machine.dispatch:Machine._drain_promise",
    fits=lambda mix: "MAX_EDGES_PER_STEP" in mix.bounds,
)
def _listeners_beyond_one_step_dropped(original: Any) -> Any:
    def drain(self: Any, id: str, now: int) -> bool:
        left: bool = original(self, id, now)
        if left:
            for address in self.records.listeners_of(id)[: MAX_EDGES_PER_STEP + 1]:
                self.records.remove_listener(id, address)
        return left

    return drain


@bug(
    "settlement-leaves-task",
    "A settlement does not fulfil the promise's own task.",
    "kept.machine.effects:put_fulfilled",
    walks=(Walk("one"),),
)
def _settlement_leaves_task(_original: Any) -> Any:
    return lambda *_: None


@bug(
    "settlement-overwritten",
    "promise.settle does not ask whether the promise is settled: the last one wins.",
    "kept.machine.promises:promise_settle",
    walks=(Walk("approval", 8),),
)
def _settlement_overwritten(_original: Any) -> Any:
    def settle(step: Step, request: r.PromiseSettle) -> Response:
        promise = step.records.promise(request.id)
        if promise is None:
            return Response(404, "no such promise")
        changed = replace(promise, state=request.state, value=request.value, settled_at=step.now)
        records: Any = step.records
        records._set("promises", records._promises, request.id, changed)
        return Response(OK, PromiseResult(changed.record()))

    return settle


@bug(
    "deadline-not-looked-at",
    "Who reads a promise does not look whether its deadline has passed.",
    "kept.machine.effects:read_promise",
    walks=(Walk("timer", 7),),
)
def _deadline_not_looked_at(_original: Any) -> Any:
    def read_promise(step: Step, id: str) -> Promise | None:
        return step.records.promise(id)

    return read_promise


@bug(
    "deadline-not-stored",
    "A deadline that has passed is answered and not stored: others may still settle the promise.",
    "kept.machine.effects:read_promise",
    walks=(Walk("timer", 7),),
)
def _deadline_not_stored(_original: Any) -> Any:
    def read_promise(step: Step, id: str) -> Promise | None:
        promise = step.records.promise(id)
        return None if promise is None else promise.project(step.now)

    return read_promise


@bug(
    "create-overwrites",
    "promise.create does not ask whether the id is taken.",
    "kept.machine.promises:create_promise",
    walks=(Walk("call", 9),),
)
def _create_overwrites(_original: Any) -> Any:
    def create(step: Step, request: r.PromiseCreate) -> Response:
        promise = effects.put_new_promise(step, request)
        return Response(OK, PromiseResult(promise.record()))

    return create


@bug(
    "execute-sent-once",
    "A pushed task is offered once: when the message is lost, so is the task.",
    "kept.machine.background:retry_task",
    walks=(Walk("one"),),
)
def _execute_sent_once(_original: Any) -> Any:
    def retry(step: Step, due: RetryTask) -> None:
        held = effects.read_task(step, due.id)
        if held is None or held[0].state is not TaskState.PENDING:
            return
        task, promise = held
        if task.retry_at is not None and task.retry_at <= step.now and promise.pending:
            assert promise.target is not None
            step.records.put_task(replace(task, retry_at=NEVER_MS))
            key = MessageKey.execute(task.id)
            step.records.put_message(OutboxEntry(key, promise.target, task.version, step.now))

    return retry


@bug(
    "message-not-kept",
    "A message leaves the outbox as soon as its delivery is tried.",
    "kept.machine.background:take_message",
)
def _message_not_kept(original: Any) -> Any:
    def take(step: Step, taken: Any) -> OutboxEntry | None:
        entry: OutboxEntry | None = original(step, taken)
        if entry is not None:
            step.records.remove_message(entry.key)
        return entry

    return take


@bug(
    "newer-message-dropped",
    "A delivered message takes with it the newer one that has taken its place meanwhile.",
    "kept.machine.background:delivered_message",
    unfound="The retry step offers the task again after five seconds, so nothing is lost but time.",
)
def _newer_message_dropped(_original: Any) -> Any:
    return lambda step, delivered: (
        step.records.message(delivered.key) is not None
        and step.records.remove_message(delivered.key)
    )


# -- schedules


@bug(
    "schedule-fires-early",
    "A schedule does not look at the time: it fires when it is looked at.",
    "kept.machine.schedules:due_instants",
)
def _schedule_fires_early(original: Any) -> Any:
    return lambda schedule, now: original(schedule, now + 60_000)


@bug(
    "schedule-forgets-missed",
    "Of the instants that a schedule missed only the last is fired.",
    "kept.machine.schedules:due_instants",
)
def _schedule_forgets_missed(original: Any) -> Any:
    return lambda schedule, now: original(schedule, now)[-1:]


@bug(
    "schedule-fires-twice",
    "An instant of a schedule is fired twice, under two ids.",
    "kept.machine.schedules:fire",
)
def _schedule_fires_twice(original: Any) -> Any:
    def fire(step: Step, schedule: ScheduleRecord, instant: int) -> None:
        original(step, schedule, instant)
        original(step, replace(schedule, promise_id=f"{schedule.promise_id}-2"), instant)

    return fire


@bug(
    "schedule-clock-stays",
    "A schedule's clock does not move past the instants that it fired.",
    "kept.machine.schedules:advance",
)
def _schedule_clock_stays(_original: Any) -> Any:
    return lambda *_: None


@bug(
    "occurrence-not-the-key",
    "A schedule does not ask whether the promise of an instant exists already.",
    "kept.machine.schedules:fire",
)
def _occurrence_not_the_key(_original: Any) -> Any:
    from kept.machine import schedules

    def fire(step: Step, schedule: ScheduleRecord, instant: int) -> None:
        effects.put_new_promise(step, schedules.occurrence(schedule, instant))

    return fire


# -- the working set


@bug(
    "half-a-request-stays",
    "A request that fails half way is not undone.",
    "kept.machine.working_set:WorkingSet.rollback",
)
def _half_a_request_stays(_original: Any) -> Any:
    def rollback(self: Any) -> None:
        self._undo.clear()
        self.settled.clear()
        self.heads.rewind()

    return rollback
