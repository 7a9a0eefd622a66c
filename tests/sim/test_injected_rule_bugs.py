"""Bugs put into the rules of queues, lanes, keys and attributes are found by the scripts about them,
and edges that are not stored by whoever registered them."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from kept.engine.background import Background
from kept.machine import attributes, dispatch, duplicates, limits, promises, tasks, turns
from kept.machine.step import Step
from kept.machine.working_set import WorkingSet
from kept.protocol.entries import EntryData, RateLimit
from kept.protocol.records import Promise, Task
from kept.protocol.requests import PromiseCreate, PromiseRegisterCallback, TaskAnnotate
from kept.protocol.responses import OK, PromiseResult, Response
from kept.sim import clients, requests, scripts, world
from kept.sim.mix import draw_mix
from kept.sim.requests import RawClient
from kept.sim.run import run_seed

TICKS = 10
SEEDS = 2


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "SETTLE_SECONDS", 120)


def _broken(monkeypatch: pytest.MonkeyPatch, *names: str) -> str:
    """What broke in calm worlds whose clients play these scripts, or ask raw requests where there
    are none."""
    monkeypatch.setattr(clients, "SHARE_OF_SCRIPTS", 0.9 if names else 0.0)
    monkeypatch.setattr(clients, "SHARE_OF_STARTS", 0.0)
    monkeypatch.setattr(scripts, "playable", lambda mix: list(names))
    calm = (seed for seed in range(1, 200) if draw_mix(seed).prompt)
    for _, seed in zip(range(SEEDS), calm, strict=False):
        broken = run_seed(seed, TICKS).broken
        if broken is not None:
            return broken
    return ""


def test_scripts_of_rules_go_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts themselves hold where nothing is broken."""
    names = [n for n in scripts.SCRIPTS if n.endswith(("@keys", "@lanes", "@attributes"))]
    assert _broken(monkeypatch, *names) == ""


def test_a_lane_that_gets_one_turn_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lanes that take turns by other weights than their own are caught by the order."""
    monkeypatch.setattr(turns, "_weight", lambda settings, lane: 2 if lane else 1)
    assert "took turns as" in _broken(monkeypatch, "turns@lanes")


def test_one_start_too_many_in_a_period(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate that lets one more start is caught by counting."""

    def generous(starts: EntryData | None, rate: RateLimit, now: int) -> int | None:
        return window(starts, RateLimit(rate.limit + 1, rate.period), now)

    window = limits.next_window
    monkeypatch.setattr(limits, "next_window", generous)
    assert "of a rate of 2" in _broken(monkeypatch, "rates@lanes")


def test_a_start_that_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """task.create is born acquired, which is a start like any other."""
    monkeypatch.setattr(tasks, "count_start", lambda step, task: None)
    assert "of a rate of 2" in _broken(monkeypatch, "rates@lanes")


def test_a_full_queue_that_takes_one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that is never full is caught by the first create beyond its depth."""
    monkeypatch.setattr(promises, "is_full", lambda step, queue: False)
    assert "not 429" in _broken(monkeypatch, "depth@lanes")


def test_a_full_queue_that_refuses_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full queue that refuses what belongs to running work is caught, though it says to ask again."""

    def strict(step: Step, request: PromiseCreate) -> object:
        return promises.create_promise(step, request, may_be_shed=True)

    monkeypatch.setitem(dispatch.HANDLERS, PromiseCreate, strict)
    broken = _broken(monkeypatch, "depth@lanes")
    assert "again and again" in broken or "promise.create: 429" in broken


def test_a_debounce_that_brings_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    """A create that makes what waits due at once is caught, by a property or by the script."""

    def eager(
        step: Step, create: PromiseCreate, task: Task, holder: Promise, latest: int | None
    ) -> None:
        duplicates.put_pending(step, task, holder, step.now)

    monkeypatch.setattr(duplicates, "_postpone", eager)
    assert "task_retry_rearm" in _broken(monkeypatch, "debounced@keys")


def test_a_dedupe_key_that_takes_any_content(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other content under a held key is to be refused."""
    monkeypatch.setattr(duplicates, "fingerprint_of", lambda create: "")
    assert "not 409" in _broken(monkeypatch, "deduped@keys")


def test_an_attribute_that_is_not_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set to nothing is gone."""
    annotate = attributes.task_annotate

    def forgetful(step: Step, request: TaskAnnotate) -> Response:
        kept = {name: value for name, value in request.set.items() if value is not None}
        return annotate(step, replace(request, set=kept))

    monkeypatch.setitem(dispatch.HANDLERS, TaskAnnotate, forgetful)
    assert "attributes: it is" in _broken(monkeypatch, "said@attributes")


def test_a_callback_on_what_nobody_can_await(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is told that it will hear of a promise waits for one that can be awaited."""

    def careless(step: Step, request: PromiseRegisterCallback) -> Response:
        awaited = step.records.promise(request.awaited)
        if awaited is None or step.records.task(request.awaiter) is None:
            return promises.no_promise(request.awaited)
        step.records.add_callback(request.awaited, request.awaiter)
        return Response(OK, PromiseResult(awaited.record()))

    monkeypatch.setitem(dispatch.HANDLERS, PromiseRegisterCallback, careless)
    _prefer_callbacks(monkeypatch)
    broken = _broken(monkeypatch)
    assert "require_external" in broken or "callbacks_shrink" in broken or "registers" in broken


def test_a_callback_that_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever was told that it will hear of a promise looks for its edge."""
    monkeypatch.setattr(WorkingSet, "add_callback", lambda self, awaited, awaiter: None)
    _prefer_callbacks(monkeypatch)
    assert "who registers hears of it" in _broken(monkeypatch)


def _prefer_callbacks(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = (RawClient.promise_create, RawClient.task_create, RawClient.callback)
    weights = [float(builder in chosen) for builder in requests._BUILDERS]
    monkeypatch.setattr(requests, "_WEIGHTS", weights)
    monkeypatch.setattr(requests, "SHARE_OF_RARE", 0.0)


def test_a_background_that_never_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that looks again at once, and gives nobody a turn, ends the run with its name."""
    monkeypatch.setattr(Background, "_seconds_to_wait", lambda self: 0.0)
    assert "looks for what is due again and again" in _broken(monkeypatch)
