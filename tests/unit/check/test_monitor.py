"""The monitor: what it is fed it judges, and what it is told to forget it forgets."""

from __future__ import annotations

import pytest

from kept.check.monitor import (
    MalformedChangesError,
    Monitor,
    PropertyViolated,
    ShadowDiffersError,
)
from kept.check.properties import INTERNAL_STEP_PROPERTIES, STATE_PROPERTIES, STEP_PROPERTIES
from kept.check.properties.scopes import StateScope, StepScope
from kept.check.state import Delta
from kept.protocol.records import Promise, Task
from kept.protocol.storage import DEFAULT_TENANT, Changes, Dump, Edge
from tests.unit.check.cases.records import (
    EXTERNAL,
    NOW,
    TARGETED,
    acquired,
    execute,
    fulfilled,
    pending,
    resolved,
    state,
    waiting,
)

JOB = pending(tags=TARGETED)


def take(
    monitor: Monitor,
    name: str,
    changes: Changes,
    now: int = NOW,
    *,
    internal: bool = False,
    tenant: str = DEFAULT_TENANT,
) -> None:
    monitor.step(tenant, now, name, internal, changes)


def birth(*promises: Promise, tasks: tuple[Task, ...] = ()) -> Changes:
    return Changes(
        promises={p.id: p for p in promises},
        tasks={t.id: t for t in tasks},
        born_promises={p.id for p in promises},
        born_tasks={t.id for t in tasks},
    )


def working() -> Monitor:
    """A monitor that has seen a job created, dispatched and acquired."""
    monitor = Monitor()
    take(monitor, "promise.create", birth(JOB, tasks=(waiting(),)))
    rearmed = waiting(retry_at=NOW + 5_000)
    sent = Changes(tasks={"p": rearmed}, outbox={execute().key: execute()})
    take(monitor, "task.retry", sent, internal=True)
    take(monitor, "task.acquire", Changes(tasks={"p": acquired()}))
    return monitor


def fulfilment() -> Changes:
    return Changes(promises={"p": resolved(tags=TARGETED)}, tasks={"p": fulfilled()})


def test_a_correct_history_passes_and_reaches_guards() -> None:
    """A job's life raises nothing; guards that held are counted, the others are named."""
    monitor = working()
    take(monitor, "task.fulfill", fulfilment())
    monitor.check_everything()
    reached = monitor.reached()
    assert reached["consistent_settlement_fulfils_task"] == 1
    assert reached["consistent_task_acquisition_is_atomic"] == 1
    assert reached["consistent_new_execute_matches_task_and_target"] == 1
    assert "consistent_settlement_fulfils_task" not in monitor.unreached()
    assert "monotone_task_resumes_grow_or_clear" in monitor.unreached()
    assert sorted(monitor.unreached()) == sorted(n for n, count in reached.items() if not count)


def test_a_violation_reports_name_ids_time_and_step() -> None:
    """The name is verbatim, and the record and the step can be found by the message."""
    monitor = working()
    with pytest.raises(PropertyViolated) as caught:
        take(monitor, "task.fulfill", Changes(promises={"p": resolved(tags=TARGETED)}), tenant="t")
    with pytest.raises(PropertyViolated) as caught:
        take(monitor, "promise.settle", Changes(promises={"p": resolved(tags=TARGETED)}))
    violated = caught.value
    assert violated.name == "consistent_settlement_fulfils_task"
    assert (violated.ids, violated.now, violated.step) == (("p",), NOW, "promise.settle")
    assert str(violated).startswith("consistent_settlement_fulfils_task: p at 100 after promise.s")


def test_a_step_that_violates_is_taken_back() -> None:
    """After the error the shadow is as before the step, and a correct step passes."""
    monitor = working()
    before, mark = monitor.state().dump(), monitor.mark()
    with pytest.raises(PropertyViolated):
        take(monitor, "promise.settle", Changes(promises={"p": resolved(tags=TARGETED)}))
    assert monitor.state().dump() == before
    assert monitor.mark() == mark
    take(monitor, "task.fulfill", fulfilment())


def test_a_violation_that_was_swallowed_is_raised_at_the_end() -> None:
    """An engine makes a 500 of what a step raises; the end of the run still fails by that name."""
    monitor = working()
    with pytest.raises(PropertyViolated) as first:
        take(monitor, "promise.settle", Changes(promises={"p": resolved(tags=TARGETED)}))
    with pytest.raises(PropertyViolated):
        take(monitor, "task.acquire", Changes(tasks={"p": acquired(pid="v")}))
    for at_the_end in (
        monitor.raise_first,
        monitor.check_everything,
        lambda: monitor.compare(monitor.state().dump()),
    ):
        with pytest.raises(PropertyViolated) as again:
            at_the_end()
        assert again.value is first.value


def test_internal_properties_judge_background_steps_only() -> None:
    """A request may resolve a promise, the background may not."""
    with pytest.raises(PropertyViolated, match="consistent_promise_state_edge_internal_admissible"):
        take(working(), "task.fulfill", fulfilment(), internal=True)
    take(working(), "task.fulfill", fulfilment())


def test_rollback_forgets_all_steps_since_the_mark() -> None:
    """A batch whose commit failed left nothing, over all tenants and its inner marks."""
    monitor = Monitor()
    take(monitor, "promise.create", birth(pending("a")))
    outer, before = monitor.mark(), monitor.state().dump()
    take(monitor, "promise.create", birth(pending("b")))
    take(monitor, "promise.create", birth(pending("b")), tenant="other")
    inner = monitor.mark()
    take(monitor, "promise.settle", Changes(promises={"b": resolved("b")}))
    monitor.rollback(inner)
    assert monitor.state().promises["b"] == pending("b")
    monitor.rollback(outer)
    assert monitor.state().dump() == before
    assert monitor.state("other").dump() == Dump()
    monitor.rollback(outer)
    take(monitor, "promise.create", birth(pending("b")))


def test_tenants_do_not_see_each_other() -> None:
    """The same id in two tenants is two promises."""
    monitor = Monitor()
    take(monitor, "promise.create", birth(pending()), tenant="one")
    take(monitor, "promise.create", birth(pending()), tenant="two")
    take(monitor, "promise.settle", Changes(promises={"p": resolved()}), tenant="one")
    assert monitor.state("two").promises["p"].pending


def test_the_whole_state_is_judged_now_and_then() -> None:
    """What no step touched is found at the latest after `whole_every` steps, or on demand."""
    monitor = Monitor(whole_every=3)
    monitor.state().promises["x"] = pending("x", settled_at=50)
    take(monitor, "promise.create", birth(pending("a")))
    take(monitor, "promise.create", birth(pending("b")))
    with pytest.raises(PropertyViolated, match="settled_at_iff_not_pending: x"):
        take(monitor, "promise.create", birth(pending("c")))
    with pytest.raises(PropertyViolated, match="settled_at_iff_not_pending: x"):
        monitor.check_everything()


def test_what_a_touched_record_is_named_by_is_judged_too() -> None:
    """A callback whose awaiter turns out to have no target is found when the awaiter is touched."""
    monitor = Monitor()
    monitor.begin(state(pending("q"), JOB, waiting(), callbacks=[("q", "p")]).dump(), NOW)
    shadow = monitor.state()
    shadow.promises["p"] = pending(tags=EXTERNAL)
    del shadow.tasks["p"]
    touched = Changes(promises={"p": resolved(tags=EXTERNAL)})
    with pytest.raises(PropertyViolated, match="consistent_callback_awaiter_is_targeted: q, p"):
        take(monitor, "promise.settle", touched)


def test_a_monitor_may_begin_on_a_store_in_use() -> None:
    """What is there counts as there; a store that is wrong already is refused."""
    monitor = Monitor()
    monitor.begin(state(pending()).dump(), NOW)
    take(monitor, "promise.settle", Changes(promises={"p": resolved()}))
    with pytest.raises(PropertyViolated, match="consistent_task_iff_targeted_promise"):
        Monitor().begin(state(JOB).dump(), NOW)


def test_compare_finds_lost_and_extra_writes() -> None:
    """A store must hold exactly what the steps wrote."""
    monitor = working()
    good = monitor.state().dump()
    monitor.compare(good)
    for spoil in (
        lambda dump: dump.promises.clear(),
        lambda dump: dump.tasks.update(p=acquired(failures=1)),
        lambda dump: dump.outbox.clear(),
        lambda dump: dump.callbacks.add(Edge("p", "x")),
        lambda dump: dump.releases.update({Edge("p", "x"): 1}),
    ):
        spoiled = monitor.state().dump()
        spoil(spoiled)
        with pytest.raises(ShadowDiffersError):
            monitor.compare(spoiled)


def test_a_reset_is_a_new_beginning_and_nothing_else_may_remove() -> None:
    """`debug.reset` may forget everything, and can itself be taken back; no other step may."""
    monitor = working()
    before = monitor.state().dump()
    with pytest.raises(PropertyViolated, match="gone"):
        take(monitor, "promise.create", Changes(reset=True))
    assert monitor.state().dump() == before
    mark = monitor.mark()
    take(monitor, "debug.reset", Changes(reset=True))
    assert monitor.state().dump() == Dump()
    take(monitor, "promise.create", birth(pending()), now=5_000)
    monitor.rollback(mark)
    assert monitor.state().dump() == before


def test_a_late_occurrence_leaves_the_states_clock_alone() -> None:
    """An occurrence's `now` is its instant; the state is judged at the real now that was seen."""
    monitor = Monitor()
    take(monitor, "promise.create", birth(pending("a", created_at=NOW)))
    fired = birth(pending("b", tags=TARGETED, created_at=50), tasks=(waiting("b"),))
    take(monitor, "schedule.fire", fired, now=50, internal=True)
    monitor.check_everything()


@pytest.mark.parametrize(
    "changes",
    [
        Changes(promises={"x": pending("x")}),
        Changes(callbacks={Edge("x", "p"): True}),
        Changes(listeners={Edge("x", "http://w.test"): True}),
        Changes(resumes={Edge("x", "p"): True}),
    ],
    ids=["replaces nothing", "callback of nothing", "listener of nothing", "resume of nothing"],
)
def test_changes_that_no_store_could_apply_are_refused(changes: Changes) -> None:
    """A store would lose them or fail, each in its own way."""
    with pytest.raises(MalformedChangesError):
        take(working(), "some.step", changes)


def test_a_promise_born_again_is_a_duplicate() -> None:
    """A second birth of one id is reported by the property that forbids it."""
    with pytest.raises(PropertyViolated, match="preserved_promise_no_duplicate_ids: p"):
        take(working(), "promise.create", Changes(promises={"p": JOB}, born_promises={"p"}))


def test_a_step_that_touches_nothing_has_nothing_to_look_at() -> None:
    """No property's guard holds on a step without changes, whatever the state: the monitor skips them."""
    everything = state(JOB, resolved("q"), acquired(), execute(), callbacks=[("q", "p")])
    step = StepScope(NOW, "task.get", everything, Delta(), internal=True)
    touched = StateScope.touched(NOW, everything, Delta())
    on_step = {**STEP_PROPERTIES, **INTERNAL_STEP_PROPERTIES}.values()
    assert [v for each in on_step for v in each.check(step)] == []
    assert [v for each in STATE_PROPERTIES.values() for v in each.check(touched)] == []
    assert (step.reached, touched.reached) == (0, 0)


def test_a_step_that_touches_nothing_counts_and_moves_the_clock() -> None:
    """It brings the next look at the whole state nearer, and its instant is that state's."""
    monitor = Monitor(whole_every=2)
    take(monitor, "promise.create", birth(pending()))
    monitor.state().promises["late"] = pending("late", created_at=NOW + 2)
    with pytest.raises(PropertyViolated, match="well_formed_promise_created_at_lte_now: late"):
        take(monitor, "promise.get", Changes(), now=NOW + 1)
    later = Monitor(whole_every=2)
    take(later, "promise.create", birth(pending()))
    later.state().promises["late"] = pending("late", created_at=NOW + 2)
    take(later, "promise.get", Changes(), now=NOW + 2)
