"""What `kept worker` says of its jobs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

import kept
from tests.process.programs import SOURCE

SHOP = """
import logging
import kept

app = kept.App("sqlite:///kept.db")

@app.function(retry=kept.Constant(attempts=2, delay=0))
async def pack(order):
    logging.info("packing")
    raise ValueError("no box")
"""


def test_each_line_names_its_job(tmp_path: Path) -> None:
    """Those of the worker and those of the handler, with the attempt and where the job comes from."""
    (tmp_path / "shop.py").write_text(SHOP)

    async def fail() -> None:
        url = f"sqlite:///{tmp_path / 'kept.db'}"
        audit = kept.Audit(event_id="event-1", route="kafka:orders")
        async with kept.App(url, worker=False) as app, asyncio.timeout(30):
            job = await app.enqueue("pack", args={"order": 7}, id="pack-7", audit=audit)
            with pytest.raises(kept.PromiseRejectedError):
                await job

    worker = subprocess.Popen(
        [sys.executable, "-m", "kept", "worker", "shop:app"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        asyncio.run(fail())
    finally:
        worker.terminate()
        _, printed = worker.communicate(timeout=30)
    about = "event_id=event-1 route=kafka:orders"
    job = "job=pack-7 function=pack queue=default attempt="
    lines = printed.splitlines()
    assert [f"{job}{n} {about}" in line for line in lines if "packing" in line for n in (1, 2)] == [
        *(True, False),
        *(False, True),
    ]
    failed = [line for line in lines if "no box" in line]
    assert ["failed for good" in line for line in failed] == [False, True]
    assert f"{job}2 {about}" in failed[1]
