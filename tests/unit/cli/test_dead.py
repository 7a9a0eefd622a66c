"""`kept dead`: many at once, dry runs, confirmation, export."""

from __future__ import annotations

import asyncio
import csv
import json
from typing import Any

import pytest

from kept.cli.session import Session
from kept.protocol import requests as r
from kept.stores.memory import MemoryStore
from tests.unit.cli.conftest import Kept
from tests.unit.engine.rig import running
from tests.unit.machine.world import create


def bury(store: MemoryStore, *ids: str, queue: str = "q", final: str = "reject") -> None:
    """Jobs that were given up on."""

    async def run() -> None:
        async with running(store, watched=False) as engine:
            for id in ids:
                action = r.CreateAction(create(id, queue=queue))
                await engine.submit(r.TaskCreate("w", 60_000, action))
                answer = await engine.submit(r.TaskNack(id, 1, final=final))
                assert answer.status == 200, answer

    asyncio.run(run())


def numbered(count: int) -> list[str]:
    return [f"q{number:02}" for number in range(count)]


def test_replay_by_filter(kept: Kept, store: MemoryStore) -> None:
    """A dry run says how many and does nothing; then it is done."""
    bury(store, *numbered(3))
    bury(store, "other00", queue="other")
    assert kept("dead", "replay", "--queue", "q", "--dry-run").out == "would replay 3\n"
    assert kept("promise", "get", "q00~1").code == 1
    assert kept("dead", "replay", "--queue", "q").out == "replayed 3\n"
    assert kept("promise", "get", "q02~1").code == 0
    assert kept("promise", "get", "other00~1").code == 1


def test_more_than_a_handful_needs_a_yes(kept: Kept, store: MemoryStore) -> None:
    """Without a terminal to ask at, nothing is done."""
    bury(store, *numbered(11))
    refused = kept("dead", "purge", "--all")
    assert refused.code == 1
    assert "would purge 11" in refused.errors
    assert "--yes" in refused.errors
    assert len(kept("dead", "list", "-q").lines) == 11
    assert kept("dead", "purge", "--all", "--yes").out == "purged 11\n"
    assert kept("dead", "list", "-q").lines == []


def test_purge_by_id(kept: Kept, store: MemoryStore) -> None:
    """One that is not there is said, and exits with 1; a dry run leaves all."""
    bury(store, *numbered(2))
    assert kept("dead", "purge", "q00", "--dry-run").out == "q00 would be purged\n"
    assert kept("dead", "purge", "q00").out == "q00 purged\n"
    assert kept("dead", "purge", "q00").code == 1
    assert kept("dead", "list", "-q").lines == ["q01"]
    assert kept("dead", "replay", "q01", "--dry-run").out == "q01 would run again as q01~1\n"


def test_what_is_meant_must_be_said(kept: Kept) -> None:
    """Neither ids nor a filter is no way to mean everything."""
    assert kept("dead", "purge").code == 2
    assert kept("dead", "purge", "--all", "--queue", "q").code == 2
    assert kept("dead", "purge", "q00", "--queue", "q").code == 2
    assert kept("dead", "replay", "q00", "--all").code == 2


def test_many_ids_need_a_yes_too(kept: Kept, store: MemoryStore) -> None:
    """Whoever pipes a listing into it has named more than a handful without looking."""
    ids = numbered(11)
    bury(store, *ids)
    for verb in ("replay", "purge"):
        refused = kept("dead", verb, *ids)
        assert (refused.code, refused.out, "--yes" in refused.errors) == (1, "", True)
    assert len(kept("dead", "list", "-q").lines) == 11
    assert len(kept("dead", "purge", *ids, "--dry-run").lines) == 11
    assert len(kept("dead", "replay", *ids[:10]).lines) == 10
    assert len(kept("dead", "purge", *ids, "--yes").lines) == 11


def test_export_as_json_lines_and_as_csv(kept: Kept, store: MemoryStore) -> None:
    """Every field; in CSV no text that a spreadsheet would run."""
    bury(store, *numbered(2))
    lines = [json.loads(line) for line in kept("dead", "export").lines]
    assert [line["id"] for line in lines] == ["q00", "q01"]
    bury(store, "=x", final="halt")
    rows = list(csv.DictReader(kept("dead", "export", "--format", "csv").lines))
    assert [row["id"] for row in rows] == ["'=x", "q00", "q01"]
    assert [row["halted"] for row in rows] == ["yes", "no", "no"]
    assert kept("dead", "show", "q00").code == 0


def test_a_prefix_narrows_list_and_export(kept: Kept, store: MemoryStore) -> None:
    """Those only whose ids begin with it, together with other filters."""
    bury(store, *numbered(2), queue="one")
    bury(store, "q1", "other", queue="two")
    assert kept("dead", "list", "--prefix", "q0", "-q").lines == ["q00", "q01"]
    assert kept("dead", "list", "--prefix", "q", "--queue", "two", "-q").lines == ["q1"]
    assert kept("dead", "list", "--prefix", "nothing", "-q").lines == []
    lines = [json.loads(line) for line in kept("dead", "export", "--prefix", "o").lines]
    assert [line["id"] for line in lines] == ["other"]


def test_how_far_a_bulk_operation_is(kept: Kept, store: MemoryStore) -> None:
    """By the id that --json printed; one that nobody began is not there."""
    bury(store, *numbered(3))
    begun = json.loads(kept("dead", "purge", "--prefix", "q0", "--json").out)
    shown = dict(line.split(maxsplit=1) for line in kept("dead", "bulk", begun["id"]).lines)
    assert (shown["action"], shown["prefix"], shown["done"]) == ("purge", "q0", "3")
    assert shown["finished"] != "not yet"
    assert json.loads(kept("dead", "bulk", begun["id"], "--json").out) == begun
    assert kept("dead", "bulk", "unknown").code == 1
    assert kept("dead", "bulk").code == 2


def test_a_bulk_operation_that_is_left_says_its_id(
    kept: Kept, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever interrupts a purge is told how to look at it, and it goes on."""
    bury(store, *numbered(3))
    ask, begun = Session.ask, []

    async def interrupted(session: Session, request: r.Request, result: type[Any]) -> Any:
        answer = await ask(session, request, result)
        if isinstance(request, r.DeadPurge) and not request.dry_run:
            begun.append(request.bulk)
        elif begun:
            raise KeyboardInterrupt
        return answer

    monkeypatch.setattr(Session, "ask", interrupted)
    left = kept("dead", "purge", "--all")
    monkeypatch.undo()
    assert left.code == 130
    assert f"`kept dead bulk {begun[0]}`" in left.errors
