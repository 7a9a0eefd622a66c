"""Searches and pages: in order, complete, bounded, limited to what the caller may see (A4, A10)."""

from __future__ import annotations

from typing import Any

import pytest

from kept.contract.store_samples import letter, write
from kept.engine import searching
from kept.engine.engine import Engine
from kept.protocol import requests as r
from kept.protocol.entries import LetterFilter
from kept.protocol.limits import MAX_SEARCH_SCAN_ROWS
from kept.protocol.records import PromiseState, TaskState, Value
from kept.protocol.responses import (
    AcquiredTask,
    BulkResult,
    DeadLetterPage,
    PreloadResult,
    PromisePage,
    PurgeResult,
    Response,
    SchedulePage,
    TaskPage,
)
from kept.protocol.storage import Changes
from tests.unit.engine.rig import WatchedStore, ok, running, waiting_claim
from tests.unit.machine.world import create, record

IDS = [f"{prefix}{n:02}" for prefix in "ab" for n in range(25)]


async def _fill(engine: Engine) -> None:
    """Fifty jobs; every fifth is rejected as dead, and every third is blue."""
    for number, id in enumerate(IDS):
        request = create(id, queue="q", function="f@1" if number % 2 else "g@1")
        request.tags["color"] = "red" if number % 3 else "blue"
        await engine.submit(request)
        await engine.submit(r.ScheduleCreate(f"s{id}", "* * * * *", "x", 5, promise_tags={"n": id}))
    for id in IDS[::5]:
        await engine.submit(r.TaskAcquire(id, 0, "w", 60_000))
        await engine.submit(r.TaskNack(id, 1, final="reject", reason="broken"))


async def _pages(engine: Engine, request: r.Request, **options: str) -> list[Response]:
    """All pages of a search, following its cursors."""
    pages: list[Response] = []
    while True:
        pages.append(await engine.submit(request, **options))
        assert pages[-1].status == 200, pages[-1]
        cursor = pages[-1].data.cursor  # type: ignore[union-attr]
        if cursor is None:
            return pages
        request.cursor = cursor  # type: ignore[attr-defined]


@pytest.mark.parametrize("limit", [1, 7, 25, 50, 1_000])
async def test_pages_hold_every_match_once_in_order(limit: int) -> None:
    """Of any size, pages together hold all matches by id; the last has no cursor; none is empty
    unless there is no match."""
    async with running(WatchedStore()) as engine:
        await _fill(engine)
        for request, expected in (
            (r.PromiseSearch(), IDS),
            (r.PromiseSearch(state=PromiseState.REJECTED), IDS[::5]),
            (r.PromiseSearch(tags={"color": "blue"}), IDS[::3]),
            (r.PromiseSearch(tags={"color": "blue", "kept:function": "f@1"}), IDS[3::6]),
            (r.PromiseSearch(tags={"color": "green"}), []),
        ):
            request.limit = limit
            pages = [page.data for page in await _pages(engine, request)]
            found = [p.id for page in pages if isinstance(page, PromisePage) for p in page.promises]
            assert found == expected
            assert len(pages) == max(1, -(-len(expected) // limit))


async def test_tasks_schedules_and_dead_letters_are_paged_alike() -> None:
    """Each search filters and pages in the same way."""
    async with running(WatchedStore()) as engine:
        await _fill(engine)
        tasks = await _pages(engine, r.TaskSearch(state=TaskState.FULFILLED, limit=3))
        found = [t.id for p in tasks if isinstance(p.data, TaskPage) for t in p.data.tasks]
        assert found == IDS[::5]
        schedules = await _pages(engine, r.ScheduleSearch(limit=20))
        listed = [s.data.schedules for s in schedules if isinstance(s.data, SchedulePage)]
        assert [s.id for page in listed for s in page] == [f"s{id}" for id in IDS]
        one = await ok(engine, r.ScheduleSearch(tags={"n": "a03"}), SchedulePage)
        assert [s.id for s in one.schedules] == ["sa03"]
        letters = await _pages(engine, r.DeadList(function="f@1", reason="broken", limit=2))
        dead = [p.data.letters for p in letters if isinstance(p.data, DeadLetterPage)]
        assert [each.id for page in dead for each in page] == IDS[5::10]
        begun = await ok(engine, r.DeadList(limit=2, prefix="b"), DeadLetterPage)
        assert [each.id for each in begun.letters] == ["b00", "b05"]
        nothing = await ok(engine, r.DeadList(queue="other"), DeadLetterPage)
        assert nothing.letters == []


async def test_a_rare_dead_letter_is_found_in_bounded_pages() -> None:
    """A page walks past 10,000 letters at most, then goes on; a bulk operation finds it as well."""
    many = 2 * MAX_SEARCH_SCAN_ROWS + 10
    letters = {f"{n:05}": letter(f"{n:05}") for n in range(many)}
    rare = f"{many - 5:05}"
    letters[rare] = letter(rare, queue="other", reason="rare")
    store = WatchedStore()
    async with running(store) as engine:
        await write(store, Changes(dead_letters={**letters}))
        pages = [page.data for page in await _pages(engine, r.DeadList(reason="rare"))]
        found = [[each.id for each in p.letters] for p in pages if isinstance(p, DeadLetterPage)]
        assert found == [[], [], [rare]]
        purge = r.DeadPurge(filter=LetterFilter(reason="rare"), bulk="b")
        await ok(engine, purge, PurgeResult)
        while True:
            bulk = (await ok(engine, r.DeadBulk("b"), BulkResult)).bulk
            if bulk.finished_at is not None:
                break
        assert (bulk.done, bulk.failed) == (1, 0)
        assert (await engine.submit(r.DeadGet(rare))).status == 404
        # They were not written by any request, so the monitor does not know of them.
        await write(store, Changes(dead_letters=dict.fromkeys(letters)))


async def test_a_search_is_limited_to_the_prefix_of_the_caller() -> None:
    """Nothing outside of the prefix is found, on any page, whatever the filter (A8)."""
    async with running(WatchedStore()) as engine:
        await _fill(engine)
        for request in (r.PromiseSearch(limit=4), r.TaskSearch(limit=4), r.DeadList(limit=4)):
            for page in await _pages(engine, request, prefix="b"):
                records = next(iter(vars_of(page)))
                assert records
                assert all(each.id.startswith("b") for each in records)
        for wanted, seen, ids in (
            ("b1", "b", ["b10", "b15"]),
            ("a", "b", []),
            ("b", "b2", ["b20"]),
        ):
            page = (await engine.submit(r.DeadList(prefix=wanted), prefix=seen)).data
            assert isinstance(page, DeadLetterPage)
            assert [each.id for each in page.letters] == ids


def vars_of(page: Response) -> list[list[r.PromiseGet]]:
    """The records of a page, whatever their kind."""
    data = page.data
    fields = data.__struct_fields__  # type: ignore[union-attr]
    return [value for name in fields if isinstance(value := getattr(data, name), list)]


async def test_a_search_shows_what_is_seen_now() -> None:
    """Promises past their deadline are found as settled, and their tasks as fulfilled, before
    anything has stored it."""
    async with running(WatchedStore(), debug=True) as engine:
        await engine.submit(r.DebugStart())
        now = r.RequestHead(debug_time=1_000)
        await engine.submit(create("p", queue="q", timeout_at=2_000), now)
        for at, states in (
            (1_999, ("pending", "pending")),
            (2_000, ("rejected_timedout", "fulfilled")),
        ):
            page = await ok(engine, r.PromiseSearch(), PromisePage, debug_time=at)
            tasks = await ok(engine, r.TaskSearch(), TaskPage, debug_time=at)
            assert (page.promises[0].state.value, tasks.tasks[0].state.value) == states


async def test_a_scan_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that matches little looks at so many rows and answers with a cursor to go on."""
    monkeypatch.setattr(searching, "MAX_SEARCH_SCAN_ROWS", 20)
    monkeypatch.setattr(searching, "MAX_SCAN_ROWS", 10)
    async with running(WatchedStore()) as engine:
        await _fill(engine)
        request = r.PromiseSearch(tags={"color": "none"})
        pages = [page.data for page in await _pages(engine, request)]
        assert [page.promises for page in pages if isinstance(page, PromisePage)] == [[], [], []]


async def test_children_continue_the_preload() -> None:
    """A claim's preload and the pages after it hold each child once: released ones in their order,
    then the rest by id (B3)."""
    async with running(WatchedStore()) as engine:
        await engine.submit(create("w", queue="q"))
        await ok(engine, r.TaskAcquire("w", 0, "p", 60_000), AcquiredTask)
        order = [7, 2, 9, 4, 1]
        for number in range(12):
            await engine.submit(record("w", 1, f"w.{number:02}"))
        await engine.submit(record("w", 1, "w.12", released=[f"w.{n:02}" for n in order]))
        await engine.submit(r.TaskRelease("w", 1))
        response = await engine.submit(waiting_claim("q", wait=0, preload=3))
        lease = response.data.tasks[0]  # type: ignore[union-attr]
        expected = [f"w.{n:02}" for n in order + [n for n in range(13) if n not in order]]
        assert lease.released == expected[:3]
        found = [promise.id for promise in lease.preload]
        released, more = list(lease.released), lease.more
        while more is not None:
            page = await ok(engine, r.PromiseChildren("w", more, 4), PreloadResult)
            found += [promise.id for promise in page.preload]
            released += page.released or []
            more = page.more
        assert found == expected
        assert released == expected[:5]


async def test_a_cursor_that_no_page_gave_is_refused() -> None:
    """400, never a page of something else."""
    async with running(WatchedStore()) as engine:
        response = await engine.submit(r.PromiseChildren("w", "bogus"))
        assert response.status == 400
        assert (await engine.submit(r.PromiseSearch(cursor="\0"))).status == 400


@pytest.mark.parametrize("payload", [{"data": "x" * 400}, {"headers": {"h" * 200: "v" * 200}}])
async def test_a_page_of_large_records_ends_early(
    monkeypatch: pytest.MonkeyPatch, payload: dict[str, Any]
) -> None:
    """Payloads bound a page too, and following the cursors still finds each record once."""
    monkeypatch.setattr(searching, "MAX_PAGE_BYTES", 1_000)
    async with running(WatchedStore()) as engine:
        for id in IDS[:20]:
            await engine.submit(r.PromiseCreate(id, 9_999_999_999_999, Value(**payload)))
        pages = [page.data for page in await _pages(engine, r.PromiseSearch(limit=1_000))]
        found = [[p.id for p in page.promises] for page in pages if isinstance(page, PromisePage)]
        assert [id for page in found for id in page] == IDS[:20]
        assert {len(page) for page in found[:-1]} == {3}
