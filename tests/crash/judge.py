"""What a crash run must come to: its history is linearizable, what was acknowledged is stored."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from kept.check.history import Header, History, Recorder
from kept.check.linearizability import Result, Verdict, check
from kept.check.monitor import Monitor
from kept.check.protocol_model import ProtocolModel
from kept.protocol.records import PromiseState, TaskState
from kept.protocol.storage import DEFAULT_TENANT, Dump
from kept.runtime import SystemRuntime
from kept.stores.sqlite import SqliteStore
from tests.crash.load import Ledger
from tests.crash.record import Record

log: Final = logging.getLogger("tests.crash")

# All processes read one clock; it is rounded to milliseconds, and adjusted a little.
CLOCK_SKEW_MS: Final = 3
# Where the search would take longer, the verdict on those operations is `unknown`.
BUDGET_STEPS: Final = 200_000
# The share of operations that may remain without a verdict.
MAX_UNKNOWN_SHARE: Final = 0.02


def recorder(title: str) -> Recorder:
    """A recorder for one crash run."""
    return Recorder(SystemRuntime().now_ms, Header(title=title, clock_skew_ms=CLOCK_SKEW_MS))


def judge_history(history: History, record: Record, keep_in: Path) -> None:
    """There is one order of all operations that explains every answer; operations without an answer
    may have happened or not. A history that has none is kept as a file, for `kept history check`."""
    result = check(history, ProtocolModel(), budget_steps=BUDGET_STEPS)
    undecided = sum(len(component.operations) for component in result.undecided)
    record.operations_judged += len(history.operations)
    record.operations_without_verdict += undecided
    record.verdicts.update(component.verdict.value for component in result.components)
    if result.verdict is Verdict.NOT_LINEARIZABLE:
        record.save()
        path = keep_in / "history.jsonl"
        history.save(path)
        raise AssertionError(f"not linearizable, see {path}: {_story(history, result)}")
    if undecided:
        reason = result.undecided[0].reason
        log.warning("%d of %d have no verdict: %s", undecided, len(history.operations), reason)
    assert undecided <= MAX_UNKNOWN_SHARE * len(history.operations), (
        f"{undecided} of {len(history.operations)} operations have no verdict: "
        f"{result.undecided[0].reason}"
    )


def _story(history: History, result: Result) -> str:
    violation = result.violations[0]
    assert violation.first is not None
    return f"{history.operations[violation.first]}: {violation.reason}"


async def stored(path: Path) -> Dump:
    """What a file holds, after all named properties were evaluated on it."""
    runtime = SystemRuntime()
    store = SqliteStore(str(path), runtime)
    await store.open()
    try:
        dump = await store.dump(DEFAULT_TENANT)
    finally:
        await store.close()
    Monitor().begin(dump, runtime.now_ms())
    return dump


def judge_stored(ledger: Ledger, dump: Dump, record: Record) -> None:
    """Every acknowledged create, settle and fulfil is stored as it was answered, each promise has one
    settlement, each version of a task one holder."""
    lost = sorted(set(_lost(ledger, dump)))
    record.lost += len(lost)
    assert not lost, f"acknowledged, and not stored so: {lost[:5]}"
    _judge_leases(ledger, dump)


def _lost(ledger: Ledger, dump: Dump) -> Iterator[str]:
    records = {id: promise.record() for id, promise in dump.promises.items()}
    for id, created in ledger.created.items():
        found = records.get(id)
        if found is None or (found.param, found.tags, found.created_at) != (
            created.param,
            created.tags,
            created.created_at,
        ):
            yield id
    for id, answers in ledger.settled.items():
        if any(answer != records.get(id) for answer in answers):
            yield id
    for id, fulfils in ledger.fulfilled.items():
        if [answer for _, answer in fulfils] != [records.get(id)] or dump.tasks[
            id
        ].version != fulfils[0][0]:
            yield id


def _judge_leases(ledger: Ledger, dump: Dump) -> None:
    for id, leases in ledger.leases.items():
        holders = dict(leases)
        # The same claim may be answered twice, to the same client.
        assert all(holders[version] == client for version, client in leases), id
        assert max(holders) <= dump.tasks[id].version, id
    for id, task in dump.tasks.items():
        settled = dump.promises[id].state is not PromiseState.PENDING
        assert settled == (task.state is TaskState.FULFILLED), id
