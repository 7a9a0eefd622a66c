"""Limits that only tighten: what exceeds one today is listed, and the list may only shrink."""

from __future__ import annotations

from collections.abc import Mapping


def complaints(found: Mapping[str, int], exceptions: Mapping[str, int]) -> list[str]:
    """What is wrong with the findings, each a name with its measure, given the exceptions."""
    new = [
        f"{name}: {measure}"
        + (f", and its exception says {exceptions[name]}" if name in exceptions else "")
        for name, measure in sorted(found.items())
        if measure > exceptions.get(name, 0)
    ]
    stale = [
        f"{name}: keeps the rule now; remove its exception from tests/tidy/exceptions.py"
        for name in sorted(exceptions)
        if name not in found
    ]
    return new + stale
