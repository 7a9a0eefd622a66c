"""What a type checker knows of a program that uses kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.tidy.sources import ROOT

PROGRAM = """
from datetime import timedelta
from typing import Any, assert_type

import kept

app = kept.App()


@app.function
async def job(number: int) -> str:
    return str(number)


@app.function(queue="mail", priority=3, lane="ann", exhausted="halt")
def threaded(number: int) -> list[int]:
    return [number]


@app.function(version=2)
async def workflow(ctx: kept.Context, number: int) -> str:
    assert_type(await ctx.run(threaded, number), list[int])
    return assert_type(await ctx.call(job.options(priority=9), number), str)


async def main() -> None:
    handle = await app.start(
        job, 1, delay=timedelta(1), priority=3, lane="x", retry=kept.Never(), exhausted="halt"
    )
    assert_type(handle, kept.Handle[str])
    assert_type(await app.start(workflow, 1), kept.Handle[str])
    assert_type(await app.start(job.options(lane="x"), 1), kept.Handle[str])
    assert_type(await app.run(job, 1), str)
    assert_type(await app.run(threaded, 1), list[int])
    assert_type(await app.enqueue("job", args={"number": 1}, priority=1), kept.Handle[Any])
    await app.start(job, 1, delay="soon")  # type: ignore[call-overload]
    await app.start(job, 1, exhausted="stop")  # type: ignore[call-overload]
    await app.enqueue("job", prio=1)  # type: ignore[call-arg]
    await app.queues.put("mail", rate=5)  # type: ignore[arg-type]
    await app.queues.put("mail", speed=5)  # type: ignore[call-arg]
"""


def test_options_and_results_have_types(tmp_path: Path) -> None:
    """The result of a function is the type of its handle; options that there are not are errors."""
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
