"""Where jobs come from: told by their start, known to handlers, records and logs."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import sqlite3

import pytest

import kept
from kept import outbox
from kept.client.connection import call
from kept.protocol import requests as r
from kept.protocol.responses import PromiseResult
from kept.sdk.audit import audit_of
from kept.server.logs import LineFormatter

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
AUDIT = kept.Audit("e-1", "orders/42", 3, "abc", "key", "shop", "kafka:orders", TRACE)


def test_the_key_of_an_event() -> None:
    """As documented, so that other programs can compute it; another event has another key."""
    expected = hashlib.sha256(b"5:k\xc3\xa4se,2:12,3:abc,").hexdigest()
    assert kept.dedupe_key("käse", 12, "abc") == expected
    events = [("a", 11, "b"), ("a1", 1, "b"), ("a", 1, "1b"), ("", 11, "ab"), ("a", 1, "b")]
    assert len({kept.dedupe_key(*event) for event in events}) == len(events)


def test_what_is_said_is_read() -> None:
    """Through tags and back; the key is made where it is not given; others' tags break nothing."""
    assert audit_of(AUDIT.tags()) == AUDIT
    assert kept.Audit().tags() == {}
    event = kept.Audit(source_id="a", revision=0, index_hash="")
    assert audit_of(event.tags()).dedupe_key == kept.dedupe_key("a", 0, "")
    assert audit_of(kept.Audit(revision=-5).tags()).revision == -5
    assert audit_of({"kept:audit-revision": "new", "kept:dedupe": "k"}) == kept.Audit(
        dedupe_key="k"
    )
    for wrong in (kept.Audit(event_id=7), kept.Audit(revision="1"), kept.Audit(revision=True)):  # type: ignore[arg-type]
        with pytest.raises(kept.InvalidArgumentsError, match="audit"):
            wrong.tags()


async def test_a_job_knows_where_it_comes_from() -> None:
    """In plain functions, in threads, in steps; durable code by its context, and so does what it
    calls. Its record says it, too."""
    app = kept.App("memory://")
    seen: dict[str, kept.Job | None] = {}
    audits: list[kept.Audit] = []

    @app.function
    async def job(name: str) -> None:
        seen[name] = kept.current_job()

    @app.function
    def threaded() -> None:
        seen["thread"] = kept.current_job()

    @app.function
    async def workflow(ctx: kept.Context) -> str:
        audits.append(ctx.audit)
        with pytest.raises(kept.NotDurableError):
            kept.current_job()
        await ctx.run(job, "step")
        await ctx.call(job, "called")
        return ctx.id

    async with app, asyncio.timeout(20):
        handle = await app.start(job, "started", audit=AUDIT)
        await handle
        await app.run(threaded, audit=AUDIT)
        await (await app.enqueue("job", args={"name": "enqueued"}, audit=AUDIT))
        await app.run(job, "plain")
        workflow_id = await app.run(workflow, audit=AUDIT)
        found = (await call(app.connection, r.PromiseGet(handle.id))).data
        assert isinstance(found, PromiseResult)
        assert found.promise.tags["kept:audit-event"] == "e-1"
        assert found.promise.tags["traceparent"] == TRACE
    assert kept.current_job() is None
    audited = {name: each.audit for name, each in seen.items() if each is not None}
    assert audited.pop("plain") == kept.Audit()
    assert set(audited.values()) == {AUDIT}
    assert set(audited) == {"started", "thread", "enqueued", "step", "called"}
    assert audits == [AUDIT]
    assert seen["started"] == kept.Job(handle.id, "job@1", "default", 1, AUDIT)
    assert seen["step"] == kept.Job(workflow_id, "workflow@1", "default", 1, AUDIT)


async def test_logs_name_the_job(caplog: pytest.LogCaptureFixture) -> None:
    """The worker's own, and those of handlers under `JobFields`: with the attempt and the event."""
    app = kept.App("memory://")
    mine = logging.getLogger("tests.mine")
    caplog.handler.addFilter(kept.JobFields())
    caplog.set_level(logging.INFO)

    @app.function(retry=kept.Constant(attempts=2, delay=0))
    async def job() -> None:
        mine.info("working")
        raise ValueError("not today")

    async with app, asyncio.timeout(20):
        mine.info("beside")
        with pytest.raises(kept.PromiseRejectedError):
            await app.run(job, id="j", audit=AUDIT)
    lines = [LineFormatter().format(record) for record in caplog.records]
    [beside] = [line for line in lines if "message=beside" in line]
    assert "job=" not in beside
    working = [line for line in lines if "message=working" in line]
    assert ["attempt=1" in line for line in working] == [True, False]
    assert "job=j function=job@1 queue=default attempt=2 event_id=e-1" in working[1]
    failed = [line for line in lines if "logger=kept.worker" in line and "not today" in line]
    assert ["failed for good" in line for line in failed] == [False, True]
    assert all("source_id=orders/42" in line for line in failed)
    assert "tenant=shop" in str(caplog.records[-1].__dict__["job"])


def test_an_outbox_carries_it() -> None:
    """A job that was written in a transaction says the same."""
    shop = sqlite3.connect(":memory:")
    outbox.create_table(shop)
    outbox.enqueue(shop, "pack", audit=AUDIT)
    [(job,)] = shop.execute("SELECT job FROM kept_outbox")
    shop.close()
    assert '"kept:audit-event":"e-1"' in job
