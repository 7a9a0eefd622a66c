"""The reserved tags: the base protocol's and our own (protocol A3, A4, B2, B4)."""

from typing import Final

TARGET: Final = "resonate:target"
TIMER: Final = "resonate:timer"
EXTERNAL: Final = "resonate:external"
SCOPE: Final = "resonate:scope"
DELAY: Final = "resonate:delay"
ORIGIN: Final = "resonate:origin"
BRANCH: Final = "resonate:branch"
PARENT: Final = "resonate:parent"
SCHEDULE: Final = "resonate:schedule"

FUNCTION: Final = "kept:function"
PRIORITY: Final = "kept:priority"
LANE: Final = "kept:lane"
ATTEMPTS: Final = "kept:attempts"
BACKOFF: Final = "kept:backoff"
EXHAUSTED: Final = "kept:exhausted"
# On a message: the mailbox whose it is (B8).
MAILBOX: Final = "kept:mailbox"
REPLAY_OF: Final = "kept:replay-of"
# What a cancellation does not spread to (B3): work on its own, and what canceled code asks for once
# it knows, to clean up. The latter not at first: a forced one, or the end of the grace, takes it too.
DETACHED: Final = "kept:detached"
COMPENSATION: Final = "kept:compensation"
# A header of a canceled promise's value: why.
CANCEL_REASON_HEADER: Final = "kept-cancel-reason"
# A header of the value of a promise of which only id and verdict are kept: since when (ms, B6).
LEFT_HEADER: Final = "kept-left"
DEDUPE: Final = "kept:dedupe"
DEDUPE_WINDOW: Final = "kept:dedupe-window"
DEDUPE_MISMATCH: Final = "kept:dedupe-mismatch"
FINGERPRINT: Final = "kept:fingerprint"
DEBOUNCE: Final = "kept:debounce"
DEBOUNCE_MODE: Final = "kept:debounce-mode"
DEBOUNCE_MAX: Final = "kept:debounce-max"
SINGLETON: Final = "kept:singleton"
SINGLETON_KEY: Final = "kept:singleton-key"
# What is to be known of a job; none of it changes what is done with it. The trace is the W3C's (B2).
AUDIT_EVENT: Final = "kept:audit-event"
AUDIT_SOURCE: Final = "kept:audit-source"
AUDIT_REVISION: Final = "kept:audit-revision"
AUDIT_INDEX: Final = "kept:audit-index"
AUDIT_DEDUPE: Final = "kept:audit-dedupe"
AUDIT_TENANT: Final = "kept:audit-tenant"
AUDIT_ROUTE: Final = "kept:audit-route"
TRACE_PARENT: Final = "traceparent"
TRACE_STATE: Final = "tracestate"
# Tags that a replay under a new id leaves behind (B4): duplicates, delay and lineage.
NOT_REPLAYED: Final = (
    DELAY,
    ORIGIN,
    BRANCH,
    PARENT,
    SCHEDULE,
    DEDUPE,
    DEDUPE_WINDOW,
    DEDUPE_MISMATCH,
    FINGERPRINT,
    DEBOUNCE,
    DEBOUNCE_MODE,
    DEBOUNCE_MAX,
    SINGLETON,
    SINGLETON_KEY,
)
