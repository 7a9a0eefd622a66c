"""Disks that fill, turn read-only or fail, and files that are taken away, under a running server: it says
what to do, loses nothing that it acknowledged, and goes on when it can."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Final

import pytest

from tests.crash.cycles import SEED
from tests.crash.disks import (
    Ballast,
    disk_image,
    grow,
    make_image,
    make_read_only,
    memory_disk,
)
from tests.crash.processes import Nursery
from tests.crash.record import Record
from tests.crash.shop import Shop, shop
from tests.crash.worker_run import WorkerRun

MIB: Final = 1_048_576
EXIT_UNREACHABLE: Final = 3
FULL: Final = "the disk is full; free some space and try again (SQLITE_FULL)"
NO_INDEX: Final = "there is no room for the log's index; free some space and try again"
FAILED: Final = "the disk failed to read or write; look at the system's log"
READ_ONLY: Final = (
    "it cannot be written to; look at the owner and permissions of the file and of those beside it, and "
    "whether its disk is mounted read-only"
)
NOT_WRITABLE: Final = "the directory and its disk must be writable, and have room"
REMOVED: Final = "kept.db was removed or replaced while it was open; put it back or start again"
LOG_REMOVED: Final = (
    "was removed or replaced while it was in use; put it back, or stop every process on the database "
    "with SIGTERM, which brings what it held into the database, and start again"
)


async def _is_refused(shop: Shop, *reasons: str) -> None:
    """It answers 503, says why, and that nothing was applied."""
    response = await shop.refused()
    assert response.status == 503
    assert str(response.data).startswith("nothing was applied; ask again: ")
    assert any(reason in str(response.data) for reason in reasons), response


async def _stops_with_everything(shop: Shop) -> None:
    assert await shop.server.stop() == 0
    await shop.judge()


async def test_a_full_disk(nursery: Nursery, tmp_path: Path) -> None:
    """While its disk is full, a server refuses what it cannot store, and reads; with room again it goes
    on by itself. One that is started then says that there is no room, and leaves."""
    with memory_disk(nursery, tmp_path / "disk", 4 * MIB) as disk:
        ballast = Ballast(disk)
        async with shop(nursery, disk / "kept.db", tmp_path / "log") as one:
            await one.server.start()
            await one.fill(20)
            ballast.fill()
            await _is_refused(one, FULL)
            assert await one.can_read()
            ballast.remove()
            await one.goes_on()
            await _stops_with_everything(one)
            ballast.fill()
            code, text = await one.server.failed()
            assert code == EXIT_UNREACHABLE
            assert FULL in text or NO_INDEX in text
            assert "Traceback" not in text
            ballast.remove()
            await one.server.start()
            await _stops_with_everything(one)


async def test_workers_on_a_full_disk(nursery: Nursery, tmp_path: Path, record: Record) -> None:
    """Workers with engines of their own wait while their disk is full; with room again all workflows
    come to their results, and no effect is lost."""
    with memory_disk(nursery, tmp_path / "disk", 8 * MIB) as disk:
        ballast = Ballast(disk)

        async def fill(run: WorkerRun) -> str:
            await run.grown(5)
            ballast.fill()
            await run.logged("the disk is full")
            ballast.remove()
            await run.grown(5)
            return ""

        run = WorkerRun(nursery, tmp_path, SEED, record, served=False, disk=disk)
        await run.play(fill, 2)


async def test_a_limit_on_file_sizes(nursery: Nursery, tmp_path: Path) -> None:
    """A limit on the size of files, or a quota, is met like a full disk, and goes on when it is raised."""
    async with shop(nursery, tmp_path / "kept.db", tmp_path / "log") as one:
        await one.server.start()
        await one.fill(10)
        assert one.server.process is not None
        pid = one.server.process.pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        limit = (tmp_path / "kept.db-wal").stat().st_size + 10_000
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, hard))
        await _is_refused(one, FULL, FAILED)
        assert await one.can_read()
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
        await one.goes_on()
        await _stops_with_everything(one)


async def test_a_disk_that_becomes_read_only(nursery: Nursery, tmp_path: Path) -> None:
    """When the kernel makes a disk read-only, files that are open can no more be written to. The server
    refuses everything and says why; nothing is missing when the disk is mounted again."""
    image = tmp_path / "image"
    make_image(image, 32 * MIB)
    with disk_image(nursery, tmp_path / "disk", image, "errors=remount-ro") as disk:
        async with shop(nursery, disk / "kept.db", tmp_path / "log") as one:
            await one.server.start()
            await one.fill(20)
            make_read_only(disk)
            await _is_refused(one, FAILED, READ_ONLY)
            await _is_refused(one, READ_ONLY)
            assert await one.server.stop() == 0
            code, text = await one.server.failed()
            assert code == EXIT_UNREACHABLE
            assert "Read-only file system" in text
            assert NOT_WRITABLE in text
    with disk_image(nursery, tmp_path / "again", image) as disk:
        await one.judge(disk / "kept.db")


async def test_a_disk_that_fails(nursery: Nursery, tmp_path: Path) -> None:
    """A disk that runs out of space beneath its file system, as thin volumes do, fails to write what it
    had room for. What its fsync failed for is not acknowledged; the rest is there again."""
    with memory_disk(nursery, tmp_path / "store", 3 * MIB) as store:
        image = store / "image"
        make_image(image, 32 * MIB)
        with disk_image(nursery, tmp_path / "disk", image) as disk:
            async with shop(nursery, disk / "kept.db", tmp_path / "log") as one:
                await one.server.start()
                await _is_refused(one, FAILED)
                await _is_refused(one, FAILED, READ_ONLY)
                assert len(one.acknowledged) > 1
                assert await one.server.stop() == 0
                code, text = await one.server.failed()
                assert code == EXIT_UNREACHABLE
                assert NOT_WRITABLE in text or FAILED in text
        grow(store, 64 * MIB)
        with disk_image(nursery, tmp_path / "again", image) as disk:
            await one.judge(disk / "kept.db")


async def test_a_file_without_permission(nursery: Nursery, tmp_path: Path) -> None:
    """Taking away the right to write does not stop who has the file open; the next server says what is
    wrong, and starts when it is put right."""
    async with shop(nursery, tmp_path / "kept.db", tmp_path / "log") as one:
        await one.server.start(plain=True)
        await one.fill(5)
        one.database.chmod(0o444)
        await one.fill(5)
        assert await one.server.stop() == 0
        code, text = await one.server.failed(plain=True)
        assert code == EXIT_UNREACHABLE
        assert READ_ONLY in text
        for file in one.database.parent.glob("kept.db*"):
            if file.is_file():
                file.chmod(0o644)
        await one.server.start(plain=True)
        await one.fill(5)
        assert await one.server.stop() == 0
        await one.judge()


async def test_a_file_that_is_taken_away(nursery: Nursery, tmp_path: Path) -> None:
    """Nothing is acknowledged that would go into a file that is not there; when it is back, the server
    goes on by itself."""
    async with shop(nursery, tmp_path / "kept.db", tmp_path / "log") as one:
        await one.server.start()
        await one.fill(10)
        one.database.rename(tmp_path / "elsewhere")
        await _is_refused(one, REMOVED)
        (tmp_path / "elsewhere").rename(one.database)
        await one.goes_on()
        await _stops_with_everything(one)


@pytest.mark.parametrize("name", ["kept.db-wal", "kept.db-shm"])
async def test_a_log_that_is_taken_away(nursery: Nursery, tmp_path: Path, name: str) -> None:
    """The newest commits are in the log. When somebody removes it, or its index, under a server, nothing
    more is acknowledged, and stopping in good order saves what it held."""
    async with shop(nursery, tmp_path / "kept.db", tmp_path / "log") as one:
        for _ in range(2):
            # A file that is made, and one that was there.
            await one.server.start()
            await one.fill(10)
            (tmp_path / name).unlink()
            await _is_refused(one, f"{name} {LOG_REMOVED}")
            await _stops_with_everything(one)


async def test_a_file_that_is_no_database(nursery: Nursery, tmp_path: Path) -> None:
    """A server says that its file is damaged, or none, and touches nothing in it."""
    async with shop(nursery, tmp_path / "kept.db", tmp_path / "log") as one:
        await one.server.start()
        await one.fill(10)
        await _stops_with_everything(one)
        whole = one.database.read_bytes()
        damaged = {
            b"a letter, not a database" * 1_000: "the file is not a database",
            whole[:100] + b"\xff" * (len(whole) - 100): "the file is damaged; restore it",
        }
        for content, remedy in damaged.items():
            one.database.write_bytes(content)
            code, text = await one.server.failed()
            assert code == EXIT_UNREACHABLE
            assert remedy in text
            assert one.database.read_bytes() == content
        one.database.write_bytes(whole)
        await one.server.start()
        await _stops_with_everything(one)
