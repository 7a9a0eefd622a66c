"""A plan says everything that a run follows from: a seed, its mix, and what is taken away from it.

The plan of a seed takes nothing away. A smaller plan of the same seed lets only some faults strike,
and clients do only some of what they would have done; whatever is left draws what it drew before, as
far as it can. So plans can be made smaller step by step (`shrink.py`), and be read.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

import kept
from kept.sim.mix import PERIODS, SHARES, STORES, Mix, draw_mix

NOTE: Final = "a plan belongs to the code that it was made with: elsewhere it may play another run"
FORMAT: Final = 1
CODE_CHARACTERS: Final = 16


class PlanError(ValueError):
    """A file that is no plan; the text says where and why."""


class Plan(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """What a run follows from. Where a field that takes away is None, nothing is taken away."""

    note: str
    format: int
    # The digest of the code that it was made with.
    code: str
    seed: int
    # Seconds of virtual time with faults.
    ticks: int
    # The ticks of the seed that it comes from: when faults first strike depends on them.
    horizon: int
    mix: Mix
    # By fault, the numbers of the strikes that happen; all of a fault that is not named.
    strikes: dict[str, tuple[int, ...]] = {}
    # What clients do, by `name/incarnation#number`; and of which kinds and programs.
    actions: tuple[str, ...] | None = None
    kinds: tuple[str, ...] | None = None
    programs: tuple[str, ...] | None = None
    # Within so many virtual seconds everything settles, once faults have stopped.
    settle_seconds: int | None = None

    @property
    def whole(self) -> bool:
        """Whether this is all that the seed drew."""
        return self == draw_plan(self.seed, self.ticks)

    def replace(self, **changes: object) -> Plan:
        """The plan with other fields."""
        return msgspec.structs.replace(self, **changes)

    def command(self, path: Path | None = None) -> str:
        """The command that plays it; a plan that is not whole needs its file."""
        if self.whole or path is None:
            return f"kept sim run --seed {self.seed} --ticks {self.ticks}"
        return f"kept sim replay {path}"


def draw_plan(seed: int, ticks: int, mix: Mix | None = None) -> Plan:
    """The whole plan of a seed, of so many virtual seconds with faults."""
    return Plan(
        note=NOTE,
        format=FORMAT,
        code=code_digest(),
        seed=seed,
        ticks=ticks,
        horizon=ticks,
        mix=mix or draw_mix(seed),
    )


@cache
def code_digest() -> str:
    """A digest of the package's source, in hex: what a seed plays depends on all of it."""
    digest = hashlib.sha256()
    root = Path(kept.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:CODE_CHARACTERS]


def load_plan(path: Path) -> Plan:
    """The plan of a file. Raises `PlanError`, and OSError."""
    try:
        plan = msgspec.json.decode(path.read_bytes(), type=Plan)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PlanError(str(error)) from None
    if plan.format != FORMAT:
        raise PlanError(f"format {plan.format} is not {FORMAT}")
    complaint = _complaint(plan)
    if complaint is not None:
        raise PlanError(complaint)
    return plan


def _complaint(plan: Plan) -> str | None:
    """Why nobody can play it: such a world would be empty, or stand still."""
    mix = plan.mix
    for name, count in (
        ("ticks", plan.ticks),
        ("horizon", plan.horizon),
        ("servers", mix.servers),
        ("clients", mix.clients),
    ):
        if count < 1:
            return f"{name} is {count}, and must be 1 or more"
    if mix.lease_seconds <= 0:
        return f"lease_seconds is {mix.lease_seconds:g}, and must be above 0"
    if mix.store not in STORES:
        return f"there is no store {mix.store!r}; there are {' and '.join(STORES)}"
    unknown = sorted(mix.faults.keys() - SHARES.keys() - PERIODS.keys())
    return f"there is no fault {unknown[0]!r}" if unknown else None


def save_plan(plan: Plan, path: Path) -> None:
    """Writes the plan as JSON for people too. Raises OSError."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(plan), indent=2) + b"\n")


def in_words(plan: Plan) -> list[tuple[str, str]]:
    """What happens in a plan, as names and texts, with nothing of what is taken away."""
    mix = plan.mix
    engines = ", each with an engine of its own" if mix.embedded else ""
    lines = [
        ("seed", f"{plan.seed}, {_count(plan.ticks, 'tick')}"),
        (
            "world",
            f"{_count(mix.servers, 'server')}, {_count(mix.workers, 'worker')}{engines},"
            f" {_count(mix.clients, 'client')}, on {mix.store}",
        ),
        ("messages", f"take {_span(mix.delay)}{_share(mix.overtaken, 'are overtaken')}"),
        ("commits", f"take {_span(mix.commit_seconds)}"),
        ("leases", f"last {mix.lease_seconds:g} s"),
        *_leaving(mix),
        ("clocks", _clocks(mix)),
        ("faults", _faults(plan)),
        ("clients do", _actions(plan)),
    ]
    if plan.kinds is not None:
        lines.append(("they ask", ", ".join(plan.kinds) or "nothing by themselves"))
    if plan.programs is not None:
        lines.append(("they start", ", ".join(plan.programs) or "nothing"))
    return lines


def _leaving(mix: Mix) -> list[tuple[str, str]]:
    if mix.retention_seconds is None:
        return []
    return [("settled work", f"leaves after {mix.retention_seconds:g} s")]


def _faults(plan: Plan) -> str:
    told = []
    for name, rate in plan.mix.faults.items():
        numbers = plan.strikes.get(name)
        if numbers is None:
            how = f"{rate:.1%} of chances" if rate < 1 else f"every {rate:g} s or so"
            told.append(f"{name} ({how})")
        elif numbers:
            listed = ", ".join(map(str, numbers))
            told.append(f"{name} (only {'strike' if len(numbers) == 1 else 'strikes'} {listed})")
    return "; ".join(told) or "none"


def _actions(plan: Plan) -> str:
    if plan.actions is None:
        return "all that they draw"
    return f"{_count(len(plan.actions), 'action')}: {', '.join(plan.actions)}"


def _clocks(mix: Mix) -> str:
    if not mix.clock_spread_ms and not mix.drift:
        return "agree"
    return f"are up to {mix.clock_spread_ms} ms off and drift by up to {mix.drift:.1%}"


def _span(seconds: tuple[float, float]) -> str:
    low, high = (f"{bound * 1_000:g}" for bound in seconds)
    return "no time" if high == "0" else f"{low} to {high} ms"


def _share(share: float, what: str) -> str:
    return f", {share:.0%} {what}" if share else ""


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
