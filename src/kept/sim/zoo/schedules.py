"""Bugs of schedules beyond the base (B10): changes, pauses, overlapping, what was missed."""

from __future__ import annotations

from typing import Any, Final

from msgspec.structs import replace

from kept.machine.step import Step
from kept.protocol.entries import Entry, ScheduleLine
from kept.protocol.records import Catchup, Overlap, ScheduleRecord
from kept.sim.mix import Mix
from kept.sim.zoo.bug import Menagerie

SCHEDULES: Final = Menagerie()
bug = SCHEDULES.bug


def _has_plans(mix: Mix) -> bool:
    return mix.plans


@bug(
    "paused-line-goes-on",
    "What waits in the line of a paused schedule is fired all the same.",
    "kept.machine.schedules:look_at_line",
    fits=_has_plans,
)
def _paused_line_goes_on(original: Any) -> Any:
    def look(step: Step, entry: Entry) -> None:
        schedule = step.records.schedule(entry.key.name)
        if schedule is None or not schedule.paused:
            original(step, entry)
            return
        step.records.put_schedule(replace(schedule, paused=False))
        original(step, entry)
        step.records.put_schedule(schedule)

    return look


@bug(
    "overlap-not-asked",
    "Nobody looks whether what a schedule fired last is settled.",
    "kept.machine.schedules:is_running",
    fits=_has_plans,
)
def _overlap_not_asked(_original: Any) -> Any:
    return lambda *_: False


@bug(
    "queued-is-skipped",
    "What should wait for its turn is left out.",
    "kept.machine.schedules:fire",
    fits=_has_plans,
)
def _queued_is_skipped(original: Any) -> Any:
    def fire(step: Step, schedule: ScheduleRecord, instant: int) -> None:
        if schedule.overlap is Overlap.QUEUE:
            schedule = replace(schedule, overlap=Overlap.SKIP)
        original(step, schedule, instant)

    return fire


@bug(
    "line-out-of-order",
    "Of what waits in line the latest comes first.",
    "kept.machine.schedules:look_at_line",
    fits=_has_plans,
)
def _line_out_of_order(original: Any) -> Any:
    def look(step: Step, entry: Entry) -> None:
        line = entry.data
        assert isinstance(line, ScheduleLine)
        original(step, replace(entry, data=replace(line, waiting=line.waiting[::-1])))

    return look


@bug(
    "line-not-woken",
    "What ends does not bring on the line behind it.",
    "kept.machine.schedule_line:line_behind",
    fits=_has_plans,
)
def _line_not_woken(_original: Any) -> Any:
    return lambda *_: None


@bug(
    "catchup-not-asked",
    "All that was missed is fired, whatever the schedule says.",
    "kept.machine.schedules:due_instants",
    fits=_has_plans,
)
def _catchup_not_asked(original: Any) -> Any:
    return lambda schedule, now: original(replace(schedule, catchup=Catchup.ALL), now)


@bug(
    "deploy-restarts-clock",
    "A schedule that is put again begins anew, and forgets what is due.",
    "kept.machine.schedule_changes:_same_rhythm",
    fits=_has_plans,
)
def _deploy_restarts_clock(_original: Any) -> Any:
    return lambda *_: False


@bug(
    "deploy-keeps-old-clock",
    "A schedule that gets another rhythm is due next when it was by the old one.",
    "kept.machine.schedule_changes:_same_rhythm",
    fits=_has_plans,
)
def _deploy_keeps_old_clock(_original: Any) -> Any:
    return lambda *_: True


@bug(
    "deploy-changes-nothing",
    "What a changed schedule fires is still what was put first.",
    "kept.machine.schedules:occurrence",
    fits=_has_plans,
)
def _deploy_changes_nothing(original: Any) -> Any:
    first: dict[str, ScheduleRecord] = {}

    def occurrence(schedule: ScheduleRecord, *args: Any, **kwargs: Any) -> Any:
        known = first.setdefault(schedule.id, schedule)
        if known.created_at != schedule.created_at:
            known = first[schedule.id] = schedule
        return original(replace(schedule, promise_param=known.promise_param), *args, **kwargs)

    return occurrence


@bug(
    "backfill-leaves-out",
    "Of the instants of a backfill one step fires the last only.",
    "kept.machine.backfill:next_instants",
    fits=_has_plans,
)
def _backfill_leaves_out(original: Any) -> Any:
    return lambda schedule, span: original(schedule, span)[-1:]
