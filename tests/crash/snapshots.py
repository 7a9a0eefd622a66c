"""What a file and its log look like at one instant while a server writes, and after a power cut."""

from __future__ import annotations

import shutil
import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Final

from kept.runtime import SystemRuntime
from tests.crash.processes import Process

RUNTIME: Final = SystemRuntime()
LOOK_S: Final = 0.001
LOG_HEADER_BYTES: Final = 32
FRAME_HEADER_BYTES: Final = 24


@asynccontextmanager
async def standing_still(process: Process) -> AsyncIterator[None]:
    """Stops a process wherever it is, all of its threads, and lets it go on afterwards."""
    process.send(signal.SIGSTOP)
    try:
        while not _is_stopped(process.pid):
            await RUNTIME.sleep(LOOK_S)
        yield
    finally:
        process.send(signal.SIGCONT)


def _is_stopped(pid: int) -> bool:
    """Whether no thread of a process runs."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    # The state is the first field after the name, which stands in parentheses.
    return all((each / "stat").read_text().rpartition(")")[2].split()[0] == "T" for each in threads)


def log_bytes(database: Path) -> int:
    """How long a database's log is."""
    return Path(f"{database}-wal").stat().st_size


class Log:
    """A copy of a database and of its log, from which shorter and damaged ones are made."""

    def __init__(self, database: Path) -> None:
        self._database = database.read_bytes()
        self.content = Path(f"{database}-wal").read_bytes()
        self.page_bytes = int.from_bytes(self.content[8:12], "big")

    def boundaries(self) -> list[int]:
        """The offsets at which a frame ends, and where the first one begins."""
        step = FRAME_HEADER_BYTES + self.page_bytes
        return list(range(LOG_HEADER_BYTES, len(self.content) + 1, step))

    def write(self, place: Path, content: bytes) -> Path:
        """The database with such a log, in a place of its own."""
        place.mkdir()
        path = place / "kept.db"
        path.write_bytes(self._database)
        Path(f"{path}-wal").write_bytes(content)
        return path

    def cuts(self, random: Random, count: int) -> Iterator[tuple[int, bytes]]:
        """Logs that end at a frame's end, or within one, or within their header; with each, up to
        where it is as it was."""
        ends = {0, LOG_HEADER_BYTES // 2, *self.boundaries()}
        for end in self.boundaries()[:-1]:
            ends.add(end + random.randint(1, FRAME_HEADER_BYTES))
            ends.add(end + FRAME_HEADER_BYTES + random.randint(1, self.page_bytes - 1))
        for end in sorted(random.sample(sorted(ends), min(count, len(ends)))):
            yield end, self.content[:end]

    def tears(self, random: Random, count: int) -> Iterator[tuple[int, bytes]]:
        """Logs that end in what was never written as it should have been: zeros, noise, a sector of
        an older frame, the frames in between missing."""
        for _ in range(count):
            end = random.choice(self.boundaries())
            rest = len(self.content) - end
            kind = random.randrange(4)
            if kind == 0:
                tail = bytes(rest)
            elif kind == 1:
                tail = random.randbytes(rest)
            elif kind == 2:
                tail = self.content[LOG_HEADER_BYTES : LOG_HEADER_BYTES + rest]
            else:
                skipped = min(rest, self.page_bytes + FRAME_HEADER_BYTES)
                tail = bytes(skipped) + self.content[end + skipped :]
            yield end, self.content[:end] + tail


def is_sound(path: Path) -> bool:
    """What SQLite says about a file after a look at all of it."""
    database = sqlite3.connect(path)
    try:
        (verdict,) = database.execute("PRAGMA integrity_check").fetchone()
        return bool(verdict == "ok")
    finally:
        database.close()


def copy(image: Path, to: Path) -> None:
    """An image as it is now."""
    shutil.copyfile(image, to)
