"""Several processes on one SQLite file: turns, notices, crashes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from kept.contract.store_samples import NOW, acquired, births, fresh_batch, jobs, promise, write
from kept.protocol.storage import Notice
from kept.runtime import SystemRuntime
from kept.stores.sqlite import SqliteStore
from kept.stores.sqlite.neighbours import MAX_NOTICE_BYTES, socket_directory
from kept.stores.sqlite.surroundings import ALONE, REAL
from tests.contract.sqlite_process import GROUP


@contextlib.asynccontextmanager
async def _store(path: Path, *, neighbours: bool = True) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(str(path), SystemRuntime(), REAL if neighbours else ALONE)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def _process(*arguments: str) -> AsyncIterator[Process]:
    """Another process on the store; killed at the end where it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.contract.sqlite_process", *arguments, stdin=PIPE, stdout=PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        assert process.stdin is not None
        process.stdin.close()


async def _line(process: Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


def _go(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")


def _sockets(path: Path) -> list[Path]:
    directory = socket_directory(f"{path}-run")
    assert directory is not None
    return list(Path(directory).glob("*.sock"))


async def _committing(store: SqliteStore, notice: Notice) -> None:
    async with store.transaction() as transaction:
        await transaction.commit(fresh_batch(), NOW, notice)


async def test_writers_of_several_processes_take_turns(tmp_path: Path) -> None:
    """No work is lost between three processes that write as fast as they can, and while all three
    want to write, none is kept waiting while another writes again and again."""
    path, times = tmp_path / "kept.db", 200
    async with _store(path) as store, contextlib.AsyncExitStack() as stack:
        await write(store, jobs(acquired("n", NOW, version=0)))
        processes = [
            await stack.enter_async_context(_process("count", str(path), name, str(times)))
            for name in "abc"
        ]
        for process in processes:
            assert await _line(process) == "ready"
        for process in processes:
            _go(process)
        made = [msgspec.json.decode(await _line(p), type=list[int]) for p in processes]
        assert sorted(itertools.chain(*made)) == list(range(1, 3 * times + 1))
        assert (await store.dump("default")).tasks["n"].version == 3 * times
    owner = {number: name for name, numbers in enumerate(made) for number in numbers}
    first, last = max(n[0] for n in made), min(n[-1] for n in made)
    together = [owner[number] for number in range(first, last + 1)]
    if len(together) > 60:
        longest = max(len(list(run)) for _, run in itertools.groupby(together))
        assert longest <= 20
        assert min(together.count(name) for name in range(3)) >= len(together) / 10


async def test_a_commit_tells_the_others(tmp_path: Path) -> None:
    """What one process commits, another one hears as it was said; a later one hears it too; the
    one that said it does not."""
    path = tmp_path / "kept.db"
    async with _store(path) as store:
        heard: list[Notice] = []
        store.on_notice = heard.append
        async with (
            _process("listen", str(path)) as first,
            _process("listen", str(path)) as second,
        ):
            assert (await _line(first), await _line(second)) == ("ready", "ready")
            notice = Notice(
                queues={("default", "q")},
                freed={("default", "r")},
                settled={("default", "é")},
                due_at=NOW,
                messages=True,
                turns={("default", "lock", "é", "holder")},
            )
            await _committing(store, notice)
            for process in (first, second):
                line = await _line(process)
                assert msgspec.json.decode(line, type=Notice) == notice
        assert heard == []


async def test_a_notice_that_is_too_large(tmp_path: Path) -> None:
    """What does not fit into a datagram is heard as "look everywhere"."""
    path = tmp_path / "kept.db"
    async with _store(path) as store, _process("listen", str(path)) as other:
        assert await _line(other) == "ready"
        settled = {("default", f"{n}" * 100) for n in range(MAX_NOTICE_BYTES // 100)}
        await _committing(store, Notice(settled=settled))
        heard = msgspec.json.decode(await _line(other), type=Notice)
        assert heard == Notice(everything=True)


async def test_a_commit_that_nobody_told_of(tmp_path: Path) -> None:
    """A store that is told nothing finds out soon that others committed, and never takes its own
    commits for theirs."""
    path = tmp_path / "kept.db"
    async with _store(path, neighbours=False) as store, _store(path, neighbours=False) as other:
        heard: list[Notice] = []
        others_heard: list[Notice] = []
        found = asyncio.Event()

        def on_notice(notice: Notice) -> None:
            heard.append(notice)
            found.set()

        store.on_notice = on_notice
        other.on_notice = others_heard.append
        await write(other, births(promise("p")))
        await found.wait()
        assert heard == [Notice(everything=True)]
        found.clear()
        # Also where this store writes in between, which is when it would miss the change.
        await write(other, births(promise("q")))
        await write(store, births(promise("r")))
        await found.wait()
        assert heard[1:] == [Notice(everything=True)]


async def test_killed_before_its_commit(tmp_path: Path) -> None:
    """A process that is killed inside a transaction leaves nothing, and its turn goes on at once."""
    path = tmp_path / "kept.db"
    async with _store(path) as store:
        await write(store, births(promise("before")))
        async with _process("hold", str(path)) as holder:
            assert await _line(holder) == "saved"
            writing = asyncio.ensure_future(write(store, births(promise("after"))))
            done, _ = await asyncio.wait({writing}, timeout=0.05)
            assert not done
            holder.kill()
            await writing
        assert set((await store.dump("default")).promises) == {"before", "after"}


async def test_killed_at_any_moment(tmp_path: Path) -> None:
    """Processes that are killed while they commit lose nothing that they had reported, and leave no
    group of promises, tasks and edges in part."""
    path = tmp_path / "kept.db"
    async with _store(path) as store:
        for attempt in range(6):
            async with _process("churn", str(path), f"g{attempt}") as churner:
                for number in range(2 + 3 * attempt):
                    assert await _line(churner) == str(number)
                churner.kill()
                await churner.wait()
                assert churner.stdout is not None
                unread = (await churner.stdout.read()).split()
                groups = 2 + 3 * attempt + len(unread)
            found = await store.dump("default")
            mine = [id for id in found.promises if id.startswith(f"g{attempt}.")]
            assert len(mine) in (groups * GROUP, (groups + 1) * GROUP)
            assert set(found.tasks) == set(found.promises)
            assert {edge.of for edge in found.callbacks} == set(found.promises)


async def test_a_dead_neighbour_is_forgotten(tmp_path: Path) -> None:
    """The socket of a process that was killed is removed by the first who meets it."""
    path = tmp_path / "kept.db"
    async with _store(path) as store:
        async with _process("listen", str(path)) as other:
            assert await _line(other) == "ready"
            assert len(_sockets(path)) == 2
        await _committing(store, Notice(messages=True))
        assert len(_sockets(path)) == 1
    assert _sockets(path) == []


async def test_neighbours_behind_a_long_path(tmp_path: Path) -> None:
    """Where the file's path is too long for a socket, notices arrive all the same."""
    directory = tmp_path / ("d" * 60) / ("e" * 60)
    directory.mkdir(parents=True)
    path = directory / "kept.db"
    async with _store(path) as store, _process("listen", str(path)) as other:
        assert await _line(other) == "ready"
        await _committing(store, Notice(messages=True))
        assert msgspec.json.decode(await _line(other), type=Notice) == Notice(messages=True)
