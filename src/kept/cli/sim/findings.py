"""What a failure leaves behind: what broke, how to repeat it, a smaller plan, and a page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from kept.cli.failure import UsageError
from kept.cli.sim.words import print_plan
from kept.runtime import SystemRuntime
from kept.sim.evidence import failure_page
from kept.sim.plan import Plan, save_plan
from kept.sim.run import Outcome
from kept.sim.shrink import DEFAULT_RUNS, DEFAULT_SECONDS, Shrinker


class Planned(NamedTuple):
    """A plan, and the file that it is in, if it is in one."""

    plan: Plan
    path: Path | None = None

    @property
    def command(self) -> str:
        """The command that plays it."""
        return self.plan.command(self.path)


def tell_failure(outcome: Outcome, planned: Planned, directory: Path, *, shrinks: bool) -> None:
    """Tells of a run that broke, and writes its smaller plan and its page."""
    print("\nthe last events:")
    for line in outcome.lines:
        print(f"  {line}")
    print(f"\nbroken    {outcome.broken}")
    print(f"repeat    {planned.command}")
    write_page((shrunk(planned, directory) if shrinks else None) or planned, directory)


def shrunk(
    planned: Planned,
    directory: Path,
    *,
    runs: int = DEFAULT_RUNS,
    seconds: float = DEFAULT_SECONDS,
) -> Planned | None:
    """A plan made as small as the budget allows, told in words and written; None: it does not fail."""
    clock = SystemRuntime().monotonic
    shrinker = Shrinker(planned.plan, clock, runs=runs, seconds=seconds, progress=_progress)
    smaller = shrinker.shrink()
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    if shrinker.breakage is None:
        print("shrunk    nothing: it does not break")
        return None
    if smaller == planned.plan:
        print(f"shrunk    nothing: as small as it gets, or too few of {shrinker.runs} runs failed")
        return planned
    end = "nothing more can go" if shrinker.finished else "the budget is spent"
    print(f"shrunk    in {shrinker.runs} runs: {end}")
    print_plan(smaller)
    print(f"broken    {shrinker.breakage}")
    path = _place(directory, smaller, "plan.json")
    try:
        save_plan(smaller, path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None
    found = Planned(smaller, path)
    print(f"repeat    {found.command}")
    return found


def write_page(planned: Planned, directory: Path) -> None:
    """Plays a plan once more, and writes what happened as a page."""
    path = _place(directory, planned.plan, "html")
    text = failure_page(planned.plan, planned.command)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None
    print(f"page      {path}")


def _place(directory: Path, plan: Plan, ending: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory / f"kept-sim-{plan.seed}.{ending}"


def _progress(runs: int, plan: Plan, what: str) -> None:
    if sys.stderr.isatty():
        size = f"{plan.ticks} ticks, {len(plan.mix.faults)} faults"
        if plan.actions is not None:
            size += f", {len(plan.actions)} actions"
        sys.stderr.write(f"\r\033[Kshrinking: {size}; run {runs}: fewer {what}? ")
        sys.stderr.flush()
