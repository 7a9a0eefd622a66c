"""Whole histories are judged: what no property of records can see, because it is only in answers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from kept.check.history import Operation
from kept.engine.committer import Committer, Item
from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.keys import has_keys
from kept.protocol.records import PromiseState
from kept.protocol.responses import (
    CONFLICT,
    NOT_FOUND,
    OK,
    AcquiredTask,
    ClaimResult,
    DeadLetterResult,
    HeartbeatResult,
    LostLease,
    NackResult,
    PreloadResult,
    PromiseResult,
    Response,
)
from kept.sim import world
from kept.sim.guards import GUARD_KINDS
from kept.sim.judgement import Judgement
from kept.sim.mix import draw_mix
from kept.sim.plan import draw_plan
from kept.sim.run import Played, play_plan, run_seed

TICKS = 40
MAX_SEEDS = 6
# Long enough for what is not broken, and short, because a broken world is played to its end.
SETTLE_SECONDS = 120

Lie = Callable[[r.Request, Response], Response | None]


class StaleCache:
    """The first answer to a get is given again and again."""

    def __init__(self) -> None:
        self._known: dict[str, Response] = {}

    def __call__(self, asked: r.Request, answer: Response) -> Response | None:
        if isinstance(asked, r.PromiseGet) and isinstance(answer.data, PromiseResult):
            return self._known.setdefault(asked.id, answer)
        return None


class TwoHolders:
    """Whoever comes too late for a lease is answered as the one who got it."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], Response] = {}

    def __call__(self, asked: r.Request, answer: Response) -> Response | None:
        if not isinstance(asked, r.TaskAcquire):
            return None
        if answer.ok:
            self._known[asked.id, asked.version] = answer
            return None
        return self._known.get((asked.id, asked.version))


def wrong_status(asked: r.Request, answer: Response) -> Response | None:
    """What does not exist is a conflict."""
    is_wrong = isinstance(asked, r.TaskGet | r.TaskAcquire) and answer.status == NOT_FOUND
    return Response(CONFLICT, answer.data) if is_wrong else None


def incomplete_preload(asked: r.Request, answer: Response) -> Response | None:
    """Who acquires a task, or goes on with it at once, is not told of its last child."""
    data = answer.data
    if isinstance(data, ClaimResult):
        return Response(OK, ClaimResult([_without_last(each) for each in data.tasks]))
    if isinstance(data, AcquiredTask):
        return Response(OK, _without_last(data))
    if isinstance(data, PreloadResult):
        return Response(answer.status, replace(data, preload=data.preload[:-1]))
    return None


def _without_last(lease: AcquiredTask) -> AcquiredTask:
    return replace(lease, preload=lease.preload[:-1])


def wrong_attempt(asked: r.Request, answer: Response) -> Response | None:
    """The count of attempts is one too high from the second on."""
    if isinstance(answer.data, ClaimResult):
        return Response(OK, ClaimResult([_recounted(each) for each in answer.data.tasks]))
    return None


def _recounted(lease: AcquiredTask) -> AcquiredTask:
    is_second = lease.attempt is not None and lease.attempt > 1
    return replace(lease, attempt=lease.attempt + 1) if is_second else lease  # type: ignore[operator]


def wrong_instant(asked: r.Request, answer: Response) -> Response | None:
    """A settlement is said to be a second later than it was."""
    data = answer.data
    if isinstance(asked, r.PromiseSettle) and isinstance(data, PromiseResult):
        promise = data.promise
        if promise.state is not PromiseState.REJECTED_TIMEDOUT and promise.settled_at is not None:
            return Response(
                OK, PromiseResult(replace(promise, settled_at=promise.settled_at + 1_000))
            )
    return None


def wrong_outcome(asked: r.Request, answer: Response) -> Response | None:
    """A nack that ends the work is answered as if it were tried again."""
    if isinstance(answer.data, NackResult) and answer.data.retry_at is None:
        return Response(OK, NackResult("retry", 1_800_000_000_000))
    return None


def wrong_letter(asked: r.Request, answer: Response) -> Response | None:
    """A dead letter counts no failures."""
    if isinstance(answer.data, DeadLetterResult):
        return Response(OK, DeadLetterResult(replace(answer.data.letter, failures=0)))
    return None


def false_alarm(asked: r.Request, answer: Response) -> Response | None:
    """A heartbeat is told that leases were lost which hold."""
    if isinstance(asked, r.TaskHeartbeat) and isinstance(answer.data, HeartbeatResult):
        lost = [LostLease(each.id, each.version, "expired") for each in asked.tasks]
        return Response(OK, replace(answer.data, lost=lost))
    return None


def untold_claim(asked: r.Request, answer: Response) -> Response | None:
    """Who takes work that is asked to stop is not told."""
    data = answer.data
    if isinstance(data, ClaimResult):
        return Response(
            OK, ClaimResult([replace(each, cancel_requested_at=None) for each in data.tasks])
        )
    if isinstance(data, AcquiredTask):
        return Response(OK, replace(data, cancel_requested_at=None))
    return None


def canceled_too_soon(asked: r.Request, answer: Response) -> Response | None:
    """A canceled promise that has a parent is said to be so since a minute before."""
    data = answer.data
    if (
        not isinstance(data, PromiseResult)
        or data.promise.state is not PromiseState.REJECTED_CANCELED
    ):
        return None
    promise = data.promise
    if tag.PARENT not in promise.tags or promise.settled_at is None:
        return None
    return Response(OK, PromiseResult(replace(promise, settled_at=promise.settled_at - 60_000)))


def key_refused(asked: r.Request, answer: Response) -> Response | None:
    """A create under a key is a conflict, whoever has it."""
    is_keyed = isinstance(asked, r.PromiseCreate) and has_keys(asked.tags)
    return Response(CONFLICT, "no") if is_keyed and answer.ok else None


LIES: tuple[Callable[[], Lie], ...] = (
    StaleCache,
    TwoHolders,
    *(
        (lambda lie=lie: lie)
        for lie in (
            wrong_status,
            incomplete_preload,
            wrong_attempt,
            wrong_instant,
            wrong_outcome,
            wrong_letter,
            false_alarm,
            untold_claim,
            canceled_too_soon,
            key_refused,
        )
    ),
)
NAMES = [
    *("stale cache", "two holders", "wrong status", "incomplete preload", "wrong attempt"),
    *("wrong instant", "wrong outcome", "wrong letter", "false alarm"),
    *("untold claim", "canceled too soon", "key refused"),
]


@pytest.mark.parametrize("new_lie", LIES, ids=NAMES)
def test_a_lie_is_found(monkeypatch: pytest.MonkeyPatch, new_lie: Callable[[], Lie]) -> None:
    """An answer that no order explains is found, though every record is right."""
    monkeypatch.setattr(world, "SETTLE_SECONDS", SETTLE_SECONDS)
    answer_all = Committer._answer
    lie = new_lie()

    def lying(self: Committer, batch: list[Item]) -> None:
        for item in batch:
            if isinstance(item.work, r.Request) and isinstance(item.outcome, Response):
                item.outcome = lie(item.work, item.outcome) or item.outcome
        answer_all(self, batch)

    monkeypatch.setattr(Committer, "_answer", lying)
    violations = (_judged(seed).violation for seed in range(1, MAX_SEEDS + 1))
    assert any(violations)


def _judged(seed: int) -> Judgement:
    return run_seed(seed, TICKS).judgement


def test_a_violation_breaks_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle has a name, and says what was answered and what would have fitted."""
    answer_all = Committer._answer

    def lying(self: Committer, batch: list[Item]) -> None:
        for item in batch:
            # Scripts know each answer beforehand, and would find it first.
            of_raw = getattr(item.work, "id", "").startswith("raw-")
            if of_raw and isinstance(item.work, r.Request) and isinstance(item.outcome, Response):
                item.outcome = wrong_status(item.work, item.outcome) or item.outcome
        answer_all(self, batch)

    monkeypatch.setattr(Committer, "_answer", lying)
    found: list[str] = []
    # What would have fitted is not told where nothing at all fits the answer's instant.
    while not any("status: expected 404, got 409" in text for text in found):
        assert len(found) < MAX_SEEDS
        broken = run_seed(len(found) + 1, TICKS).broken
        assert broken is None or "linearizable:" in broken
        found.append(broken or "")


def _asked(played: Played) -> list[Operation]:
    """Those who contend for guards have an oracle of their own."""
    return [each for each in played.history.operations if each.kind not in GUARD_KINDS]


def test_nearly_everything_is_judged() -> None:
    """Of what is asked, what searches and such left out aside."""
    played = play_plan(draw_plan(5, 60))
    judgement = played.outcome.judgement
    assert judgement.violation is None
    assert judgement.operations > 0.8 * len(_asked(played))


def test_histories_are_judged_whole() -> None:
    """Where nothing occurs that the model does not have, nothing stays unknown."""
    mix = draw_mix(27).replace(plans=False, tenants=False, retention_seconds=None)
    played = play_plan(draw_plan(27, 60, mix))
    judgement = played.outcome.judgement
    assert judgement.violation is None
    asked = _asked(played)
    assert judgement.unknown == []
    kinds = {each.kind for each in asked}
    tags = {name for each in asked for name in each.data.get("tags", {})}
    assert "promise.cancel" in kinds
    assert tags >= {"kept:debounce", "kept:singleton"}
