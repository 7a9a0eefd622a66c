"""A schedule as people read it."""

from __future__ import annotations

from kept.cli.output import Output
from kept.cli.payload import readable
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import Catchup, Overlap, ScheduleRecord
from kept.protocol.spoken import spoken


def rhythm(schedule: ScheduleRecord) -> str:
    """When it fires, in a few words."""
    if schedule.every is not None:
        text = f"every {spoken(schedule.every)}"
    else:
        text = f"{schedule.cron} {schedule.zone}" if schedule.zone else schedule.cron
    return f"{text} (paused)" if schedule.paused else text


def peculiarities(schedule: ScheduleRecord) -> list[tuple[str, str]]:
    """What is not as it is by default."""
    fields: list[tuple[str, str]] = []
    if schedule.jitter:
        fields.append(("jitter", spoken(schedule.jitter)))
    if schedule.overlap is not Overlap.ALLOW:
        fields.append(("overlap", schedule.overlap.value))
    if schedule.catchup is not Catchup.ALL:
        fields.append(("catchup", schedule.catchup.value))
    return fields


def details(schedule: ScheduleRecord, output: Output) -> list[tuple[str, str]]:
    """Everything of it, by name."""
    never = schedule.promise_timeout >= NEVER_MS
    fields = [
        ("id", schedule.id),
        ("cron", rhythm(schedule)),
        ("created", output.exact(schedule.created_at)),
        ("next", output.exact(schedule.next_run_at)),
        ("last", output.exact(schedule.last_run_at)),
        ("promise id", schedule.promise_id),
        ("timeout", "never" if never else spoken(schedule.promise_timeout)),
        ("param", readable(schedule.promise_param)),
        *peculiarities(schedule),
    ]
    fields += [("tag", f"{name}={text}") for name, text in sorted(schedule.promise_tags.items())]
    return fields
