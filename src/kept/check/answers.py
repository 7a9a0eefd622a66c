"""How an answer of a store is held against the one that is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

MAX_SHOWN: Final = 5

T = TypeVar("T")


class ScanDiffersError(AssertionError):
    """A store does not find what it holds."""


def check_first(
    what: str, moments: Mapping[T, int], now: int, limit: int, found: Sequence[T]
) -> None:
    """The first of what is due by `now`, in order; of those at one instant, any."""
    expected = sorted(at for at in moments.values() if at <= now)[:limit]
    missing = [key for key in found if key not in moments]
    if missing or len(set(found)) != len(found):
        raise ScanDiffersError(f"{what} by {now}: {missing[:MAX_SHOWN]} is not, or is there twice")
    same(f"{what} by {now}, {limit}: instants", expected, [moments[key] for key in found])


def same(what: str, expected: object, found: object) -> None:
    """Raises `ScanDiffersError` unless both are equal; says where lists differ first."""
    if expected == found:
        return
    if isinstance(expected, list) and isinstance(found, list):
        for number, (one, other) in enumerate(zip(expected, found, strict=False)):
            if one != other:
                raise ScanDiffersError(f"{what}: at {number}: expected {one}, found {other}")
        what = f"{what}: {len(expected)} expected, {len(found)} found"
        shorter = min(len(expected), len(found))
        expected, found = expected[shorter:][:MAX_SHOWN], found[shorter:][:MAX_SHOWN]
    raise ScanDiffersError(f"{what}: expected {expected}, found {found}")
