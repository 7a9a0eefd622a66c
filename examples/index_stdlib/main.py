"""`make demo`: index this Python's standard library with a durable program, and kill its workers.

Two worker processes share one SQLite file. Now and then one of them is killed with SIGKILL at a
random moment and another is started. In the end the result is compared with a plain recount in one
process: it must be identical, and only work that was in flight at a kill may have run twice.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
WORKERS = 2
KILLS = 5
# A kill comes after this share of the work at the earliest, and each further one as much later.
SHARE_PER_KILL = 1 / (KILLS + 1)
LOOKS_PER_SECOND = 10


def start_worker(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """A worker process: nothing but `kept worker program:app`."""
    command = [sys.executable, "-m", "kept.cli.main", "worker", "program:app"]
    with open(environment["INDEX_ERRORS"], "ab") as errors:
        return subprocess.Popen(command, cwd=HERE, env=environment, stdout=errors, stderr=errors)


class Killer:
    """Kills a worker now and then, and starts another in its place."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._workers = [start_worker(environment) for _ in range(WORKERS)]
        self._next_share = random.uniform(0.5, 1.0) * SHARE_PER_KILL
        self.killed: set[int] = set()

    def look(self, share: float) -> str:
        """Kills one if the work has come far enough; says so."""
        for index, worker in enumerate(self._workers):
            if worker.poll() is not None:
                said = Path(self._environment["INDEX_ERRORS"]).read_text()[-2_000:]
                raise SystemExit(f"worker {worker.pid} ended by itself:\n{said}")
            if index == 0 and share >= self._next_share and len(self.killed) < KILLS:
                victim = self._workers.pop(random.randrange(WORKERS))
                victim.send_signal(signal.SIGKILL)
                victim.wait()
                self.killed.add(victim.pid)
                fresh = start_worker(self._environment)
                self._workers.append(fresh)
                self._next_share = (len(self.killed) + random.uniform(0.5, 1)) * SHARE_PER_KILL
                return f"  ✗ worker {victim.pid} killed (SIGKILL), worker {fresh.pid} started"
        return ""

    def stop(self) -> None:
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            worker.wait()


async def run(folder: Path) -> int:
    os.environ["INDEX_STORE"] = f"sqlite:///{folder / 'kept.db'}"
    os.environ["INDEX_LOG"] = str(folder / "log")
    os.environ["INDEX_ERRORS"] = str(folder / "errors")
    sys.path.insert(0, str(HERE))
    from audience import Audience
    from counting import LIBRARY, packages
    from program import index_library

    import kept

    found = packages()
    audience = Audience(folder / "log", sum(len(names) for names in found.values()))
    print(f"Indexing {audience.expected} files of {len(found)} packages in {LIBRARY}")
    print(f"with {WORKERS} worker processes on one SQLite file; {KILLS} of them will be killed.\n")
    began = time.monotonic()
    async with kept.App(os.environ["INDEX_STORE"], worker=False) as app:
        handle = await app.start(index_library, found, id="index")
        killer = Killer(dict(os.environ))
        try:
            waiting = asyncio.ensure_future(handle.result())
            while not waiting.done():
                await asyncio.wait([waiting], timeout=1 / LOOKS_PER_SECOND)
                audience.look()
                audience.draw(killer.look(len(audience.ended) / audience.expected))
            result = await waiting
        finally:
            killer.stop()
    audience.look()
    audience.draw()
    print(f"\n\nDone in {time.monotonic() - began:.1f} s.\n")
    return report(result, audience, killer.killed, found)


def report(result, audience, killed, found) -> int:  # type: ignore[no-untyped-def]
    """The totals, what ran twice, and the comparison; the exit code."""
    from counting import count_file, total

    print_table(result, total(list(result.values())))
    twice = audience.ran_twice()
    print(f"\n{sum(audience.begun.values())} steps ran for {audience.expected} files.")
    print(f"{len(twice)} ran twice: they were in flight when their worker was killed.")
    unexplained = audience.unexplained(killed)
    if unexplained:
        print(f"FAILED: {len(unexplained)} ran again without a kill: {unexplained[:3]}")
        return 1
    print("\nCounting again, plainly, in one process ...", flush=True)
    plain = {package: total([count_file(n) for n in names]) for package, names in found.items()}
    if plain != result:
        different = [package for package in plain if plain[package] != result.get(package)]
        print(f"FAILED: the durable result differs in {different}")
        return 1
    print("Identical: no file lost, none counted twice.\n")
    print("Where to look next: examples/index_stdlib/program.py, the whole durable program;")
    print("then README.md, to write your own.")
    return 0


def print_table(result, everything) -> None:  # type: ignore[no-untyped-def]
    """The largest packages and the sum."""
    names = ("files", "lines", "functions", "classes", "deepest")
    print(f"{'package':<14}" + "".join(f"{name:>11}" for name in names))
    largest = sorted(result, key=lambda package: -result[package]["lines"])[:8]
    for package in largest:
        print(f"{package:<14}" + "".join(f"{result[package][name]:>11}" for name in names))
    print(f"{'all':<14}" + "".join(f"{everything[name]:>11}" for name in names))


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="kept-demo-") as folder:
        return asyncio.run(run(Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
