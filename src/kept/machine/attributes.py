"""What running work says of itself, for anyone to read and to search by (protocol B8)."""

from __future__ import annotations

from kept.machine.promises import promise_get
from kept.machine.step import Step
from kept.machine.tasks import NOTHING, held
from kept.protocol import requests as r
from kept.protocol.attributes import attributes_key, index_key
from kept.protocol.entries import Attributes, Entry, Indexed
from kept.protocol.limits import MAX_ATTRIBUTES
from kept.protocol.responses import OK, UNPROCESSABLE, PromiseResult, Response

_NONE = Attributes()


def attributes_of(step: Step, id: str) -> Attributes:
    """What the work of a promise said so far."""
    entry = step.records.entry(attributes_key(id))
    if entry is None:
        return _NONE
    assert isinstance(entry.data, Attributes)
    return entry.data


def promise_get_described(step: Step, request: r.PromiseGet) -> Response:
    """As `promise_get`; with what the work says of itself, where it is asked for (B8)."""
    response = promise_get(step, request)
    if not request.attributes or not isinstance(response.data, PromiseResult):
        return response
    said = attributes_of(step, request.id)
    result = PromiseResult(response.data.promise, said.attributes, said.progress)
    return Response(OK, result)


def task_annotate(step: Step, request: r.TaskAnnotate) -> Response:
    """Sets attributes, takes others back, and tells the progress; what is not named stays."""
    lease = held(step, request.id, request.version)
    if isinstance(lease, Response):
        return lease
    before = attributes_of(step, request.id)
    merged = {**before.attributes, **request.set}
    kept = {name: value for name, value in sorted(merged.items()) if value is not None}
    if len(kept) > MAX_ATTRIBUTES:
        return Response(UNPROCESSABLE, f"{len(kept)} attributes, the limit is {MAX_ATTRIBUTES}")
    progress = before.progress if request.progress is None else request.progress
    after = Attributes(kept, progress)
    if after == before:
        return NOTHING
    step.records.put_entry(Entry(attributes_key(request.id), after))
    for name, value in before.attributes.items():
        if kept.get(name) != value:
            step.records.remove_entry(index_key(name, value, request.id))
    for name, value in kept.items():
        if before.attributes.get(name) != value:
            step.records.put_entry(Entry(index_key(name, value, request.id), Indexed()))
    return NOTHING
