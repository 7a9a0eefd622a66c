"""What became of a promise's webhooks: the latest tries, in one entry (docs/design/webhooks.md).

It is written in the steps that the tries end with anyway, and forgotten a week after the last one.
"""

from __future__ import annotations

from msgspec.structs import replace

from kept.machine.effects import read_promise
from kept.machine.promises import no_promise
from kept.machine.step import Step
from kept.protocol.entries import Attempt, Deliveries, Entry, EntryKey, EntryKind
from kept.protocol.inquiries import DeliveriesResult, DeliveryRecord, PromiseDeliveries
from kept.protocol.limits import DELIVERIES_KEPT_MS, MAX_DELIVERIES
from kept.protocol.responses import OK, Response


def deliveries_key(id: str) -> EntryKey:
    """The key of what is known of a promise's webhooks."""
    return EntryKey(EntryKind.DELIVERIES, id)


def note_attempt(step: Step, id: str, attempt: Attempt) -> None:
    """A try ended now."""
    tries = (*_attempts(step, id), replace(attempt, at=step.now))
    latest = Deliveries(tries[-MAX_DELIVERIES:])
    step.records.put_entry(Entry(deliveries_key(id), latest, step.now + DELIVERIES_KEPT_MS))


def promise_deliveries(step: Step, request: PromiseDeliveries) -> Response:
    """The latest tries, oldest first."""
    if read_promise(step, request.id) is None:
        return no_promise(request.id)
    records = [
        DeliveryRecord(each.at, each.address, each.number, each.took, each.error, each.next_at)
        for each in _attempts(step, request.id)
    ]
    return Response(OK, DeliveriesResult(records))


def _attempts(step: Step, id: str) -> tuple[Attempt, ...]:
    entry = step.records.entry(deliveries_key(id))
    if entry is None:
        return ()
    assert isinstance(entry.data, Deliveries)
    return entry.data.attempts
