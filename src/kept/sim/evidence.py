"""The page of a failure: a plan is played once more, and everything that happened is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from kept.check.history import Fault, History
from kept.check.incident import Breakage, Incident, Life, Mark
from kept.check.linearizability import ComponentResult
from kept.check.timeline import page
from kept.sim.judgement import checked
from kept.sim.mix import SHARES
from kept.sim.plan import Plan, in_words
from kept.sim.run import LINEARIZABLE, Played, play_plan, shown_lines
from kept.sim.runtime import EPOCH_MS
from kept.sim.trace import FAULT, Event

SHOWN_LINES: Final = 200
# The last steps and commits: a browser draws no more.
MAX_MARKS: Final = 20_000
MARKED: Final = ("step", "commit")


def failure_page(plan: Plan, command: str) -> str:
    """Plays a plan and draws what happened, as one page that loads nothing."""
    played = play_plan(plan, kept_events=None)
    history = drawn_history(played)
    breakage = played.outcome.breakage
    result = checked(history)
    about = [each for each in result.violations if breakage and _is_about(each, breakage)]
    return page(history, result if about else None, _incident(played, command))


def _is_about(violation: ComponentResult, breakage: Breakage) -> bool:
    """Whether operations that cannot be linearized have to do with what broke."""
    if breakage.oracle == LINEARIZABLE:
        return True
    told = {*breakage.ids, *breakage.why.split()}
    return any(key in told for key in violation.keys)


def drawn_history(played: Played) -> History:
    """The history of a run, with the faults of single messages and commits as marks too."""
    history = played.history
    faults = [*history.faults, *_small_faults(played.world.trace.events)]
    broken = played.outcome.breakage
    title = f"seed {played.outcome.seed}: {broken.oracle if broken else 'everything held'}"
    header = msgspec.structs.replace(history.header, title=title)
    return History(header, history.operations, sorted(faults, key=lambda fault: fault.at))


def _small_faults(events: Iterable[Event]) -> Iterator[Fault]:
    for event in events:
        kind = event.what.removeprefix(FAULT)
        if event.what.startswith(FAULT) and kind in SHARES:
            yield Fault(kind=kind, at=_instant(event.at), process=event.who, detail=event.text)


def _incident(played: Played, command: str) -> Incident:
    events = played.world.trace.events
    marks = [
        Mark(at=_instant(event.at), process=event.who, what=event.what, text=event.text)
        for event in events
        if event.what in MARKED
    ]
    return Incident(
        breakage=played.outcome.breakage,
        command=command,
        plan=in_words(played.world.plan),
        lives=list(_lives(events)),
        marks=marks[-MAX_MARKS:],
        lines=shown_lines(played.world, played.outcome.breakage, SHOWN_LINES),
        left_out=max(0, len(marks) - MAX_MARKS),
    )


def _lives(events: Iterable[Event]) -> Iterator[Life]:
    """One for each start, until the process was killed or had left."""
    begun: dict[str, tuple[int, float]] = {}
    for event in events:
        name = event.who
        if event.what == "start":
            begun[name] = int(event.text), _instant(event.at)
        elif event.what == "kill" and name in begun:
            # One that has left is gone when the loop takes it away.
            number, at = begun.pop(name)
            yield Life(
                process=name, incarnation=number, at=at, until=_instant(event.at), end="killed"
            )
        elif event.what == "left" and name in begun and not event.text:
            number, at = begun.pop(name)
            yield Life(
                process=name, incarnation=number, at=at, until=_instant(event.at), end="stopped"
            )
    for name, (number, at) in begun.items():
        yield Life(process=name, incarnation=number, at=at)


def _instant(seconds: float) -> float:
    return round(EPOCH_MS + seconds * 1_000, 3)
