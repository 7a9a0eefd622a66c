"""What came of runs, in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from kept.sim.judgement import Judgement
from kept.sim.plan import Plan, in_words
from kept.sim.run import Outcome
from kept.sim.soak import Tally, succeeded

MAX_WORDS_CHARACTERS: Final = 400
SHOWN_UNKNOWN: Final = 3


def print_outcome(outcome: Outcome) -> None:
    """A run: its world, how much happened and was checked, its hash."""
    mix = outcome.mix
    print(f"seed {outcome.seed}, {outcome.ticks} ticks: {_verdict(outcome)}")
    print(f"world     {mix.servers} servers, {mix.workers} workers, {mix.clients} clients")
    print(f"          on {mix.store}, leases of {mix.lease_seconds:g} s")
    print(f"virtual   {outcome.virtual_seconds:,.0f} s in {outcome.callbacks:,} callbacks")
    print(f"events    {outcome.events:,} in the trace, {outcome.commits:,} commits")
    print(f"work      {outcome.goals:,} workflows and jobs, {outcome.effects:,} effects,")
    print(f"          {outcome.repeated:,} of them tried again")
    print(f"checked   {sum(outcome.properties.values()):,} property evaluations,")
    print(f"          {outcome.compared:,} answers held against earlier ones")
    _print_judgement(outcome.judgement)
    print(f"answers   {_joined(succeeded(outcome.answers).items())}")
    print(f"faults    {_joined(outcome.faults.items()) or 'none'}")
    print(f"trace     {outcome.digest}")


def _print_judgement(judgement: Judgement) -> None:
    verdict = "not linearizable" if judgement.violation else "linearizable"
    print(f"history   {judgement.operations:,} operations in {judgement.components:,} components,")
    print(f"          the largest of {judgement.largest:,}, judged in {judgement.steps:,} steps:")
    print(f"          {verdict}, {len(judgement.unknown):,} components unknown")
    for unknown in judgement.unknown[:SHOWN_UNKNOWN]:
        print(f"          {unknown}")


def _verdict(outcome: Outcome) -> str:
    return "everything held" if outcome.ok else "BROKEN"


def print_tally(tally: Tally, ticks: int) -> None:
    """Many runs together."""
    print(f"{tally.runs:,} runs of {ticks} ticks, {len(tally.failed):,} seeds broke")
    print(f"events    {tally.events:,} in {tally.callbacks:,} callbacks, {tally.commits:,} commits")
    print(f"work      {tally.goals:,} workflows and jobs")
    print(f"checked   {tally.properties.total():,} property evaluations,")
    print(f"          {tally.compared:,} answers held against earlier ones")
    print(f"histories {tally.judged:,} operations in {tally.components:,} components, judged in")
    print(f"          {tally.steps:,} steps; {tally.unknown:,} components unknown")
    if tally.played_twice:
        print(f"again     {tally.played_twice:,} seeds, {len(tally.mismatches):,} differed")
    print(f"answers   {_joined(sorted(succeeded(tally.answers).items()))}")
    print(f"faults    {_joined(sorted(tally.faults.items())) or 'none'}")
    if tally.failed:
        print(f"broken    seeds {_listed(tally.failed)}")
    if tally.mismatches:
        print(f"differed  seeds {_listed(sorted(tally.mismatches))}")


def print_plan(plan: Plan) -> None:
    """A plan, a line for each thing that it says."""
    lines = in_words(plan)
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        short = text[:MAX_WORDS_CHARACTERS] + "…" * (len(text) > MAX_WORDS_CHARACTERS)
        print(f"  {name:{width}}  {short}")


def _joined(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts)


def _listed(seeds: Sequence[int]) -> str:
    return " ".join(map(str, seeds))
