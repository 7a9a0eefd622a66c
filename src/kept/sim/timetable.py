"""What schedules must fire and must not, told from their records and from what they fired (B10).

The oracle has an arithmetic of its own for the instants that occur here. Each that is due is fired,
once, or left out as the schedule says: while it is paused, because it overlaps, because only some of
what was missed is made up for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from kept.check.state import State
from kept.protocol import tags as tag
from kept.protocol.entries import Backfill, Entry, EntryKey, EntryKind, ScheduleLine
from kept.protocol.limits import MAX_WAITING_INSTANTS, MISSED_AFTER_MS
from kept.protocol.records import Catchup, Overlap, Promise, ScheduleRecord
from kept.protocol.storage import Changes
from kept.sim.ledger import Ledger

if TYPE_CHECKING:
    from kept.sim.inspector import Before
    from kept.sim.mix import Mix

AT_EACH: Final = "schedules fire at each instant"
ONCE: Final = "an instant is fired once"
AS_DEPLOYED: Final = "schedules fire what was put"
PAUSED: Final = "paused schedules do not fire"
OVERLAP: Final = "overlapping is as the schedule says"
KEEPS: Final = "a changed schedule keeps its clock"
IN_TIME: Final = "schedules fire in time"
LATE_MS: Final = 1_000
# Kinds of steps.
FIRE: Final = "schedule.fire"
ADVANCE: Final = "schedule.advance"
BACKFILL: Final = "schedule.backfill.fire"
PUT: Final = "schedule.put"
RESUME: Final = "schedule.resume"
TRIGGER: Final = "schedule.trigger"
TRIGGERED: Final = "trigger."
WATCHED: Final = (EntryKind.SCHEDULE_LINE, EntryKind.BACKFILL)
# Those that were fired last may still run; the others are past their deadlines, or nearly.
LATEST: Final = 16
_NO_LINE: Final = ScheduleLine("")
_STAMP: Final = "{{.timestamp}}"
_SECONDS_IN_MINUTE: Final = 60


class Rhythm(NamedTuple):
    """Instants `since + n * period`, in ms, after `since`."""

    period: int
    since: int

    def after(self, instant: int) -> int:
        """The first one later than `instant`."""
        return self.since + max((instant - self.since) // self.period + 1, 1) * self.period

    def has(self, instant: int) -> bool:
        return instant > self.since and (instant - self.since) % self.period == 0

    def between(self, first: int, last: int) -> list[int]:
        """Those from `first` to `last`."""
        return list(range(self.after(first - 1), last + 1, self.period))


def rhythm_of(schedule: ScheduleRecord) -> Rhythm | None:
    """The instants of a schedule; None where it is none of those that occur here. The clocks of all
    zones have the same seconds and minutes' beginnings."""
    if schedule.every is not None:
        return Rhythm(schedule.every, schedule.created_at)
    if schedule.cron == "* * * * *":
        return Rhythm(_SECONDS_IN_MINUTE * 1_000, 0)
    first, *others = schedule.cron.split()
    seconds = first.removeprefix("*/")
    if others != ["*"] * 5 or not seconds.isdecimal() or _SECONDS_IN_MINUTE % int(seconds):
        return None
    return Rhythm(int(seconds) * 1_000, 0)


def id_of(schedule: ScheduleRecord, instant: int) -> str:
    """Under which an instant is fired, by whatever."""
    return schedule.promise_id.replace("{{.id}}", schedule.id).replace(_STAMP, str(instant))


class Timetable:
    """Looks at every step. A step that is undone leaves its marks, and the next one replaces them."""

    def __init__(self, mix: Mix, ledger: Ledger) -> None:
        self._mix = mix
        self._ledger = ledger
        # By schedule: the ids that it fired by itself, by their instants.
        self._fired: dict[str, dict[int, str]] = {}
        # What may run beside others.
        self._free: dict[str, None] = {}
        # When schedules were resumed.
        self._resumed: dict[str, int] = {}

    def saw(self, now: int, name: str, before: Before, state: State, changes: Changes) -> None:
        """A step was taken at `now` (ms)."""
        for id, promise in changes.promises.items():
            schedule_id = promise.tags.get(tag.SCHEDULE)
            if schedule_id is not None and id not in before.promises:
                self._born(now, name, promise, schedule_id, before, state)
        for id, after in changes.schedules.items():
            if after is not None:
                self._changed(now, name, before.schedules.get(id), after, state)
        for key in before.entries:
            schedule = state.schedules.get(key.name)
            if schedule is None:
                continue
            if key.kind is EntryKind.SCHEDULE_LINE:
                self._moved_up(schedule, before, state)
            else:
                self._went_past(now, schedule, before.entries[key], state)

    def resumed_at(self, promise: Promise) -> int:
        """When (ms) the schedule that fired a promise was last resumed; 0 if it never was."""
        return self._resumed.get(promise.tags.get(tag.SCHEDULE, ""), 0)

    def _break(self, oracle: str, why: str) -> None:
        self._ledger.break_off(oracle, why)

    # -- what is fired

    def _born(
        self, now: int, name: str, promise: Promise, id: str, before: Before, state: State
    ) -> None:
        schedule = state.schedules.get(id)
        if schedule is None:
            self._break(AT_EACH, f"{promise.id} is fired by {id}, which is not there")
            return
        self._as_deployed(now, promise, schedule)
        stamp = promise.id.removeprefix(schedule.promise_id.replace("{{.id}}", id).split(_STAMP)[0])
        if name == TRIGGER:
            if not stamp.startswith(TRIGGERED):
                self._break(ONCE, f"{promise.id} was triggered under the id of an instant")
            return
        if not stamp.isdecimal():
            self._break(ONCE, f"{promise.id} is no instant of {id}")
            return
        instant, rhythm = int(stamp), rhythm_of(schedule)
        # What waits in line may be of a rhythm that is over.
        is_direct = name in (FIRE, BACKFILL)
        if is_direct and rhythm is not None and not rhythm.has(instant):
            self._break(AT_EACH, f"{promise.id} is no instant of {schedule}")
        delay = int(promise.tags.get(tag.DELAY, instant))
        if schedule.jitter and not instant <= delay <= instant + schedule.jitter:
            self._break(AS_DEPLOYED, f"{promise.id} of {schedule} is delayed to {delay}")
        if name == BACKFILL:
            if instant > now:
                self._break(AT_EACH, f"{promise.id} is of the future at {now}")
            return
        if schedule.paused:
            self._break(PAUSED, f"{promise.id} by {schedule}")
        if name == FIRE and instant != now:
            self._break(AT_EACH, f"{promise.id} is fired as of {now}")
        if name != FIRE and before.line(id).waiting[:1] != (instant,):
            self._break(OVERLAP, f"{promise.id}: in line are {before.line(id)}")
        self._fired_once(now, instant, promise, schedule, state)

    def _fired_once(
        self, now: int, instant: int, promise: Promise, schedule: ScheduleRecord, state: State
    ) -> None:
        fired = self._fired.setdefault(schedule.id, {})
        known = fired.get(instant, promise.id)
        if known != promise.id and known in state.promises:
            self._break(ONCE, f"{instant} of {schedule.id} is fired as {known} and {promise.id}")
        self._free.pop(promise.id, None)
        if schedule.overlap is Overlap.ALLOW:
            # And so may all that it has fired: from now on nobody waits for that.
            self._free.update(dict.fromkeys((*fired.values(), promise.id)))
        else:
            # Of what was allowed to overlap, only what fired last is in the way.
            last = fired.get(max(fired, default=0))
            for id in list(fired.values())[-LATEST:]:
                other = state.promises.get(id)
                if other is None or id == promise.id or (id in self._free and id != last):
                    continue
                if other.pending and other.timeout_at > now:
                    self._break(OVERLAP, f"{promise.id} is fired at {now}, {id} is pending")
        # In the order of firing.
        fired.pop(instant, None)
        fired[instant] = promise.id

    def _as_deployed(self, now: int, promise: Promise, schedule: ScheduleRecord) -> None:
        tags = {key: text for key, text in promise.tags.items() if key in schedule.promise_tags}
        is_delayed = schedule.jitter or tag.DELAY in schedule.promise_tags
        is_other = promise.param != schedule.promise_param
        if is_other or (tags != schedule.promise_tags and not is_delayed):
            self._break(AS_DEPLOYED, f"{promise} by {schedule}")
        elif promise.timeout_at != now + schedule.promise_timeout:
            self._break(AS_DEPLOYED, f"{promise.id}: until {promise.timeout_at}, fired as of {now}")

    # -- the clock of a schedule

    def _changed(
        self,
        now: int,
        name: str,
        before: ScheduleRecord | None,
        after: ScheduleRecord,
        state: State,
    ) -> None:
        rhythm = rhythm_of(after)
        if rhythm is None:
            return
        if name == ADVANCE and before is not None:
            self._advanced(now, before, after, rhythm, state)
            return
        if before is not None and before.paused and not after.paused:
            self._resumed[after.id] = now
        if before is None:
            expected = rhythm.after(now)
            # What one of this name that was deleted has fired is not in its way.
            self._fired.pop(after.id, None)
        elif rhythm_of(before) != rhythm or (before.zone, before.cron) != (after.zone, after.cron):
            expected = rhythm.after(max(now, before.last_run_at or 0))
        else:
            expected = before.next_run_at
            # A pause that was meant.
            is_resumed = before.paused and not after.paused and after.catchup is Catchup.NONE
            if is_resumed and expected <= now:
                expected = rhythm.after(now)
        if after.next_run_at != expected:
            self._break(KEEPS, f"{name} at {now} made {before} {after}, due next at {expected}")
        if before is not None and (before.created_at, before.last_run_at) != (
            after.created_at,
            after.last_run_at,
        ):
            self._break(KEEPS, f"{name} at {now} made {before} {after}")

    def _advanced(
        self,
        now: int,
        before: ScheduleRecord,
        after: ScheduleRecord,
        rhythm: Rhythm,
        state: State,
    ) -> None:
        due = rhythm.between(before.next_run_at, now)
        if before.paused:
            self._break(PAUSED, f"{before} became {after} at {now}")
        if not due:
            self._break(AT_EACH, f"{before} became {after} at {now}, before its instant")
            return
        late = now - max(before.next_run_at, self._resumed.get(before.id, 0))
        if self._mix.prompt and late > LATE_MS:
            self._break(IN_TIME, f"{before.id}: {late} ms late")
        wanted = due
        if before.catchup is Catchup.LAST:
            wanted = due[-1:]
        elif before.catchup is Catchup.NONE:
            wanted = [instant for instant in due if instant > now - MISSED_AFTER_MS]
        last = after.last_run_at if wanted else now
        if (
            last is None
            or (wanted and last not in wanted)
            or rhythm.after(last) != after.next_run_at
        ):
            self._break(AT_EACH, f"{before} became {after} at {now}, due were {wanted}")
            return
        for instant in wanted:
            if instant <= last:
                self._require(instant, before, state)

    def _require(self, instant: int, schedule: ScheduleRecord, state: State) -> None:
        """An instant was fired, or there was a reason to leave it out."""
        id = id_of(schedule, instant)
        if id in state.promises:
            # A backfill may have been there before: now it is what was fired last.
            self._fired.setdefault(schedule.id, {}).setdefault(instant, id)
            return
        if schedule.overlap is Overlap.SKIP and self._was_running(instant, schedule, state):
            return
        if schedule.overlap is Overlap.QUEUE:
            waiting = line_of(state.entries, schedule.id).waiting
            if instant in waiting or len(waiting) >= MAX_WAITING_INSTANTS:
                return
        why = f"{id} was not fired by {schedule}"
        self._break(AT_EACH if schedule.overlap is Overlap.ALLOW else OVERLAP, why)

    def _was_running(self, instant: int, schedule: ScheduleRecord, state: State) -> bool:
        """Whether something that it had fired before was not settled at the instant."""
        for id in list(self._fired.get(schedule.id, {}).values())[-LATEST:]:
            promise = state.promises.get(id)
            if promise is None or promise.timeout_at <= instant:
                continue
            if promise.pending or (promise.settled_at or 0) > instant:
                return True
        return False

    # -- lines and spans

    def _moved_up(self, schedule: ScheduleRecord, before: Before, state: State) -> None:
        """What leaves a line is fired, in order, unless it shall be left out from now on."""
        was, waiting = before.line(schedule.id).waiting, line_of(state.entries, schedule.id).waiting
        gone = [instant for instant in was if instant not in waiting]
        if gone and schedule.overlap is not Overlap.SKIP:
            lost = [instant for instant in gone if id_of(schedule, instant) not in state.promises]
            if lost or gone != list(was[: len(gone)]):
                self._break(OVERLAP, f"{gone} left the line of {schedule}: {was}")

    def _went_past(self, now: int, schedule: ScheduleRecord, entry: Entry, state: State) -> None:
        """What a backfill has passed is there."""
        rhythm, later = rhythm_of(schedule), state.entries.get(entry.key)
        assert isinstance(entry.data, Backfill)
        spans = later.data.spans if later and isinstance(later.data, Backfill) else ()
        first = entry.data.spans[0]
        if rhythm is None or spans[: len(entry.data.spans)] == entry.data.spans:
            return
        same = spans and spans[0].until == first.until and len(spans) >= len(entry.data.spans)
        until = spans[0].since if same else first.until
        for instant in rhythm.between(first.since, min(until - 1, now)):
            id = id_of(schedule, instant)
            if id not in state.promises:
                self._break(AT_EACH, f"{id} is not there after the backfill of {first}")

    def standing(self, state: State) -> str:
        """A line that nobody will bring on, in words."""
        for key, entry in state.entries.items():
            schedule = state.schedules.get(key.name)
            if key.kind is not EntryKind.SCHEDULE_LINE or schedule is None or schedule.paused:
                continue
            line = line_of(state.entries, key.name)
            last = state.promises.get(line.last)
            if line.waiting and entry.due_at is None and (last is None or not last.pending):
                return f"{line.waiting} of {key.name} wait, {last} is settled"
        return ""


def line_of(entries: dict[EntryKey, Entry], schedule_id: str) -> ScheduleLine:
    """What waits in a schedule's line."""
    entry = entries.get(EntryKey(EntryKind.SCHEDULE_LINE, schedule_id))
    return entry.data if entry and isinstance(entry.data, ScheduleLine) else _NO_LINE
