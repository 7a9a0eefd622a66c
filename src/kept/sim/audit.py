"""A look at the whole from outside, once all has settled: pages, counts, what is left over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable
from functools import partial
from typing import Any, Final

from kept.check.state import State
from kept.client.connection import Connection
from kept.protocol import requests as r
from kept.protocol import tags as tag
from kept.protocol.records import Delivery, Promise, PromiseState, TaskState
from kept.protocol.responses import (
    DeadLetterPage,
    PreloadResult,
    PromisePage,
    SchedulePage,
    TaskPage,
)
from kept.protocol.storage import Dump
from kept.sim.breakage import Broken

PAGE_ROWS: Final = 7
MAX_PAGES: Final = 5_000
MAX_WALKS: Final = 50
MAX_PARENTS: Final = 3


class Audit:
    """Walks all pages and holds them against the records that the steps have made.

    Time goes on meanwhile: what was there before the walk and still is must be seen exactly once,
    and nothing else that is not there now.
    """

    def __init__(
        self,
        connection: Connection,
        state: Callable[[], State],
        now: Callable[[], int],
        quiet: Callable[[], Awaitable[None]],
    ) -> None:
        self._connection = connection
        self._state = state
        self._now = now
        # Returns when no commit is under way.
        self._quiet = quiet
        self.rows = 0

    async def run(self) -> None:
        """Raises `Broken` where a page is wrong."""
        await self._promises(r.PromiseSearch(limit=1_000), lambda _: True)
        resolved, rejected = PromiseState.RESOLVED, PromiseState.REJECTED
        for state in (resolved, rejected):
            query = r.PromiseSearch(state, limit=PAGE_ROWS * 10)
            await self._promises(query, partial(_has_state, state))
        query = r.PromiseSearch(resolved, {tag.FUNCTION: "step@1"}, limit=PAGE_ROWS * 10)
        await self._promises(
            query, lambda p: p.state is resolved and p.tags.get(tag.FUNCTION) == "step@1"
        )
        for id in self._parents():
            query = r.PromiseSearch(tags={tag.PARENT: id}, limit=PAGE_ROWS)
            await self._promises(query, partial(_is_child, id))
            await self._children(id)
        await self._tasks()
        await self._letters()
        await self._schedules()

    def _parents(self) -> list[str]:
        """Those with the most children."""
        counts: dict[str, int] = {}
        for promise in self._state().promises.values():
            if promise.parent is not None:
                counts[promise.parent] = counts.get(promise.parent, 0) + 1
        return sorted(counts, key=lambda id: (-counts[id], id))[:MAX_PARENTS]

    async def _promises(self, query: r.PromiseSearch, matches: Callable[[Promise], bool]) -> None:
        def expected() -> set[str]:
            now = self._now()
            promises = self._state().promises.values()
            return {p.id for p in promises if matches(p.project(now))}

        await self._walk("promise.search", query, PromisePage, "promises", expected)

    async def _tasks(self) -> None:
        query = r.TaskSearch(TaskState.FULFILLED, limit=PAGE_ROWS * 20)
        await self._walk("task.search", query, TaskPage, "tasks", self._fulfilled)
        everything = r.TaskSearch(limit=1_000)
        await self._walk(
            "task.search", everything, TaskPage, "tasks", lambda: set(self._state().tasks)
        )

    def _fulfilled(self) -> set[str]:
        state, now = self._state(), self._now()
        return {id for id in state.tasks if not state.promises[id].project(now).pending}

    async def _letters(self) -> None:
        await self._walk(
            "dead.list",
            r.DeadList(limit=PAGE_ROWS),
            DeadLetterPage,
            "letters",
            lambda: set(self._state().dead_letters),
        )
        for reason in ("exhausted", "lease_expired"):
            await self._walk(
                "dead.list",
                r.DeadList(reason=reason, limit=PAGE_ROWS),
                DeadLetterPage,
                "letters",
                partial(self._letters_of, reason),
            )

    def _letters_of(self, reason: str) -> set[str]:
        letters = self._state().dead_letters.values()
        return {letter.id for letter in letters if letter.reason == reason}

    async def _schedules(self) -> None:
        await self._walk(
            "schedule.search",
            r.ScheduleSearch(limit=1),
            SchedulePage,
            "schedules",
            lambda: set(self._state().schedules),
        )

    async def _walk(
        self,
        what: str,
        query: Any,
        page_type: type[Any],
        field: str,
        expected: Callable[[], set[str]],
    ) -> None:
        # What a commit under way has done, a search may not see yet.
        await self._quiet()
        before = expected()
        seen: list[str] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            query.cursor = cursor
            response = await self._connection.send(query)
            if not isinstance(response.data, page_type):
                raise Broken("pages are whole", f"{what} answers {response.data}")
            found = getattr(response.data, field)
            if len(found) > query.limit:
                raise Broken("pages are whole", f"{what}: {len(found)} rows of {query.limit}")
            seen += [record.id for record in found]
            cursor = response.data.cursor
            if cursor is None:
                break
        after = expected()
        self.rows += len(seen)
        if what != "dead.list" and seen != sorted(seen, key=str.encode):
            raise Broken("pages are in order", f"{what} {query}")
        _require_same(f"{what} {query}", seen, before & after, before | after)

    async def _children(self, id: str) -> None:
        """Released ones first, in the order of their numbers; then the rest. A child that is released
        during a walk goes from the one part to the other, so such a walk says nothing."""
        for _ in range(MAX_WALKS):
            # What a commit under way has done, a page may not show yet.
            await self._quiet()
            expected = self._expected_children(id)
            seen = await self._walk_children(id)
            if self._expected_children(id) == expected:
                break
        else:
            raise Broken("pages are whole", f"promise.children of {id}: they never rest")
        children, released = expected
        _require_same(f"promise.children of {id}", seen, children, children)
        if seen[: len(released)] != released:
            raise Broken("pages are in order", f"promise.children of {id}")

    def _expected_children(self, id: str) -> tuple[set[str], list[str]]:
        """All of them, and those that are released, in their order."""
        state = self._state()
        promises = state.promises.values()
        children = {p.id for p in promises if id in (p.parent, p.branch) and p.id != id}
        # Its own id among the released stands for its cancellation (B3).
        children |= {e.to for e in state.releases if e.of == e.to == id}
        numbers = {e.to: number for e, number in state.releases.items() if e.of == id}
        return children, sorted(children & numbers.keys(), key=lambda child: numbers[child])

    async def _walk_children(self, id: str) -> list[str]:
        seen: list[str] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            request = r.PromiseChildren(id, cursor, PAGE_ROWS)
            response = await self._connection.send(request)
            assert isinstance(response.data, PreloadResult), response
            seen += [record.id for record in response.data.preload]
            cursor = response.data.more
            if cursor is None:
                break
        return seen


def _has_state(state: PromiseState, promise: Promise) -> bool:
    return promise.state is state


def _is_child(parent: str, promise: Promise) -> bool:
    return promise.tags.get(tag.PARENT) == parent


def _require_same(what: str, seen: list[str], least: set[str], most: set[str]) -> None:
    if len(set(seen)) != len(seen):
        raise Broken("pages are whole", f"{what}: some come twice")
    missing, extra = least - set(seen), set(seen) - most
    if missing or extra:
        shown = f"{_some(missing)} missing, {_some(extra)} too many"
        raise Broken("pages are whole", f"{what}: {shown}")


def _some(ids: Iterable[str]) -> str:
    return ", ".join(sorted(ids)[:5]) or "none"


def check_counts(counts: dict[str, int], dumps: Collection[Dump]) -> None:
    """What the store counts for its metrics is what it holds, of all tenants."""
    # A timer's task waits for nobody.
    tasks = [task for dump in dumps for task in dump.tasks.values()]
    states = [task.state for task in tasks if task.delivery is not Delivery.NEVER]
    real = {
        "promises": sum(len(dump.promises) for dump in dumps),
        "tasks_acquired": states.count(TaskState.ACQUIRED),
        "tasks_pending": states.count(TaskState.PENDING),
        "schedules": sum(len(dump.schedules) for dump in dumps),
        "outbox": sum(len(dump.outbox) for dump in dumps),
        "dead_letters": sum(len(dump.dead_letters) for dump in dumps),
    }
    for name, count in real.items():
        if counts.get(name) != count:
            raise Broken("counts are right", f"{name}: {counts.get(name)}, there are {count}")
