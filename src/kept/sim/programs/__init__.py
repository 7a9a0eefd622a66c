"""Durable functions for simulated workers, each with what it must come to whatever happens."""

from __future__ import annotations

from random import Random
from typing import Any, Final

from kept.runtime import Runtime
from kept.sdk.app import App
from kept.sdk.functions import Function
from kept.sim.ledger import Boundary
from kept.sim.programs import (
    branches,
    calls,
    failing,
    jobs,
    messages,
    purchases,
    rollouts,
    waiting,
    working,
)
from kept.sim.programs.program import Drawn, Program
from kept.sim.programs.steps import Steps

__all__ = ["APPROVAL", "MAILBOX", "PROGRAM_NAMES", "Program", "draw_program", "register"]

APPROVAL: Final = waiting.APPROVAL
MAILBOX: Final = messages.MAILBOX

_THEMES: Final = (jobs, working, waiting, branches, calls, failing, purchases, messages, rollouts)
_CHOICES: Final[tuple[Drawn, ...]] = tuple(each for theme in _THEMES for each in theme.CHOICES)
# The functions that clients start, by name.
PROGRAM_NAMES: Final = tuple(dict.fromkeys(choice(Random(0)).function for choice in _CHOICES))


def draw_program(random: Random) -> Program:
    """One of the programs, with arguments."""
    return random.choice(_CHOICES)(random)


def register(
    app: App, runtime: Runtime, random: Random, boundary: Boundary, *, new: bool
) -> dict[str, Function[..., Any]]:
    """Gives an app all functions, as one process has them; by name those that can be started. `new`:
    those of the new program."""
    steps = Steps(app, runtime, random, boundary, new=new)
    found = [function for theme in _THEMES for function in theme.register(app, steps)]
    return {function.name: function for function in found}
