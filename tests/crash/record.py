"""What crash runs came to, as a file: KEPT_RECORD names it, and it is written after each test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

ROOT: Final = Path(__file__).parents[2]


class Record(msgspec.Struct, rename="camel", kw_only=True):
    """The figures of one run of the suite. Of `lost` and `twice`, what a failed test saw is counted."""

    date: str = ""
    commit: str = ""
    command: str = ""
    seconds: float = 0.0
    # Processes that were killed (or stopped and woken: "zombie worker"), by kind or named point.
    kills: Counter[str] = msgspec.field(default_factory=Counter)
    acknowledged: int = 0
    unknown_outcomes: int = 0
    operations_judged: int = 0
    operations_without_verdict: int = 0
    # Of components, groups of operations that have records in common.
    verdicts: Counter[str] = msgspec.field(default_factory=Counter)
    workflows: int = 0
    effects: int = 0
    effects_tried_again: int = 0
    messages_told: int = 0
    # Copies of a file and its log, cut or damaged, that were opened.
    logs_cut: int = 0
    # Acknowledged answers that are not stored so, and effects that are missing.
    lost: int = 0
    # Effects that nobody asked for, or that differ under one key.
    twice: int = 0
    failed_tests: int = 0

    def save(self) -> None:
        """Writes the file, where one is wanted."""
        place = os.environ.get("KEPT_RECORD")
        if not place:
            return
        started = _started
        self.date = started.strftime("%Y-%m-%dT%H:%M:%SZ")
        self.seconds = round((datetime.now(UTC) - started).total_seconds(), 1)
        self.commit = _commit()
        cycles = os.environ.get("KEPT_CRASHES")
        arguments = " ".join(sys.argv[1:])
        self.command = f"{f'KEPT_CRASHES={cycles} ' if cycles else ''}pytest {arguments}".strip()
        text = msgspec.json.format(msgspec.json.encode(self, order="sorted"), indent=2)
        Path(place).write_bytes(text + b"\n")


def _commit() -> str:
    """The commit of the code that runs, with a plus sign where it was changed since."""
    head = _git("rev-parse", "--short=12", "HEAD")
    if not head:
        return "unknown"
    return f"{head}+" if _git("status", "--porcelain", "--untracked-files=no") else head


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


_started: Final = datetime.now(UTC)
