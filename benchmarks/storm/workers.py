"""The worker processes of a storm, and who kills them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from benchmarks.storm.program import CONCURRENCY

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "kept", "worker", "benchmarks.storm.program:app")


class Workers:
    """So many processes; each kill is by SIGKILL, at any moment, and another takes its place."""

    def __init__(self, number: int, url: str, boundary: Path, log: Path) -> None:
        self._environment = {
            **os.environ,
            "STORM_URL": url,
            "STORM_BOUNDARY": str(boundary),
            "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        }
        self._log = log
        self._processes = [self._start() for _ in range(number)]
        self.kills = 0

    @property
    def most_lost(self) -> int:
        """So many handlings may have been under way when their worker was killed."""
        return self.kills * CONCURRENCY

    def kill_one(self) -> None:
        victim = self._processes.pop(random.randrange(len(self._processes)))
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        self.kills += 1
        self._processes.append(self._start())

    def check(self) -> None:
        """Raises `SystemExit` where one ended by itself."""
        for process in self._processes:
            if process.poll() is not None:
                raise SystemExit(f"a worker ended by itself:\n{self._log.read_text()[-2_000:]}")

    def stop(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                COMMAND, cwd=ROOT, env=self._environment, stdout=log, stderr=log
            )
