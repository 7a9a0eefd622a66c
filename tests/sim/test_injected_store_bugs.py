"""Bugs put into the stores are found within a few seeds of worlds that run on them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest

from kept.protocol.records import Task
from kept.protocol.storage import Due, Head, LaneHead
from kept.sim import world
from kept.sim.disk import Disk
from kept.sim.mix import Mix, draw_mix
from kept.sim.run import run_seed
from kept.stores.memory import reading
from kept.stores.memory import store as memory_store
from kept.stores.memory.agenda import Agenda
from kept.stores.memory.changes import apply
from kept.stores.memory.tables import Tables
from kept.stores.sqlite import connection, load, rows, save, scan
from kept.stores.sqlite import store as sqlite_store
from kept.stores.sqlite.heads import Fronts
from kept.stores.sqlite.transaction import SqliteTransaction

TICKS = 30
SETTLE_SECONDS = 240
MAX_SEEDS = 8

Patch = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "SETTLE_SECONDS", SETTLE_SECONDS)


def broken_on(store: str, *faults: str) -> str:
    """What broke in the first seed in which anything did, on this store, with these faults (each
    more often than most mixes have it); "" if nothing."""
    for seed in range(1, MAX_SEEDS + 1):
        mix = draw_mix(seed)
        own = {name: 0.03 if name.endswith("_fails") else 10.0 for name in faults}
        mix = msgspec.structs.replace(mix, store=store, faults={**mix.faults, **own})
        broken = run_seed(seed, TICKS, mix).broken
        if broken is not None:
            return broken
    return ""


# -- SQLite


def _column_is_not_saved(patch: pytest.MonkeyPatch) -> None:
    """A column of a task that is not saved as work on it goes on."""
    progress_row = rows.progress_row

    def forgetful(task: Task, seq: int) -> rows.Row:
        return progress_row(msgspec.structs.replace(task, releases=0), seq)

    patch.setattr(save, "progress_row", forgetful)


def _drops_all_callbacks(patch: pytest.MonkeyPatch) -> None:
    """An edge that is removed takes its neighbours along."""
    patch.setattr(save, "_DROP_CALLBACK", "DELETE FROM callbacks WHERE awaited = ? OR awaiter = ?")


def _settled_a_moment_early(patch: pytest.MonkeyPatch) -> None:
    """A settlement with another instant."""
    wrong = save._SETTLE_PROMISE.replace("settled_at = ?", "settled_at = ? - 1")
    patch.setattr(save, "_SETTLE_PROMISE", wrong)


def _heads_backwards(patch: pytest.MonkeyPatch) -> None:
    """A queue whose last comes first."""
    first = Fronts._first

    def backwards(self: Fronts, head: Head, functions: Any, lane: str, count: int) -> list[int]:
        return first(self, head, functions, lane, count)[::-1]

    patch.setattr(Fronts, "_first", backwards)


def _fronts_of_lanes_are_backwards(patch: pytest.MonkeyPatch) -> None:
    """The first tasks of several lanes, each with the last of them first."""
    fronts = Fronts.fronts

    def backwards(self: Fronts, wanted: Mapping[LaneHead, int]) -> dict[LaneHead, list[int]]:
        return {front: order[::-1] for front, order in fronts(self, wanted).items()}

    patch.setattr(Fronts, "fronts", backwards)


def _due_skips_one_row(patch: pytest.MonkeyPatch) -> None:
    """Of several leases that are due the second is left out."""
    due = scan.due

    def skipping(connection: sqlite3.Connection, now: int, limit: int) -> Due:
        found = due(connection, now, limit)
        del found.leases[1:2]
        return found

    patch.setattr(scan, "due", skipping)


def _next_due_without_leases(patch: pytest.MonkeyPatch) -> None:
    """A kind of what is due that nobody looks for."""
    wrong = scan._NEXT_DUE.replace("min(expires_at)", "min(expires_at) + 1")
    patch.setattr(scan, "_NEXT_DUE", wrong)


def _page_skips_its_boundary(patch: pytest.MonkeyPatch) -> None:
    """A page that begins a little late: what begins like the last one before it is left out."""
    _range = scan._range

    def late(values: dict[str, object], after: str | None, prefix: str, **rest: str) -> str:
        return _range(values, after and f"{after}~", prefix, **rest)

    patch.setattr(scan, "_range", late)


def _children_skip_a_page(patch: pytest.MonkeyPatch) -> None:
    """Released children beyond the first page that lack one."""
    patch.setattr(load, "_RELEASED", load._RELEASED.replace("x.number > ?", "x.number > ? + 1"))


def _rollback_is_left_out(patch: pytest.MonkeyPatch) -> None:
    """A transaction that fails and is not undone."""

    def end(self: SqliteTransaction) -> None:
        self._usable = False
        if self._connection.in_transaction:
            self._connection.execute("COMMIT")

    patch.setattr(SqliteTransaction, "end", end)


def _failing_rollback_is_ignored(patch: pytest.MonkeyPatch) -> None:
    """A connection that is kept although an error left it in an unknown state."""
    patch.setattr(sqlite_store.SqliteStore, "_drop_writer", lambda self: None)


def _unclear_means_failed(patch: pytest.MonkeyPatch) -> None:
    """A commit that reports an error and is not looked up."""

    async def no(self: SqliteTransaction, batch_id: str, failure: Exception) -> bool:
        return False

    patch.setattr(SqliteTransaction, "_is_committed", no)


def _unclear_means_committed(patch: pytest.MonkeyPatch) -> None:
    """A commit that failed and is reported as done."""

    async def yes(self: SqliteTransaction, batch_id: str, failure: Exception) -> bool:
        return True

    patch.setattr(SqliteTransaction, "_is_committed", yes)


def _not_synced(patch: pytest.MonkeyPatch) -> None:
    """A store that does not wait for the disk."""
    _set = connection._set

    def fast(opened: Any, *settings: str, **options: int) -> Any:
        return _set(opened, *(s.replace("FULL", "NORMAL") for s in settings), **options)

    patch.setattr(connection, "_set", fast)


ON_SQLITE: dict[Patch, tuple[str, ...]] = {
    _column_is_not_saved: (),
    _drops_all_callbacks: (),
    _settled_a_moment_early: (),
    _heads_backwards: (),
    _fronts_of_lanes_are_backwards: (),
    _due_skips_one_row: (),
    _next_due_without_leases: (),
    _page_skips_its_boundary: (),
    _children_skip_a_page: (),
    _rollback_is_left_out: ("save_fails", "commit_fails"),
    _failing_rollback_is_ignored: ("store_outage", "load_fails"),
    _unclear_means_failed: ("commit_unclear",),
    _unclear_means_committed: ("commit_fails",),
    _not_synced: ("power_cut",),
}


@pytest.mark.parametrize("plant", ON_SQLITE, ids=lambda plant: plant.__name__)
def test_in_sqlite(plant: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    """A world on SQLite finds it."""
    plant(monkeypatch)
    broken = broken_on("sqlite", *ON_SQLITE[plant])
    assert broken != ""


# -- memory


def _edge_takes_all(patch: pytest.MonkeyPatch) -> None:
    """A callback that is removed takes the others of its awaiter along."""
    put = Tables.put_callback

    def put_callback(self: Tables, of: str, to: str, present: bool | None) -> bool:  # noqa: FBT001
        for other in [] if present else list(self.callbacks):
            put(self, other, to, None)
        return put(self, of, to, present)

    patch.setattr(Tables, "put_callback", put_callback)


def _due_skips_one(patch: pytest.MonkeyPatch) -> None:
    """Of several that are due the second is left out."""
    due = memory_store.MemoryStore.due

    async def skipping(self: memory_store.MemoryStore, now: int, limit: int) -> Due:
        found = await due(self, now, limit)
        del found.leases[1:2]
        return found

    patch.setattr(memory_store.MemoryStore, "due", skipping)


def _heads_unsorted(patch: pytest.MonkeyPatch) -> None:
    """The heads of a queue, the last of them first."""
    first = reading._first

    def unsorted(tables: Tables, front: LaneHead, count: int) -> list[str]:
        return first(tables, front, count)[::-1]

    patch.setattr(reading, "_first", unsorted)


def _column_is_not_kept(patch: pytest.MonkeyPatch) -> None:
    """A field of a record that is not kept."""
    put = Tables.put_task

    def put_task(self: Tables, id: str, task: Task | None) -> Task | None:
        return put(self, id, task and msgspec.structs.replace(task, releases=0))

    patch.setattr(Tables, "put_task", put_task)


def _undone_is_kept(patch: pytest.MonkeyPatch) -> None:
    """A transaction that fails and is not undone."""
    end = memory_store.MemoryTransaction.end

    def keeping(self: memory_store.MemoryTransaction) -> None:
        for tenant, changes in [] if self._ended else self._changes:
            apply(self._store.tables, tenant, changes, [])
        end(self)

    patch.setattr(memory_store.MemoryTransaction, "end", keeping)


def _agenda_forgets(patch: pytest.MonkeyPatch) -> None:
    """What came first once is gone from the agenda."""
    first = Agenda.first

    def forgetful(self: Agenda[Any], limit: int, until: int | None = None) -> list[Any]:
        found = first(self, limit, until)
        if len(found) > 2:
            self._heap.remove(found[-1])
        return found

    patch.setattr(Agenda, "first", forgetful)


def _synced_later(patch: pytest.MonkeyPatch) -> None:
    """A disk that reports commits some seconds before they are safe."""
    patch.setattr(Disk, "sync_lag", 4.0)


ON_MEMORY: dict[Patch, tuple[str, ...]] = {
    _edge_takes_all: (),
    _due_skips_one: (),
    _heads_unsorted: (),
    _column_is_not_kept: (),
    _undone_is_kept: ("commit_fails",),
    _agenda_forgets: (),
    _synced_later: ("power_cut",),
}


@pytest.mark.parametrize("plant", ON_MEMORY, ids=lambda plant: plant.__name__)
def test_in_memory(plant: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    """A world in memory finds it."""
    plant(monkeypatch)
    broken = broken_on("memory", *ON_MEMORY[plant])
    assert broken != ""


def test_sqlite_too_loses_what_its_disk_did_not_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that tells lies about its syncs is found out by a power cut on either store."""
    _synced_later(monkeypatch)
    assert broken_on("sqlite", "power_cut") != ""


def test_nothing_breaks_without_a_bug() -> None:
    """The mixes that find all of this find nothing where nothing is wrong."""
    mix = draw_mix(2)
    often = {"commit_unclear": 0.03, "commit_fails": 0.03, "power_cut": 10.0, "store_outage": 10.0}
    for store in ("memory", "sqlite"):
        worse: Mix = msgspec.structs.replace(mix, store=store, faults={**mix.faults, **often})
        assert run_seed(2, TICKS, worse).broken is None
