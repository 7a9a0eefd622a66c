"""What a workflow does follows from its code and the order of releases, and from nothing else."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import kept
from tests.unit.sdk.loop.programs import (
    BRANCHINGS,
    INDEPENDENT_BRANCHINGS,
    INDEPENDENT_LEAVES,
    LEAVES,
    Node,
    play,
    story,
)
from tests.unit.sdk.loop.world import World, in_order, last_first, replay

ROOT = Path(__file__).resolve().parents[4]
SEEDS_PER_PROCESS = 50
HASH_SEEDS = (0, 1, 7, 4_294_967_295)


def programs(leaves: tuple[str, ...], branchings: tuple[str, ...]) -> st.SearchStrategy[Node]:
    """Programs over the given operations."""
    numbers = st.integers(0, 4)
    return st.recursive(
        st.builds(Node, st.sampled_from(leaves), numbers),
        lambda part: st.builds(
            Node, st.sampled_from(branchings), numbers, st.lists(part, max_size=4).map(tuple)
        ),
        max_leaves=12,
    )


any_program = programs(LEAVES, BRANCHINGS)
seeds = st.integers(0, 2**32)


def at_random(seed: int) -> Any:
    """Chooses results at random, the same with the same seed."""
    return random.Random(seed).choice


def played(program: Node, choose: Any, *, eager: bool = False) -> tuple[World, list[Any]]:
    """A finished run and its story. Every step and every timer of it has a name of its own."""
    world = play(program, choose, eager=eager)
    told = story(world)
    world.loop.close()
    names = [line.split()[1] for line in world.trace if line.startswith(("ask ", "arm "))]
    assert len(names) == len(set(names))
    return world, told


def test_processes_agree_whatever_the_hash_seed_and_the_addresses() -> None:
    """200 random workflows, released in random order, do the same under other hash seeds and addresses."""
    command = [
        sys.executable,
        "-m",
        "tests.unit.sdk.loop.programs",
        "0",
        str(SEEDS_PER_PROCESS * 4),
    ]
    source = str(Path(kept.__file__).parents[1])
    outputs = []
    for hash_seed in HASH_SEEDS:
        environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": source}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
        outputs.append(done.stdout)
    assert len(outputs[0].splitlines()) == SEEDS_PER_PROCESS * len(HASH_SEEDS)
    assert outputs.count(outputs[0]) == len(outputs)


@settings(max_examples=200)
@given(program=any_program, seed=seeds, eager=st.booleans())
def test_a_replay_of_the_order_of_releases_repeats_everything(
    program: Node, seed: int, *, eager: bool
) -> None:
    """Given the order in which results came in, code asks for the same in the same order, and ends alike."""
    first, told = played(program, at_random(seed), eager=eager)
    _, told_again = played(program, replay(first.order), eager=eager)
    assert told_again == told


@settings(max_examples=100)
@given(any_program, seeds, st.data())
def test_a_replay_of_part_of_the_order_repeats_that_part(
    program: Node, seed: int, data: st.DataObject
) -> None:
    """A crash anywhere: the replayed part is the same, even when what follows comes in otherwise."""
    first, _ = played(program, at_random(seed))
    kept_releases = data.draw(st.integers(0, len(first.order)))
    prefix = first.order[:kept_releases]
    second, _ = played(program, replay(prefix, last_first))
    again, _ = played(program, replay(second.order))
    assert again.trace == second.trace
    assert until(first, kept_releases) == until(second, kept_releases)


def until(world: World, releases: int) -> list[str]:
    """What happened before release number `releases` + 1."""
    count = itertools.count()
    return list(
        itertools.takewhile(
            lambda line: not line.startswith("release ") or next(count) < releases, world.trace
        )
    )


@settings(max_examples=100)
@given(programs(INDEPENDENT_LEAVES, INDEPENDENT_BRANCHINGS), seeds)
def test_names_do_not_depend_on_the_order_of_completion(program: Node, seed: int) -> None:
    """Where completion does not decide what is done, any order asks for the same under the same names."""
    (one, _), (other, _) = played(program, in_order), played(program, at_random(seed))
    asks = [
        sorted(line for line in world.trace if line.startswith("ask ")) for world in (one, other)
    ]
    assert asks[0] == asks[1]


@settings(max_examples=100)
@given(any_program, seeds, st.data())
def test_dropping_a_workflow_anywhere_has_no_effect_and_can_be_replayed(
    program: Node, seed: int, data: st.DataObject
) -> None:
    """Evicted after any number of releases, it asks for nothing more; a new loop takes it to the same end."""
    whole, told = played(program, at_random(seed))
    releases = data.draw(st.integers(0, len(whole.order)))
    part = play(program, replay(whole.order), releases=releases)
    before = list(part.trace)
    part.loop.close()
    added = [line for line in part.trace[len(before) :] if line != "generator ends"]
    assert added == []
    assert whole.trace[: len(before)] == before
    _, again = played(program, replay(whole.order))
    assert again == told
