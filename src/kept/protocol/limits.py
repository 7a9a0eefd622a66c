"""Every bound of the protocol, named, with its unit in its name (protocol A10, B1, B2)."""

from typing import Final

PROTOCOL_VERSION: Final = "2026-04-01"
SUPPORTED_VERSIONS: Final = (PROTOCOL_VERSION,)

# Numbers travel as JSON to clients whose integers are doubles, so nothing larger is accepted.
MAX_INTEGER: Final = 9_007_199_254_740_991
# A deadline of this value means "none" and arms nothing (B6).
NEVER_MS: Final = MAX_INTEGER

MAX_ID_BYTES: Final = 1_024
MAX_PAYLOAD_BYTES: Final = 1_048_576
MAX_TAGS: Final = 64
MAX_TAGS_BYTES: Final = 16_384
MAX_ADDRESS_BYTES: Final = 2_048
MAX_QUEUE_NAME_BYTES: Final = 256
MAX_BODY_BYTES: Final = 4 * 1_048_576
MAX_BATCH_REQUESTS: Final = 1_000

MAX_WAIT_MS: Final = 60_000
MAX_CLAIM_WAIT_MS: Final = 30_000
MAX_CLAIM_TASKS: Final = 1_000
# What the tasks of one claim carry; the task that goes beyond it is the last one.
MAX_CLAIM_BYTES: Final = 16 * 1_048_576
MAX_CLAIM_QUEUES: Final = 256
MAX_ATTEMPTS: Final = 1_000
# Lanes of one queue that have limits of their own.
MAX_NAMED_LANES: Final = 1_000
MAX_LANE_WEIGHT: Final = 1_000
MAX_RATE_PERIOD_MS: Final = 31 * 86_400_000

MAX_MAILBOX_NAME_BYTES: Final = 64
MAX_MESSAGE_KEY_BYTES: Final = 256
# What a worker announces: functions, and all of it as JSON.
MAX_ANNOUNCED_FUNCTIONS: Final = 1_000
MAX_ANNOUNCEMENT_BYTES: Final = 262_144
MAX_ANNOUNCEMENT_TTL_MS: Final = 86_400_000
DEFAULT_UNREGISTERED_GRACE_MS: Final = 600_000
# How long it is remembered that somebody announced a name, or that nobody did.
FUNCTION_RETENTION_MS: Final = 86_400_000
MAX_ATTRIBUTES: Final = 64
# Name and value together.
MAX_ATTRIBUTE_BYTES: Final = 1_024
# How long the key of a message is remembered, and how often a mailbox looks whether its owner lives.
MESSAGE_KEY_RETENTION_MS: Final = 7 * 86_400_000
MAILBOX_LOOK_MS: Final = 86_400_000
# Numbers that one send passes over because something else has their promises.
MAX_PASSED_NUMBERS: Final = 100

DEFAULT_SEARCH_ROWS: Final = 100
MAX_SEARCH_ROWS: Final = 1_000
MAX_SEARCH_SCAN_ROWS: Final = 10_000

MAX_PRELOAD_RECORDS: Final = 1_000
MAX_PRELOAD_BYTES: Final = 1_048_576

# Edges (callbacks, listeners) that one commit drains; the rest follow in further commits (A5).
MAX_EDGES_PER_STEP: Final = 1_000
# Instants that one step of a schedule fires (A4).
MAX_INSTANTS_PER_STEP: Final = 100
# Schedules (B10). Instants that wait for the last one to be settled; spans of the past to be fired.
MIN_EVERY_MS: Final = 1_000
MAX_WAITING_INSTANTS: Final = 100
MAX_BACKFILL_SPANS: Final = 16
# An instant that is looked at so late counts as missed where nothing missed is fired.
MISSED_AFTER_MS: Final = 60_000
MAX_REPLAYS_PER_REQUEST: Final = 1_000
# Dead letters that one commit of a bulk operation handles, and how long a finished one can be read.
MAX_BULK_LETTERS: Final = 500
BULK_KEPT_MS: Final = 7 * 86_400_000

# What a cancellation reaches in one commit, and how many children it looks at for those (B3).
MAX_CANCELED_PER_COMMIT: Final = 500
MAX_CHILDREN_WALKED: Final = 2_000
# Tries to deliver a promise's webhooks that are remembered, and for how long after the last.
MAX_DELIVERIES: Final = 20
DELIVERIES_KEPT_MS: Final = 7 * 86_400_000
MAX_DELIVERY_ERROR_CHARACTERS: Final = 300
# What a question for what a task awaits looks through.
MAX_CALLBACKS_WALKED: Final = 100_000
# How long work that is asked to stop may take before it is stopped.
CANCEL_GRACE_MS: Final = 60_000
MAX_CANCEL_REASON_BYTES: Final = 1_024

DEFAULT_RETRY_TIMEOUT_MS: Final = 5_000
DEFAULT_AGING_MS: Final = 60_000
MAX_PRIORITY: Final = 9
DEFAULT_BACKOFF_BASE_MS: Final = 1_000
DEFAULT_BACKOFF_MAX_MS: Final = 900_000

# Locks, slots, buckets and guards (B5).
MAX_HOLDER_BYTES: Final = 256
MAX_LOCK_WAIT_MS: Final = 30_000
MAX_LOCK_TTL_MS: Final = 86_400_000
# Those that wait in line for one lock or slot; they and the slots of a key are one small record.
MAX_LINE: Final = 256
MAX_SLOTS: Final = 1_000
# Whose turn it is takes the lock within this time, or the next one may.
TURN_MS: Final = 3_000
# Whoever waits in line says so again within this time, or is taken to be gone.
PRESENCE_MS: Final = 15_000
# A free lock, or slots that nobody holds, are remembered so long for repeated requests.
FREE_RETENTION_MS: Final = 600_000
MAX_BUCKET_TOKENS: Final = 1_000_000_000
MAX_BUCKET_PERIOD_MS: Final = 30 * 86_400_000
DEFAULT_GUARD_RETENTION_MS: Final = 7 * 86_400_000
MAX_GUARD_RETENTION_MS: Final = 366 * 86_400_000

# Settled trees (B6): how long they stay, and how many promises of them one commit looks at.
DEFAULT_RETENTION_MS: Final = 7 * 86_400_000
MIN_RETENTION_MS: Final = 1_000
MAX_LEAVING_PER_COMMIT: Final = 100
# What keeps a tree is looked at again after its retention, but not sooner than this.
HELD_LOOK_MS: Final = 60_000
