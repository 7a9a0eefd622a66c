"""What an operator says of queues (protocol B2)."""

from __future__ import annotations

from msgspec import UNSET
from msgspec.structs import replace

from kept.machine.limits import depth_key, settings_key, settings_of
from kept.machine.step import Step
from kept.machine.tasks import NOTHING
from kept.protocol import requests as r
from kept.protocol.entries import Depth, Entry, QueueSettings
from kept.protocol.responses import NOT_FOUND, OK, QueueRecord, QueueResult, Response


def no_queue(name: str) -> Response:
    return Response(NOT_FOUND, f"queue {name} has no settings")


def queue_record(entry: Entry) -> QueueRecord:
    """A queue's settings as they travel."""
    assert isinstance(entry.data, QueueSettings)
    return QueueRecord.of(entry.key.name, entry.data)


def queue_put(step: Step, request: r.QueuePut) -> Response:
    """Creates settings or changes those that are named; null takes one back."""
    settings = settings_of(step.records, request.name)
    for field in r.QueuePut.SETTINGS:
        value = getattr(request, field)
        if value is not UNSET:
            settings = replace(settings, **{field: _cleared(field) if value is None else value})
    _store(step, request.name, settings)
    return _answer(request.name, settings)


def _cleared(field: str) -> object:
    return {"paused": False, "lanes": {}, "keep_ids": False}.get(field)


def queue_get(step: Step, request: r.QueueGet) -> Response:
    if step.records.entry(settings_key(request.name)) is None:
        return no_queue(request.name)
    return _answer(request.name, settings_of(step.records, request.name))


def queue_delete(step: Step, request: r.QueueDelete) -> Response:
    """Forgets the settings; the tasks stay, and nothing limits them any more."""
    if step.records.entry(settings_key(request.name)) is None:
        return no_queue(request.name)
    step.records.remove_entry(settings_key(request.name))
    _stop_counting(step, request.name)
    return NOTHING


def queue_pause(step: Step, request: r.QueuePause) -> Response:
    """From now on nothing of the queue starts. What runs goes on, and new work may come."""
    return _paused(step, request.name, paused=True)


def queue_resume(step: Step, request: r.QueueResume) -> Response:
    return _paused(step, request.name, paused=False)


def _paused(step: Step, name: str, *, paused: bool) -> Response:
    settings = replace(settings_of(step.records, name), paused=paused)
    _store(step, name, settings)
    return _answer(name, settings)


def _store(step: Step, name: str, settings: QueueSettings) -> None:
    records = step.records
    records.put_entry(Entry(settings_key(name), settings))
    if settings.max_depth is None:
        _stop_counting(step, name)
    elif records.entry(depth_key(name)) is None:
        # From here on every step that moves a task keeps the count.
        records.put_entry(Entry(depth_key(name), Depth(records.depth(name))))


def _stop_counting(step: Step, name: str) -> None:
    if step.records.entry(depth_key(name)) is not None:
        step.records.remove_entry(depth_key(name))


def _answer(name: str, settings: QueueSettings) -> Response:
    return Response(OK, QueueResult(QueueRecord.of(name, settings)))
