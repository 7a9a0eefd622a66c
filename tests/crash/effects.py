"""The world outside: effects under idempotency keys, in a file that kept knows nothing of."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import msgspec

from tests.crash.record import Record


class Effect(msgspec.Struct, frozen=True):
    """Somebody had an effect: its key, what it was, and in which process."""

    key: str
    worth: int
    pid: int


def effect(key: str, worth: int) -> Effect:
    """An effect of this process."""
    return Effect(key, worth, os.getpid())


class EffectLedger:
    """A file of lines that are only ever appended, each of them whole. The first line of a key is the
    effect; later ones are tries that the world outside recognises by their key."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)

    def put(self, effect: Effect) -> None:
        """Takes an effect down, on the disk before it returns."""
        line = msgspec.json.encode(effect) + b"\n"
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            assert os.write(file, line) == len(line)
            os.fsync(file)
        finally:
            os.close(file)

    def all(self) -> list[Effect]:
        """Every try so far, in order."""
        if not self._path.exists():
            return []
        return [
            msgspec.json.decode(line, type=Effect) for line in self._path.read_bytes().splitlines()
        ]

    def tries(self, key: str) -> int:
        """How often an effect was tried."""
        return sum(each.key == key for each in self.all())

    def bytes(self) -> int:
        """How much there is: it only grows."""
        return self._path.stat().st_size if self._path.exists() else 0


def judge_effects(effects: list[Effect], expected: dict[str, int], record: Record) -> None:
    """Every expected effect (its worth by its key) is there, no other is, and all tries under a key
    meant the same."""
    tries = Counter(each.key for each in effects)
    lost = expected.keys() - tries.keys()
    surplus = {each.key for each in effects if expected.get(each.key) != each.worth}
    record.lost += len(lost)
    record.twice += len(surplus)
    record.effects += len(tries)
    record.effects_tried_again += tries.total() - len(tries)
    assert not lost, f"lost: {sorted(lost)[:5]}"
    assert not surplus, f"nobody asked for: {sorted(surplus)[:5]}"
