"""The engine's settings and its own bounds."""

from __future__ import annotations

from typing import Final

import msgspec

from kept.protocol.limits import (
    DEFAULT_RETENTION_MS,
    DEFAULT_RETRY_TIMEOUT_MS,
    DEFAULT_UNREGISTERED_GRACE_MS,
)

# Requests and background steps that one commit takes.
MAX_COMMIT_ITEMS: Final = 500
# Requests that may wait for a commit; more are shed with 429.
MAX_QUEUED_ITEMS: Final = 100_000
# Requests that may wait for a task or a promise at one time.
MAX_WAITERS: Final = 100_000
# Background steps of each kind that one scan looks for.
MAX_DUE_ITEMS: Final = 1_000
# Of those, looks at trees that may leave: each is of one tree, or of many small ones.
MAX_TREE_LOOKS: Final = 20
MAX_SCAN_ROWS: Final = 1_000
# The same for rows that carry payloads, and the payloads of one page of a search.
MAX_PAYLOAD_SCAN_ROWS: Final = 100
MAX_PAGE_BYTES: Final = 8 * 1_048_576
# Messages that are on their way at one time. One to a poll connection is for a keep-alive.
MAX_MESSAGES_IN_FLIGHT: Final = 20_000
# Messages that one look takes from the outbox.
MAX_MESSAGES_PER_LOOK: Final = 1_000


class EngineConfig(msgspec.Struct, kw_only=True, frozen=True):
    """The operator's settings. Times in milliseconds.

    `debug` allows debug requests and `resonate:debug_time`. `server_url` is told to pushed workers.
    `repair_ms` is how often scans look for what timers and wake-ups may have missed,
    `unregistered_grace_ms` after how long a job whose function nobody announces is a dead letter,
    `retention_ms` how long a settled tree stays whose queue says nothing; None: for ever.
    """

    debug: bool = False
    server_url: str | None = None
    retry_timeout_ms: int = DEFAULT_RETRY_TIMEOUT_MS
    repair_ms: int = 5_000
    unregistered_grace_ms: int = DEFAULT_UNREGISTERED_GRACE_MS
    retention_ms: int | None = DEFAULT_RETENTION_MS
