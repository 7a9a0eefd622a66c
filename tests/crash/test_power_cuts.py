"""Power cuts: what was on the disk at some instant is opened again, with a log that ends anywhere."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Final

import pytest

from kept.protocol.records import PromiseRecord
from tests.crash.cycles import SEED, WANTED, cycles, limit_seconds
from tests.crash.disks import disk_image, make_image
from tests.crash.judge import stored
from tests.crash.processes import Nursery
from tests.crash.record import Record
from tests.crash.shop import Shop, shop
from tests.crash.snapshots import Log, copy, is_sound, log_bytes, standing_still

MIB: Final = 1_048_576
CUTS: Final = 40
TEARS: Final = 20
SHARE: Final = 0.25
POWER_CUTS: Final = 2
SHARE_OF_POWER_CUTS: Final = 0.2
# Answers before the power goes.
ANSWERS: Final = (1, 25)
WRITERS: Final = 3
PROMISES: Final = 15 if not WANTED else 60


@pytest.mark.timeout(limit_seconds(CUTS, SHARE, 1))
async def test_a_log_that_ends_anywhere(nursery: Nursery, tmp_path: Path, record: Record) -> None:
    """The file and its log, copied while a server writes, with the log cut at each frame and within
    frames, or torn: a store opens it, the file is sound, every property holds, and everything is there
    that was acknowledged when the log was that long. What is there is the beginning of what was done."""
    random = Random(SEED)
    async with shop(nursery, tmp_path / "kept.db", tmp_path / "log") as one:
        await one.server.start()
        # How long the log was at each acknowledgement.
        lengths: list[tuple[int, PromiseRecord]] = []
        writing = asyncio.create_task(_write(one, lengths))
        while len(lengths) < PROMISES:
            assert not writing.done(), writing.result()
            await asyncio.sleep(0)
        assert one.server.process is not None
        async with standing_still(one.server.process):
            acknowledged = list(lengths)
            log = Log(one.database)
        writing.cancel()
        await asyncio.wait({writing})
    assert acknowledged[-1][0] <= len(log.content)
    await _opens(log.write(tmp_path / "whole", log.content), len(log.content), acknowledged)
    damaged = [*log.cuts(random, cycles(CUTS, SHARE)), *log.tears(random, cycles(TEARS, SHARE))]
    for number, (sound_bytes, content) in enumerate(damaged):
        path = log.write(tmp_path / str(number), content)
        await _opens(path, sound_bytes, acknowledged)
        record.logs_cut += 1


async def _write(one: Shop, lengths: list[tuple[int, PromiseRecord]]) -> None:
    while True:
        assert (await one.create()).ok
        lengths.append((log_bytes(one.database), one.acknowledged[one.newest]))
        assert (await one.settle(one.newest)).ok
        lengths.append((log_bytes(one.database), one.acknowledged[one.newest]))


async def _opens(
    path: Path, sound_bytes: int, acknowledged: list[tuple[int, PromiseRecord]]
) -> None:
    """A store opens the file, and everything acknowledged within the sound part of its log is there."""
    dump = await stored(path)
    assert is_sound(path)
    for length, record in acknowledged:
        if length <= sound_bytes:
            found = dump.promises[record.id].record()
            assert found in (record, *_later(record.id, acknowledged)), (path, record.id)
    numbers = sorted(int(id.removeprefix("p-")) for id in dump.promises)
    assert numbers == list(range(1, len(numbers) + 1)), path


def _later(id: str, acknowledged: list[tuple[int, PromiseRecord]]) -> list[PromiseRecord]:
    """What was acknowledged of a promise in the end."""
    return [record for _, record in acknowledged if record.id == id]


@pytest.mark.timeout(limit_seconds(POWER_CUTS, SHARE_OF_POWER_CUTS, 20))
async def test_the_power_goes(nursery: Nursery, tmp_path: Path, record: Record) -> None:
    """A file system is mounted again from what had reached its disk at some instant while a server
    wrote: what nobody flushed is lost, everything that was acknowledged is there."""
    image = tmp_path / "image"
    make_image(image, 24 * MIB)
    random = Random(SEED)
    for number in range(cycles(POWER_CUTS, SHARE_OF_POWER_CUTS)):
        place, after = tmp_path / f"disk-{number}", tmp_path / f"image-{number}"
        with disk_image(nursery, place, image, "commit=600") as disk:
            async with shop(nursery, disk / f"{number}.db", tmp_path / "log") as one:
                await one.server.start()
                writing = [asyncio.create_task(_keep_creating(one)) for _ in range(WRITERS)]
                wanted = random.randint(*ANSWERS)
                while len(one.acknowledged) < wanted:
                    assert not any(task.done() for task in writing)
                    await asyncio.sleep(0)
                (disk / f"never-flushed-{number}").write_bytes(b"nobody called fsync")
                assert one.server.process is not None
                async with standing_still(one.server.process):
                    acknowledged = dict(one.acknowledged)
                    copy(image, after)
                for task in writing:
                    task.cancel()
                await asyncio.wait(writing)
        with disk_image(nursery, tmp_path / f"after-{number}", after) as disk:
            lost = disk / f"never-flushed-{number}"
            assert not lost.exists() or not lost.read_bytes()
            one.acknowledged = acknowledged
            await one.judge(disk / f"{number}.db")
            assert is_sound(disk / f"{number}.db")
        after.unlink()
        record.kills["power cut"] += 1


async def _keep_creating(one: Shop) -> None:
    while (await one.create()).ok:
        pass
