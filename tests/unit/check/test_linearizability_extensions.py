"""The checker against trying everything, on small random histories with cancellations and keys."""

from __future__ import annotations

from typing import Any
from unittest import mock

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kept.check.history import Header, History, Operation
from kept.check.linearizability import Verdict, check
from kept.check.model import cancellation
from kept.check.protocol_model import ProtocolModel
from tests.unit.check.brute_force import protocol_linearizable
from tests.unit.check.random_histories import Asked, action, protocol_histories

Draw = st.DrawFn
# Short enough to end within the horizon of those who try everything.
GRACE_MS = 4
TARGET = {"resonate:target": "poll://any@g"}
CHILD = {"resonate:origin": "w", "resonate:parent": "w", "resonate:branch": "w"}
GRANDCHILD = {"resonate:origin": "w", "resonate:parent": "x", "resonate:branch": "x"}
EDGE = {"awaited": "x", "awaiter": "w"}
MODES = ("skip", "return", "replace")
HOLDER = {"pid": "a", "ttl": 100}


def _create(id: str, tags: dict[str, str], deadline: int = 100) -> Asked:
    return action("promise.create", {"id": id, "timeoutAt": deadline, "tags": tags})


def _is_linearizable(operations: list[Operation]) -> bool:
    result = check(History(Header(clock_skew_ms=0), operations), ProtocolModel())
    assert result.verdict is not Verdict.UNKNOWN
    return result.verdict is Verdict.LINEARIZABLE


ROOT = action("task.create", {**HOLDER, "action": _create("w", TARGET)})
SUSPENDED = action(
    "task.suspend",
    {"id": "w", "version": 1, "actions": [action("promise.register_callback", EDGE)]},
)
TREES: tuple[list[Asked], ...] = (
    [ROOT, _create("x", CHILD | TARGET), SUSPENDED],
    [
        ROOT,
        _create("x", CHILD | TARGET),
        action("task.acquire", {"id": "x", "version": 0, **HOLDER}),
    ],
    [ROOT, _create("x", CHILD | {"resonate:timer": "true"}, 5), SUSPENDED],
    [ROOT, _create("x", CHILD | {"kept:compensation": "true", "resonate:external": "true"})],
    [ROOT, _create("x", CHILD | {"kept:detached": "true", "resonate:external": "true"})],
    [ROOT, _create("x", CHILD | TARGET), _create("y", GRANDCHILD)],
)


@st.composite
def cancellations(draw: Draw) -> Asked:
    """A request on a workflow `w`, its child `x` and a grandchild `y`."""
    id = draw(st.sampled_from("wwxx"))
    lease = {"id": id, "version": draw(st.sampled_from((0, 1, 1, 2)))}
    canceled: dict[str, Any] = {
        "id": id,
        "state": draw(st.sampled_from(("rejected_canceled", "resolved"))),
    }
    cancel: dict[str, Any] = {
        "id": id,
        "mode": draw(st.sampled_from(("request", "request", "force"))),
    }
    cancel |= draw(st.sampled_from(({}, {}, {"recursive": False}, {"reason": "why"})))
    within = action("promise.cancel", {**cancel, "id": "x"})
    fenced = {"id": "w", "version": 1, "action": within}
    return draw(
        st.sampled_from(
            [
                action("promise.cancel", cancel),
                action("promise.cancel", cancel),
                action("promise.get", {"id": draw(st.sampled_from("wxxy"))}),
                action("promise.get", {"id": draw(st.sampled_from("wxxy"))}),
                action("promise.settle", {**canceled, "id": "x"}),
                action("task.get", {"id": id}),
                action("task.acquire", {**lease, **HOLDER}),
                action("task.release", lease),
                action("task.fulfill", {**lease, "action": action("promise.settle", canceled)}),
                action("task.fence", fenced),
                action("task.heartbeat", {"pid": "a", "tasks": [lease], "report": True}),
                action("task.halt", {"id": id}),
                SUSPENDED,
                action("task.suspend", SUSPENDED["data"] | {"released": ["w"]}),
            ]
        )
    )  # fmt: skip


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(protocol_histories(cancellations(), TREES))
def test_cancellations_are_judged_as_by_trying_everything(operations: list[Operation]) -> None:
    """With cancellations that spread and graces that end in between, the checker finds an order if
    and only if there is one at some instants with some background steps."""
    with mock.patch.object(cancellation, "GRACE_MS", GRACE_MS):
        assert _is_linearizable(operations) == protocol_linearizable(operations)


@st.composite
def keyed(draw: Draw) -> Asked:
    """A request on jobs that are created under one key."""
    id = draw(st.sampled_from("ijk"))
    tags = {"resonate:target": "queue://q"}
    tags |= draw(
        st.sampled_from(
            [
                {"kept:dedupe": "k"},
                {"kept:dedupe": "k", "kept:dedupe-window": "3"},
                {"kept:dedupe": "k", "kept:dedupe-window": "6", "kept:fingerprint": "other"},
                {"kept:dedupe": "k", "kept:fingerprint": "other", "kept:dedupe-mismatch": "ignore"},
                {"kept:debounce": "k", "resonate:delay": "4"},
                {"kept:debounce": "k", "kept:debounce-mode": "replace"},
                *({"kept:singleton": mode, "kept:singleton-key": "k"} for mode in MODES),
            ]
        )
    )  # fmt: skip
    create = _create(id, tags, draw(st.sampled_from((6, 100, 100))))
    return draw(
        st.sampled_from(
            [
                create,
                create,
                create,
                action("promise.get", {"id": id}),
                action("promise.settle", {"id": id, "state": "resolved"}),
                action("task.create", {**HOLDER, "action": create}),
                action("task.acquire", {"id": id, "version": 0, **HOLDER}),
            ]
        )
    )


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(protocol_histories(keyed(), ([],)))
def test_keys_are_judged_as_by_trying_everything(operations: list[Operation]) -> None:
    """With creates under keys whose windows end in between, too."""
    assert _is_linearizable(operations) == protocol_linearizable(operations)
