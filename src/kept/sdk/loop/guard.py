"""What durable code may not do although it needs no loop for it: reach the engine past its Context."""

from __future__ import annotations

import asyncio
import sys

from kept.sdk.loop.refusals import not_durable
from kept.sdk.loop.scheduler import Scheduler


def refuse_in_durable_code(what: str, advice: str) -> None:
    """Raises `NotDurableError`, naming the caller's line, where a durable loop is the running one."""
    if isinstance(asyncio._get_running_loop(), Scheduler):
        raise not_durable(what, advice, sys._getframe(1))
