"""Small disks of their own for tests: one that fills, one whose content after a power cut can be seen,
one that fails. They need root and the right to mount; where that is missing, tests say so and are
skipped."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.crash.nursery import Order
from tests.crash.processes import Nursery

CHUNK_BYTES: Final = 4_096


def _run(*command: str) -> None:
    """Runs a program of the system. Skips the test where it is missing or not permitted."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not on this machine")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"{' '.join(command)} is not possible here: {done.stderr.strip()}")


@contextmanager
def _mounted(nursery: Nursery, place: Path, *arguments: str) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk")
    place.mkdir(parents=True, exist_ok=True)
    _run("mount", *arguments, str(place))
    # Even if this process is killed, somebody takes it away.
    nursery.ask(Order(mounted=str(place)))
    try:
        yield place
    finally:
        unmount(place)


def unmount(place: Path) -> None:
    """Takes a disk away, at once from sight and for good when nothing in it is open any more."""
    subprocess.run(["umount", "--lazy", str(place)], capture_output=True, check=False)


@contextmanager
def memory_disk(nursery: Nursery, place: Path, size_bytes: int) -> Iterator[Path]:
    """A disk of a fixed size in memory."""
    with _mounted(nursery, place, "-t", "tmpfs", "-o", f"size={size_bytes}", "none"):
        yield place


@contextmanager
def disk_image(nursery: Nursery, place: Path, image: Path, options: str = "") -> Iterator[Path]:
    """The file system in an image: the image is its disk, and holds what has reached the disk."""
    with _mounted(nursery, place, "-o", ",".join(filter(None, ("loop", options))), str(image)):
        yield place


def make_image(image: Path, size_bytes: int) -> None:
    """An image with an empty ext4 in it, as sparse as possible."""
    with image.open("wb") as file:
        file.truncate(size_bytes)
    _run("mkfs.ext4", "-q", "-F", str(image))


def make_read_only(place: Path) -> None:
    """What the kernel does to a file system when its disk fails: it cannot be written to any more, not
    even by those who have its files open."""
    _run("mount", "-o", "remount,abort", str(place))


class Ballast:
    """A file that takes all the room there is, until it is removed."""

    def __init__(self, place: Path) -> None:
        self._file = place / "ballast"

    def fill(self) -> None:
        with self._file.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(CHUNK_BYTES))
            except OSError:
                return

    def remove(self) -> None:
        self._file.unlink(missing_ok=True)


def grow(place: Path, size_bytes: int) -> None:
    """Makes a disk in memory larger."""
    _run("mount", "-o", f"remount,size={size_bytes}", str(place))
