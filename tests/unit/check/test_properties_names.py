"""The catalogue is complete: every name of the specification, verbatim, and a violator for each."""

from __future__ import annotations

import pytest

from kept.check.monitor import Monitor, PropertyViolated
from kept.check.properties import (
    ALL_NAMES,
    CONFIG_PROPERTIES,
    INTERNAL_STEP_PROPERTIES,
    STATE_PROPERTIES,
    STEP_PROPERTIES,
)
from tests.unit.check import test_properties_states, test_properties_steps

WELL_FORMED = [
    "well_formed_promise_created_at_lte_timeout_at",
    "well_formed_promise_pending_created_before_deadline",
    "well_formed_promise_settled_at_lte_timeout_at",
    "well_formed_promise_created_at_lte_settled_at",
    "well_formed_promise_settled_at_iff_not_pending",
    "well_formed_promise_pending_has_no_value",
    "well_formed_promise_deadline_verdict_matches_timer_tag",
    "well_formed_promise_deadline_settlement_has_no_value",
    "well_formed_promise_timer_not_targeted",
    "well_formed_promise_timedout_is_server_owned",
    "well_formed_promise_callbacks_unique",
    "well_formed_promise_listeners_unique",
    "well_formed_promise_obligations_require_external",
    "well_formed_promise_awaiter_is_not_self",
    "well_formed_promise_created_at_lte_now",
    "well_formed_promise_settled_at_lte_now",
    "well_formed_task_acquired_iff_has_pid",
    "well_formed_task_acquired_iff_has_ttl",
    "well_formed_task_acquired_iff_has_expires_at",
    "well_formed_task_pending_iff_has_retry_at",
    "well_formed_task_fulfilled_is_cleared",
    "well_formed_task_suspended_is_cleared",
    "well_formed_task_halted_is_cleared",
    "well_formed_task_suspended_has_no_resumes",
    "well_formed_task_resumes_unique",
    "well_formed_task_acquired_version_positive",
    "well_formed_schedule_promise_tags_not_timer_targeted",
    "well_formed_schedule_created_at_lte_next_run_at",
    "well_formed_schedule_created_at_lte_last_run_at",
    "well_formed_schedule_last_run_at_lt_next_run_at",
    "well_formed_store_promise_ids_unique",
    "well_formed_store_task_ids_unique",
    "well_formed_store_schedule_ids_unique",
    "well_formed_store_outbox_keys_unique",
]

CONSISTENT_STATE = [
    "consistent_task_iff_targeted_promise",
    "consistent_settled_promise_has_fulfilled_task",
    "consistent_callback_awaiter_is_targeted",
    "consistent_listener_addresses_deliverable",
    "consistent_outbox_execute_names_existing_task",
    "consistent_outbox_never_ahead",
    "consistent_outbox_execute_address_is_target_tag",
    "consistent_outbox_unblock_names_settled_promise",
    "consistent_outbox_unblock_address_deliverable",
    "consistent_settled_task_promise_settled",
    "consistent_suspended_task_holds_rung",
]

CONSISTENT_STEP = [
    "consistent_promise_settled_at_moves_with_state",
    "consistent_promise_state_edge_admissible",
    "consistent_task_state_edge_admissible",
    "consistent_settlement_fulfils_task",
    "consistent_task_fulfilment_needs_settlement",
    "consistent_obligation_discharge_requires_settled",
    "consistent_callback_consumption_resumes_awaiter",
    "consistent_listener_consumption_enqueues_unblock",
    "consistent_wake_follows_callback_consumption",
    "consistent_suspension_registers_callback",
    "consistent_task_birth_couples_promise_birth",
    "consistent_new_execute_matches_task_and_target",
    "consistent_new_unblock_carries_stored_record",
    "consistent_new_unblock_discharges_its_listener",
    "consistent_task_birth_state",
    "consistent_task_lease_released_atomically",
    "consistent_task_lease_fields_move_together",
    "consistent_task_resumes_cleared_only_on_dispatch_or_park",
    "consistent_task_acquisition_is_atomic",
    "consistent_task_lease_deadline_is_now_plus_ttl",
    "consistent_task_pending_entry_arms_retry",
    "consistent_task_retry_rearm_only_when_due",
    "consistent_task_wake_records_resume",
    "consistent_promise_settlement_stamp",
    "consistent_new_promise_born_clean",
]

PRESERVED = [
    "preserved_promise_birth_fields_immutable",
    "preserved_settled_promise_record",
    "preserved_fulfilled_task",
    "preserved_no_dead_dispatch",
    "preserved_execute_only_for_live_task",
    "preserved_promise_state_frozen_once_settled",
    "preserved_promise_settlement_is_one_way",
    "preserved_promise_value_until_settlement",
    "preserved_promise_no_duplicate_ids",
    "preserved_task_acquisition_only_from_pending",
    "preserved_task_suspension_only_from_acquired",
    "preserved_task_halted_only_reenters_via_pending",
    "preserved_schedule_birth_fields_immutable",
    "preserved_task_lease_holder_stable",
    "preserved_timedout_is_server_owned",
]

MONOTONE = [
    "monotone_promise_set_grows",
    "monotone_task_set_grows",
    "monotone_task_version_increases_only_on_acquisition",
    "monotone_promise_callbacks_grow_while_pending",
    "monotone_promise_callbacks_shrink_once_settled",
    "monotone_promise_listeners_grow_while_pending",
    "monotone_promise_listeners_shrink_once_settled",
    "monotone_outbox_keys_never_disappear",
    "monotone_task_resumes_grow_or_clear",
    "monotone_task_retry_rearm_advances",
]

INTERNAL = [
    "consistent_task_state_edge_internal_admissible",
    "consistent_promise_state_edge_internal_admissible",
]

OURS = [
    "well_formed_task_ttl_positive",
    "well_formed_promise_target_is_nonempty",
    "well_formed_promise_delay_before_deadline",
]

QUEUES = [
    "preserved_paused_queue_starts_nothing",
    "consistent_start_within_concurrency",
    "consistent_depth_is_what_waits",
]

RETENTION = ["preserved_tree_of_something_pending", "preserved_root_until_the_last"]
CANCELLATION_STATE = ["consistent_cancel_request_is_seen_to"]
CANCELLATION_STEP = [
    "preserved_cancel_request",
    "consistent_cancel_request_wakes_suspended",
    "consistent_cancellation_reaches_children",
    "preserved_detached_work",
]
DUPLICATES = [
    "consistent_one_live_promise_per_dedupe_key",
    "consistent_one_live_promise_per_singleton_key",
]
KEYS = ["consistent_key_is_held_by_its_promise"]

CONFIG = ["well_formed_config_retry_positive"]


def test_the_catalogue_has_its_45_and_50_and_2_and_4() -> None:
    """The lists above are as long as the specification says they are."""
    assert len(WELL_FORMED + CONSISTENT_STATE) == 45
    assert len(CONSISTENT_STEP + PRESERVED + MONOTONE) == 50
    assert len(INTERNAL) == 2
    assert len(OURS + CONFIG) == 4


def test_exactly_the_named_properties_are_registered() -> None:
    """Each property is registered under its own name and with its own kind, and no other is."""
    assert sorted(STATE_PROPERTIES) == sorted(
        WELL_FORMED + CONSISTENT_STATE + OURS + CANCELLATION_STATE + KEYS
    )
    assert sorted(STEP_PROPERTIES) == sorted(
        CONSISTENT_STEP + PRESERVED + MONOTONE + QUEUES + CANCELLATION_STEP + DUPLICATES + RETENTION
    )
    assert sorted(INTERNAL_STEP_PROPERTIES) == sorted(INTERNAL)
    assert sorted(CONFIG_PROPERTIES) == sorted(CONFIG)
    ours = QUEUES + CANCELLATION_STATE + CANCELLATION_STEP + DUPLICATES + KEYS + RETENTION
    assert len(ALL_NAMES) == 101 + len(ours)


def test_every_property_is_a_function_of_its_name() -> None:
    """What is called is what is reported, and each states itself."""
    for properties in (STATE_PROPERTIES, STEP_PROPERTIES, INTERNAL_STEP_PROPERTIES):
        for name, registered in properties.items():
            assert registered.check.__name__ == registered.name == name
            assert registered.statement.strip()


def test_every_property_has_a_violator() -> None:
    """No property is without a hand-made state or step that makes it false."""
    cases = [*test_properties_states.CASES, *test_properties_steps.CASES]
    assert {case.name for case in cases} == ALL_NAMES - set(CONFIG)


@pytest.mark.parametrize("retry_timeout_ms", [0, -1])
def test_a_monitor_refuses_a_retry_timeout_that_is_not_positive(retry_timeout_ms: int) -> None:
    """`well_formed_config_retry_positive` is evaluated at start-up."""
    with pytest.raises(PropertyViolated, match="well_formed_config_retry_positive"):
        Monitor(retry_timeout_ms=retry_timeout_ms)
    assert Monitor(retry_timeout_ms=1).reached()["well_formed_config_retry_positive"] == 1
