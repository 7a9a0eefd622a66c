"""Each bug of the zoo can be put in and taken out, and is documented as it is."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from kept.sim.zoo.bug import applied, site_of
from kept.sim.zoo.registry import BY_NAME, ZOO
from kept.sim.zoo.runner import FIRST_SEED, Job, run_job, run_zoo, verdicts

FLOORS = {"machine", "engine", "stores", "transports", "client", "server", "sdk"}


def everything() -> dict[tuple[str, ...], Any]:
    """All that the modules of the system hold, with their classes and tables, by where it stands."""
    found: dict[tuple[str, ...], Any] = {}
    for module_name, module in list(sys.modules.items()):
        if not module_name.startswith("kept"):
            continue
        for name, value in list(vars(module).items()):
            found[module_name, name] = value
            if isinstance(value, type) and value.__module__ == module_name:
                for attribute, member in list(vars(value).items()):
                    found[module_name, name, attribute] = member
            elif type(value) is dict and not name.startswith("__"):
                for key, member in list(value.items()):
                    found[module_name, name, repr(key)] = member
    return found


def differences(before: dict[tuple[str, ...], Any]) -> list[tuple[str, ...]]:
    after = everything()
    return [place for place, value in before.items() if after.get(place) is not value]


def test_every_floor_has_bugs() -> None:
    """There are many, with names of their own, on every floor that runs."""
    assert len(BY_NAME) == len(ZOO) >= 25
    assert {bug.floor for bug in ZOO} == FLOORS
    assert all(bug.simulated or bug.walks for bug in ZOO)


def test_bugs_are_put_in_and_taken_out() -> None:
    """The place of each exists and is changed while it is applied; afterwards all is as it was."""
    before = everything()
    for bug in ZOO:
        site = site_of(bug.place)
        original = site.raw
        with applied(bug):
            assert site.raw is not original, bug.name
        assert site.raw is original, bug.name
    assert differences(before) == []


def test_a_bug_is_taken_out_when_the_play_breaks_off() -> None:
    """An error on the way leaves nothing behind."""
    bug = BY_NAME["fulfil-unfenced"]
    original = site_of(bug.place).raw
    with pytest.raises(RuntimeError), applied(bug):
        raise RuntimeError
    assert site_of(bug.place).raw is original


@pytest.mark.parametrize("place", ["kept.machine.tasks:no_such", "kept.machine.tasks:Held.no"])
def test_a_place_that_does_not_exist_is_refused(place: str) -> None:
    """A renamed function must not leave a bug that changes nothing."""
    with pytest.raises(LookupError):
        site_of(place)


def test_every_handler_is_replaced_in_its_table() -> None:
    """A function that is known by several names is replaced under all of them."""
    from kept.machine.dispatch import HANDLERS
    from kept.protocol.requests import TaskFulfill

    original = HANDLERS[TaskFulfill]
    with applied(BY_NAME["fulfil-unfenced"]):
        assert HANDLERS[TaskFulfill] is not original
    assert HANDLERS[TaskFulfill] is original


def test_what_there_is_no_time_for_is_neither_found_nor_missed() -> None:
    """A series and walks that are not begun are said to be unplayed, not to have found nothing."""
    bug = BY_NAME["fulfil-unfenced"]
    results = list(run_zoo([bug], series=1, seeds=20, processes=1, control=False, until=0))
    assert [result.finished for result in results] == [False, False]
    (verdict,) = verdicts([bug], results)
    assert (verdict.played, verdict.found, verdict.simulation) == (False, False, None)


def test_a_series_ends_with_the_first_seed_that_finds_the_bug() -> None:
    """And says in how many seeds, by which oracle, in which seed."""
    bug = BY_NAME["fulfil-unfenced"]
    results = [run_job(Job(bug.name, 0, 20, 25))]
    (verdict,) = verdicts([bug], results)
    seen = results[0].seen
    assert seen is not None
    assert seen.seed == FIRST_SEED + seen.number - 1
    assert verdict.simulation is not None
    assert (verdict.simulation.worst, verdict.simulation.oracle) == (seen.number, seen.oracle)
