"""When a request may be sent again, and how long to wait before (protocol B1)."""

from __future__ import annotations

from typing import Final

import msgspec

from kept.protocol import guard_requests as g
from kept.protocol import inquiries as i
from kept.protocol import requests as r
from kept.protocol import schedule_requests as s
from kept.protocol import worker_requests as w
from kept.protocol.responses import SHED, UNAVAILABLE
from kept.runtime import Runtime

# Answers that say: nothing was applied, ask again.
REFUSED_FOR_NOW: Final = frozenset({SHED, UNAVAILABLE})

# These act once; an id of their own makes the engine answer a repetition alike.
REPEATABLE_WITH_REQUEST_ID: Final = frozenset(
    request.kind
    for request in (
        r.TaskAcquire,
        r.TaskClaim,
        r.TaskSuspend,
        r.TaskFulfill,
        r.TaskNack,
        r.TaskRelease,
        r.TaskRecordStep,
        g.LockAcquire,
        g.LockRelease,
        g.GuardAdvance,
        s.ScheduleTrigger,
    )
)

# These change nothing the second time and answer the same: by id the first write wins (A3), and a
# fence repeats a create, settle or cancel under a lease that still holds. A bucket may lose tokens to
# it, which keeps its limit.
REPEATABLE: Final = REPEATABLE_WITH_REQUEST_ID | frozenset(
    request.kind
    for request in (
        r.PromiseGet,
        r.PromiseCreate,
        r.PromiseSettle,
        r.PromiseRegisterCallback,
        r.PromiseRegisterListener,
        r.PromiseSearch,
        r.PromiseWait,
        r.PromiseChildren,
        r.PromiseCancel,
        r.TaskGet,
        r.TaskFence,
        r.TaskAnnotate,
        w.WorkerAnnounce,
        w.WorkerList,
        w.FunctionList,
        w.FunctionGet,
        i.TaskExplain,
        i.PromiseDeliveries,
        r.TaskHeartbeat,
        r.TaskHalt,
        r.TaskSearch,
        r.ScheduleCreate,
        r.ScheduleGet,
        r.ScheduleSearch,
        s.SchedulePut,
        s.SchedulePause,
        s.ScheduleResume,
        s.ScheduleBackfill,
        r.DeadList,
        r.DeadGet,
        g.LockHeartbeat,
        g.LockGet,
        g.LockSearch,
        g.SlotAcquire,
        g.SlotHeartbeat,
        g.SlotRelease,
        g.SlotGet,
        g.BucketTake,
        g.GuardGet,
        g.GuardSearch,
        r.DebugStart,
        r.DebugStop,
        r.DebugSnap,
    )
)


def is_repeatable(request: r.Request) -> bool:
    """Whether the request may be sent again when it is not known what became of it."""
    if isinstance(request, r.SignalSend):
        return request.key is not None
    return request.kind in REPEATABLE


_JITTER_BYTES: Final = 4


class RetryPolicy(msgspec.Struct, frozen=True):
    """How often and how long to try: exponential backoff with full jitter, in seconds.

    `attempts` counts the first one. A server's `Retry-After` is honoured up to
    `longest_retry_after_seconds`.
    """

    attempts: int = 10
    base_seconds: float = 0.05
    longest_seconds: float = 2.0
    longest_retry_after_seconds: float = 30.0

    def delay(self, runtime: Runtime, attempt: int, retry_after: float | None) -> float:
        """Seconds to wait after failed attempt number `attempt` (from 1)."""
        ceiling = min(self.longest_seconds, self.base_seconds * 2.0 ** (attempt - 1))
        draw = int.from_bytes(runtime.entropy(_JITTER_BYTES), "big") / 256**_JITTER_BYTES
        asked = min(retry_after or 0.0, self.longest_retry_after_seconds)
        return asked + ceiling * draw


NO_RETRY: Final = RetryPolicy(attempts=1)
