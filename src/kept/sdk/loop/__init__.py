"""The loop on which durable functions run: asyncio, made pure and deterministic.

How it works. A `DurableLoop` has a queue of ready callbacks and nothing else: no clock, no sockets, no
threads. Its owner, the worker, starts a root coroutine and calls `run_ready`, which runs callbacks, first
in first out, until none is left. It does so inside a callback of the worker's own loop, and then gives that
loop back. Now the code waits for the outer world: for external futures and timers, each under the name of
the step that asked (`names`). The owner brings results in one at a time (`release`, `release_error`,
`fire`, `cancel_root`), each followed by `run_ready`. So whatever the code does follows from the order of
those calls alone, and a replay that repeats the order repeats the code.

Where to start reading: `names` and `tasks`; `durable` is the owner's side, `scheduler` the code's. Then
`order` for what asyncio itself leaves to chance, `refusals` for what is not allowed, `nesting` for how one
loop runs inside another, `eviction` for an early end.
"""

from kept.sdk.loop.diagnosis import Blocked, Unhandled
from kept.sdk.loop.durable import DurableLoop
from kept.sdk.loop.errors import DeadlockError, EvictedError, NoProgressError
from kept.sdk.loop.guard import refuse_in_durable_code
from kept.sdk.loop.names import NUMBERING
from kept.sdk.loop.tasks import DurableFuture, DurableTask, ExternalFuture
from kept.sdk.loop.timers import DurableTimer, TimerHost

__all__ = [
    "NUMBERING",
    "Blocked",
    "DeadlockError",
    "DurableFuture",
    "DurableLoop",
    "DurableTask",
    "DurableTimer",
    "EvictedError",
    "ExternalFuture",
    "NoProgressError",
    "TimerHost",
    "Unhandled",
    "refuse_in_durable_code",
]
