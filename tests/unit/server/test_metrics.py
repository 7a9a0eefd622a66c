"""The metrics of a running server: all that are documented, and no other."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from kept.client.connection import Connection, call
from kept.client.http import HttpConnection
from kept.protocol import guard_requests as g
from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.limits import NEVER_MS
from kept.protocol.records import PromiseState, Value
from kept.runtime import SystemRuntime
from kept.server.gauges import bounded
from kept.server.serve import ServerOptions, serve

ROOT = Path(__file__).resolve().parents[3]
TAGS = {tag.TARGET: "queue://mail", tag.FUNCTION: "send", tag.ATTEMPTS: "1"}
ALL_LABELS = dict[str, dict[tuple[tuple[str, str], ...], float]]


@asynccontextmanager
async def serving(store_url: str) -> AsyncIterator[tuple[str, HttpConnection]]:
    """A real server in this process, and a client of it."""
    runtime = SystemRuntime()
    stop = asyncio.Event()
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    options = ServerOptions(port=0, store_url=store_url)
    server = asyncio.ensure_future(serve(options, runtime, stop=stop, on_ready=ready.set_result))
    await asyncio.wait((server, ready), return_when=asyncio.FIRST_COMPLETED)
    url = await ready
    connection = HttpConnection(url, runtime)
    try:
        yield url, connection
    finally:
        await connection.close()
        stop.set()
        await server


async def scraped(url: str) -> tuple[set[str], ALL_LABELS]:
    """The names of all families, and each sample by name and labels."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as answer:
        text = await answer.text()
    names = set()
    samples: ALL_LABELS = {}
    for family in text_string_to_metric_families(text):
        names.add(f"{family.name}_total" if family.type == "counter" else family.name)
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            samples.setdefault(sample.name, {})[labels] = sample.value
    return names, samples


def documented() -> dict[str, set[str]]:
    """The names of the table in the documentation, with their labels."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    table = text.split("<!-- generated: metrics -->")[1].split("<!-- end of metrics -->")[0]
    rows = re.findall(r"^\| `(kept_\w+)(?:\{([\w,]+)\})?` \|", table, re.MULTILINE)
    return {name: set(labels.split(",")) - {""} for name, labels in rows}


def fulfil(id: str, version: int) -> r.TaskFulfill:
    settle = r.PromiseSettle(id, PromiseState.RESOLVED, Value())
    return r.TaskFulfill(id, version, r.SettleAction(settle))


def of(**labels: str) -> tuple[tuple[str, str], ...]:
    """Labels as a sample has them."""
    return tuple(sorted(labels.items()))


async def work(connection: Connection) -> None:
    """A bit of everything, so that each metric with labels has a sample."""
    for id in ("done", "dead", "failed", "waits", "held"):
        await call(connection, r.PromiseCreate(id, NEVER_MS, tags=TAGS))
    await call(connection, r.PromiseCreate("done", NEVER_MS, tags=TAGS))
    await call(connection, r.TaskClaim(["mail"], "w1", 60_000, 4))
    await call(connection, fulfil("done", 1))
    assert (await connection.send(fulfil("dead", 7))).status == 409
    await call(connection, r.TaskNack("dead", 1))
    await call(connection, r.TaskNack("failed", 1, consume=False, delay=0))
    await call(connection, r.TaskHeartbeat("w1", [r.TaskRef("done", 1)]))
    await call(connection, g.LockAcquire("door", "a", 60_000))
    await connection.send(g.LockAcquire("door", "b", 60_000))


async def test_every_documented_metric_is_there_and_no_other(tmp_path: Path) -> None:
    """Names and labels are those of the table in docs/operations.md."""
    async with serving(f"sqlite:///{tmp_path}/kept.db") as (url, connection):
        await work(connection)
        names, samples = await scraped(url)
        table = documented()
        assert names == set(table)
        for name, labels in table.items():
            series = samples.get(name) or samples.get(f"{name}_count") or {}
            assert series, name
            for found in series:
                assert {label for label, _ in found} == labels, name


async def test_numbers_of_queues_and_workers(tmp_path: Path) -> None:
    """Gauges are read from the store, counters are what was done."""
    async with serving(f"sqlite:///{tmp_path}/kept.db") as (url, connection):
        await work(connection)
        _, samples = await scraped(url)
        queue = of(tenant="default", queue="mail")
        job = {"tenant": "default", "queue": "mail", "function": "send"}
        for name, labels, value in (
            ("kept_queue_depth", queue, 2),
            ("kept_queue_due", queue, 2),
            ("kept_queue_running", queue, 1),
            ("kept_leases_active", of(worker="w1"), 1),
            ("kept_jobs_enqueued_total", of(**job), 5),
            ("kept_jobs_claimed_total", of(**job), 4),
            ("kept_jobs_consumed_total", of(**job, outcome="resolved"), 1),
            ("kept_jobs_dead_total", of(**job, reason="exhausted"), 1),
            ("kept_job_run_seconds_count", of(**job), 3),
            ("kept_lock_conflicts_total", of(kind="lock"), 1),
            ("kept_lock_wait_seconds_count", of(kind="lock"), 1),
            ("kept_double_effects_detected_total", of(request="task.fulfill"), 1),
        ):
            assert samples[name][labels] == value, name


def test_workers_beyond_the_bound_count_together() -> None:
    """Those that hold most have their names; the sum stays."""
    leases = {f"w{number}": number + 1 for number in range(250)}
    found = bounded(leases)
    assert len(found) == 201
    assert sum(found.values()) == sum(leases.values())
    assert found[("w249",)] == 250
