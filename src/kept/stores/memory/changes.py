"""Applying a batch's changes to the tables, with a journal that can take them back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from kept.errors import StoreFailedError
from kept.protocol.storage import Changes
from kept.stores.memory.tables import Tables

K = TypeVar("K")
V = TypeVar("V")
Journal = list[Callable[[], object]]


def apply(tables: dict[str, Tables], tenant: str, changes: Changes, journal: Journal) -> None:
    """Writes the changes; `journal` gains what undoes them, to be called last first."""
    if changes.reset:
        old = tables.pop(tenant, None)
        if old is not None:
            journal.append(lambda: tables.__setitem__(tenant, old))
    if tenant not in tables:
        tables[tenant] = Tables(tenant)
        journal.append(lambda: tables.pop(tenant))
    table = tables[tenant]
    for id in sorted(changes.removed):
        _remove(table, id, journal)
    _check(table, changes)
    # Promises first: they number the tasks.
    _put(table.put_promise, changes.promises, journal)
    _put(table.put_task, changes.tasks, journal)
    _put(table.put_undrained, changes.undrained, journal)
    _put(table.put_schedule, changes.schedules, journal)
    _put(table.put_message, changes.outbox, journal)
    _put(table.put_dead_letter, changes.dead_letters, journal)
    _put(table.put_entry, changes.entries, journal)
    for task_id in sorted(changes.resumes_cleared):
        for awaited in list(table.resumes.get(task_id, ())):
            _put_edge(table.put_resume, task_id, awaited, None, journal)
    for edge, present in changes.callbacks.items():
        _put_edge(table.put_callback, *edge, present, journal)
    for edge, present in changes.listeners.items():
        _put_edge(table.put_listener, *edge, present, journal)
    for edge, present in changes.resumes.items():
        _put_edge(table.put_resume, *edge, present, journal)
    for edge, number in changes.releases.items():
        if edge.to not in table.releases[edge.of]:
            _put_edge(table.put_release, *edge, number, journal)


def _check(table: Tables, changes: Changes) -> None:
    """Refuses what the keys of a database would refuse: it is a mistake of the caller's."""
    for id in changes.born_promises:
        if id in table.promises:
            raise StoreFailedError(f"a change bears the promise {id!r}, which is stored already")
    named = (
        *changes.tasks,
        *changes.undrained,
        *changes.resumes_cleared,
        *(edge.of for edges in (changes.callbacks, changes.listeners) for edge in edges),
        *(edge.of for edge in (*changes.resumes, *changes.releases)),
    )
    for id in named:
        if id not in changes.promises and id not in table.promises:
            raise StoreFailedError(f"a change names the promise {id!r}, which is not stored")


def _remove(table: Tables, id: str, journal: Journal) -> None:
    """Takes a promise away with all that begins at it."""
    if id not in table.promises:
        return
    for edges, put in (
        (table.callbacks, table.put_callback),
        (table.listeners, table.put_listener),
        (table.resumes, table.put_resume),
    ):
        for to in list(edges.get(id, ())):
            _put_edge(put, id, to, None, journal)
    for to in list(table.releases.get(id, ())):
        _put_edge(table.put_release, id, to, None, journal)
    _put(table.put_undrained, {id: None}, journal)
    _put(table.put_task, {id: None}, journal)
    # Called last first: the promise is back when it gets its number.
    journal.append(partial(table.number, id, table.numbers[id]))
    _put(table.put_promise, {id: None}, journal)


def undo(journal: Journal) -> None:
    """Takes back what `apply` wrote."""
    for step in reversed(journal):
        step()
    journal.clear()


def _put(
    put: Callable[[K, V | None], V | None], values: Mapping[K, V | None], journal: Journal
) -> None:
    for key, value in values.items():
        before = put(key, value)
        journal.append(partial(put, key, before))


def _put_edge(
    put: Callable[[str, str, V | None], V | None],
    of: str,
    to: str,
    value: V | None,
    journal: Journal,
) -> None:
    before = put(of, to, value)
    journal.append(partial(put, of, to, before))
