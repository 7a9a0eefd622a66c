"""The zoo as a table for docs/design/bug-zoo.md."""

from __future__ import annotations

from kept.sim.zoo.bug import Bug
from kept.sim.zoo.registry import ZOO


def table() -> str:
    """Markdown: each bug, what is so while it is in, where it lives, and what may find it."""
    rows = ["| bug | what is so then | place | played by |", "|---|---|---|---|"]
    rows += [f"| `{bug.name}` | {bug.off} | `{bug.place}` | {_players(bug)} |" for bug in ZOO]
    return "\n".join(rows)


def _players(bug: Bug) -> str:
    players = ["simulation"] if bug.simulated else []
    players += [f"explorer ({walk.world})" for walk in bug.walks]
    return ", ".join(players)
