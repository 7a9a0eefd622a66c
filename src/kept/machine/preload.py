"""Preload: the promises that a replay is about to need (protocol A4, B3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from kept.machine.effects import read_promise
from kept.machine.step import Step
from kept.protocol.limits import MAX_PRELOAD_BYTES, MAX_PRELOAD_RECORDS
from kept.protocol.records import Promise, PromiseRecord, Value
from kept.protocol.storage import OTHERS_CURSOR, RELEASED_CURSOR


class Preload(NamedTuple):
    """A page of it: the records, which of them were released (in order), where to go on."""

    records: list[PromiseRecord]
    released: list[str]
    more: str | None


NO_PRELOAD = Preload([], [], None)


def preload_of(step: Step, task_id: str, limit: int | None) -> Preload:
    """The first page for a task that was just acquired; `limit` 0 asks for none."""
    if limit == 0:
        return NO_PRELOAD
    released, others, more = step.records.children_of(task_id)
    page: list[Promise] = []
    for id in (*released, *others):
        promise = read_promise(step, id)
        assert promise is not None, f"child {id} of {task_id} does not exist"
        page.append(promise)
    bound = MAX_PRELOAD_RECORDS if limit is None else limit
    fitting = fitting_count(page, bound)
    if fitting < len(page):
        more = children_cursor(page[fitting - 1].id, released=fitting <= len(released))
    records = [promise.record() for promise in page[:fitting]]
    return Preload(records, released[:fitting], more)


def children_cursor(last_id: str, *, released: bool) -> str:
    """Where `promise.children` goes on after the promise given last."""
    return (RELEASED_CURSOR if released else OTHERS_CURSOR) + last_id


def fitting_count(promises: Iterable[Promise], limit: int) -> int:
    """How many fit into one answer; at least one, so that paging goes on."""
    size = count = 0
    for promise in promises:
        size += len(promise.id) + payload_size(promise.param) + payload_size(promise.value)
        if count == limit or (count and size > MAX_PRELOAD_BYTES):
            break
        count += 1
    return count


def payload_size(value: Value) -> int:
    """About how much it adds to an answer."""
    size = len(value.data) if value.data else 0
    if value.headers:
        size += sum(map(len, value.headers)) + sum(map(len, value.headers.values()))
    return size
