"""The names of branches and steps: which task asked, and for the how-manieth time.

A *branch* is one asyncio task of a workflow. The root's name is empty. A child's name is its parent's name,
a dot, and the child's number, counted from 0 in the order of creation in that parent: `0`, `1`, `1.0`,
`1.0.12`.

A *step* is one thing asked of the outer world: a call, a timer, a message. Its name is the branch's name, a
colon, and the step's number, counted from 1 in that branch: `1.0:2` is the second of branch `1.0`. The root's
own steps have the number alone: `3`. So a name with a colon is a branch's, one without is the root's.

Nothing in a name depends on what finished first. Two branches that swap their order in time keep their names.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

# The version of this scheme, stored with a workflow: a replay by code that numbers otherwise must be refused.
NUMBERING: Final = 1

MAX_BRANCH_CHARACTERS: Final = 200
_DIGEST_DIGITS: Final = 39


def child_branch(parent: str, number: int) -> str:
    """The name of a branch's child number `number` (0 and up)."""
    name = f"{parent}.{number}" if parent else str(number)
    return name if len(name) <= MAX_BRANCH_CHARACTERS else _shortened(name)


def step_name(branch: str, number: int) -> str:
    """The name of step `number` (1 and up) of a branch."""
    return f"{branch}:{number}" if branch else str(number)


def _shortened(name: str) -> str:
    """40 digits in place of a long name.

    A task that starts its own successor, for ever, would otherwise grow its name for ever. The leading zero
    keeps digests apart from counted names: no counter is written with one.
    """
    digest = int.from_bytes(blake2b(name.encode(), digest_size=16).digest(), "big")
    return f"0{digest:0{_DIGEST_DIGITS}}"
