"""Pushed tasks that come back again and again with nothing done.

An installed client that is sent a function it does not have releases the task at once, and a
released task is due at once (A4). Between the two a single such task would keep server and worker
busy for ever. So an execute waits a little longer each time the task was only handed back.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from kept.protocol import requests as r
from kept.protocol.responses import BAD_REQUEST, Response

# So many times nothing waits: workers that leave hand their tasks over, and this may happen often.
FREE_RETURNS: Final = 5
FIRST_PAUSE_SECONDS: Final = 0.05
# Shorter than the retry timeout, so that a message which waits is not overtaken by its repetition.
MAX_PAUSE_SECONDS: Final = 4.0
MAX_REMEMBERED_TASKS: Final = 10_000

# What a lease holder asks; all but the first say that it got somewhere.
WATCHED: Final = frozenset(
    (r.TaskRelease, r.TaskFence, r.TaskSuspend, r.TaskFulfill, r.TaskRecordStep, r.TaskContinue)
)


class Returns:
    """How often each task was released since something was last done for it. It is kept in memory
    only: forgetting it costs a few messages."""

    def __init__(self) -> None:
        self._counts: OrderedDict[tuple[str, str], int] = OrderedDict()

    def note(self, tenant: str, request: r.Request, response: Response) -> None:
        """Takes notice of the answer to a request of one of the types in `WATCHED`."""
        if response.status >= BAD_REQUEST:
            return
        id = request.id  # type: ignore[attr-defined]
        if not isinstance(request, r.TaskRelease):
            self._counts.pop((tenant, id), None)
            return
        self._counts[tenant, id] = self._counts.pop((tenant, id), 0) + 1
        if len(self._counts) > MAX_REMEMBERED_TASKS:
            self._counts.popitem(last=False)

    def pause_seconds(self, tenant: str, id: str) -> float:
        """How long to wait before the task is offered again."""
        excess = self._counts.get((tenant, id), 0) - FREE_RETURNS
        if excess <= 0:
            return 0.0
        return min(FIRST_PAUSE_SECONDS * 2.0 ** min(excess - 1, 16), MAX_PAUSE_SECONDS)
