"""A tree of work is canceled in the background, in commits of bounded size (protocol B3)."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import pytest

from kept.engine.engine import Engine
from kept.protocol import requests as r
from kept.protocol.entries import CancelMode, EntryKind
from kept.protocol.limits import MAX_CANCELED_PER_COMMIT
from kept.protocol.records import PromiseState
from kept.protocol.responses import AcquiredTask, CancelResult
from kept.protocol.storage import Changes
from kept.runtime import SystemRuntime
from kept.stores.base import Store
from kept.stores.memory import MemoryStore
from kept.stores.sqlite import SqliteStore
from tests.unit.engine.rig import ok, running
from tests.unit.machine.world import create

log = logging.getLogger(__name__)

# What a tree has below its root: so many branches, each with so many leaves. The environment makes
# it as large as one likes: 100,000 with KEPT_TREE=100x999, whose
# duration is in the log (--log-cli-level=INFO).
BRANCHES, LEAVES = map(int, os.environ.get("KEPT_TREE", "20x99").split("x"))
SIZE = BRANCHES * (LEAVES + 1)
LOOK_SECONDS = 0.05


class _Commits:
    """How many promises each step canceled."""

    def __init__(self) -> None:
        self.canceled: list[int] = []

    def step(self, _tenant: str, _now: int, _name: str, _internal: bool, changes: Changes) -> None:  # noqa: FBT001
        settled = [
            promise
            for promise in changes.promises.values()
            if promise.state is PromiseState.REJECTED_CANCELED
        ]
        self.canceled.append(len(settled))

    def mark(self) -> int:
        return len(self.canceled)

    def rollback(self, mark: int) -> None:
        del self.canceled[mark:]


async def _plant(engine: Engine) -> None:
    """A root that runs, branches and leaves that never began."""
    action = r.CreateAction(create("r", queue="q"))
    await ok(engine, r.TaskCreate("w", 600_000, action), AcquiredTask)
    requests: list[r.Request] = []
    for branch in range(BRANCHES):
        requests.append(create(f"r.{branch}", parent="r", origin="r", queue="q"))
        requests += [
            create(f"r.{branch}.{leaf}", parent=f"r.{branch}", origin="r", queue="q")
            for leaf in range(LEAVES)
        ]
    for start in range(0, len(requests), 1_000):
        await asyncio.gather(*(engine.submit(each) for each in requests[start : start + 1_000]))


def _store(kind: str, path: Path) -> Store:
    if kind == "memory":
        return MemoryStore(SystemRuntime())
    return SqliteStore(str(path / "kept.db"), SystemRuntime())


@pytest.mark.parametrize("mode", CancelMode)
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_tree(tmp_path: Path, kind: str, mode: CancelMode) -> None:
    """Every descendant is reached, none twice, no step reaches more than it may, and meanwhile the
    engine answers others."""
    store = _store(kind, tmp_path)
    async with running(store, watched=False) as engine:
        await _plant(engine)
        commits = _Commits()
        engine._committer._observer = commits
        request = r.PromiseCancel("r", "a test", mode)
        started = engine.runtime.monotonic()
        result = await ok(engine, request, CancelResult)
        assert result.cancel is not None
        async with asyncio.timeout(30 + SIZE / 500):
            while result.cancel is not None and result.cancel.spreading:
                await engine.runtime.sleep(LOOK_SECONDS)
                result = await ok(engine, request, CancelResult)
        seconds = engine.runtime.monotonic() - started
        log.info("%d descendants, %s, %s: %.1f s", SIZE, kind, mode, seconds)
        dump = await store.dump("default")
        states = [promise.state for promise in dump.promises.values()]
        running_root = mode is CancelMode.REQUEST
        assert states.count(PromiseState.REJECTED_CANCELED) == SIZE + (not running_root)
        assert sum(commits.canceled) == SIZE + (not running_root)
        assert max(commits.canceled) <= MAX_CANCELED_PER_COMMIT
        cancellations = [key for key in dump.entries if key.kind is EntryKind.CANCEL]
        assert len(cancellations) == running_root
        if result.cancel is not None:
            assert result.cancel.descendants == SIZE
