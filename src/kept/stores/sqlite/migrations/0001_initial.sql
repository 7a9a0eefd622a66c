-- The first schema (protocol A10). Every key begins with the tenant, or with a `seq`, which belongs
-- to one tenant. Times are milliseconds since the epoch. Hot rows are apart from payloads; partial
-- indexes hold only what is looked for, because each index costs at every write.

-- One row: the clock never goes below `clock` (A3), and `next_seq` numbers the next promise.
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    clock INTEGER NOT NULL,
    next_seq INTEGER NOT NULL
);

INSERT INTO meta (one, clock, next_seq) VALUES (1, 0, 1);

-- The ids of commits, for about an hour: what became of a commit whose answer was lost (B1).
CREATE TABLE batches (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    committed_at INTEGER NOT NULL
);

-- `deadline` is set where it is armed, `origin` where it differs from the id.
CREATE TABLE promises (
    seq INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    state TEXT NOT NULL,
    timeout_at INTEGER NOT NULL,
    deadline INTEGER,
    created_at INTEGER NOT NULL,
    settled_at INTEGER,
    tags TEXT,
    origin TEXT,
    parent TEXT,
    branch TEXT,
    function TEXT,
    detached INTEGER,
    cancel_requested_at INTEGER,
    cancel_reason TEXT,
    cancel_mode TEXT,
    undrained INTEGER
);

CREATE UNIQUE INDEX promises_by_id ON promises (tenant, id);
CREATE INDEX promises_by_deadline ON promises (deadline) WHERE deadline IS NOT NULL;
CREATE INDEX promises_by_parent ON promises (tenant, parent, id) WHERE parent IS NOT NULL;
-- Those that are found by their parent are not in here again.
CREATE INDEX promises_by_branch ON promises (tenant, branch, id)
    WHERE branch IS NOT NULL AND branch <> id AND branch IS NOT parent;
CREATE INDEX promises_by_origin ON promises (tenant, origin) WHERE origin IS NOT NULL;
CREATE INDEX promises_by_function ON promises (tenant, function) WHERE function IS NOT NULL;
CREATE INDEX promises_undrained ON promises (seq) WHERE undrained = 1;

-- Payloads that are not empty, written once.
CREATE TABLE params (seq INTEGER PRIMARY KEY, headers TEXT, data TEXT);
CREATE TABLE results (seq INTEGER PRIMARY KEY, headers TEXT, data TEXT);

-- Keyed by their promise's seq.
CREATE TABLE tasks (
    seq INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    state TEXT NOT NULL,
    version INTEGER NOT NULL,
    resumes INTEGER NOT NULL,
    ttl INTEGER,
    pid TEXT,
    expires_at INTEGER,
    retry_at INTEGER,
    delivery TEXT NOT NULL,
    queue TEXT,
    lane TEXT,
    function TEXT,
    ready INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    releases INTEGER NOT NULL,
    last_request TEXT,
    last_answer BLOB
);

CREATE INDEX tasks_leased ON tasks (expires_at) WHERE state = 'acquired';
CREATE INDEX tasks_pushed ON tasks (retry_at) WHERE state = 'pending' AND delivery = 'push';
-- By function before rank: a worker that has few of a queue's functions does not walk past the rest.
CREATE INDEX tasks_ready ON tasks (tenant, queue, function, rank)
    WHERE state = 'pending' AND delivery = 'pull' AND ready = 1;
CREATE INDEX tasks_delayed ON tasks (retry_at)
    WHERE state = 'pending' AND delivery = 'pull' AND ready = 0;
CREATE INDEX tasks_delayed_by_queue ON tasks (tenant, queue, retry_at)
    WHERE state = 'pending' AND delivery = 'pull' AND ready = 0;
CREATE INDEX tasks_by_request ON tasks (tenant, last_request) WHERE last_request IS NOT NULL;

-- Edges: `awaited` and `task` are the seq of a promise or task, the other end is its id or address.
CREATE TABLE callbacks (awaited INTEGER NOT NULL, awaiter TEXT NOT NULL, PRIMARY KEY (awaited, awaiter))
    WITHOUT ROWID;
CREATE TABLE listeners (awaited INTEGER NOT NULL, address TEXT NOT NULL, PRIMARY KEY (awaited, address))
    WITHOUT ROWID;
CREATE TABLE resumes (task INTEGER NOT NULL, awaited TEXT NOT NULL, PRIMARY KEY (task, awaited))
    WITHOUT ROWID;
-- By number for a replay, by promise for what was not released and for going on after one.
CREATE TABLE releases (
    task INTEGER NOT NULL,
    promise TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (task, promise)
) WITHOUT ROWID;
CREATE INDEX releases_by_number ON releases (task, number);

CREATE TABLE schedules (
    seq INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    cron TEXT NOT NULL,
    promise_id TEXT NOT NULL,
    promise_timeout INTEGER NOT NULL,
    param_headers TEXT,
    param_data TEXT,
    promise_tags TEXT,
    created_at INTEGER NOT NULL,
    next_run_at INTEGER NOT NULL,
    last_run_at INTEGER,
    every_ms INTEGER,
    zone TEXT,
    jitter_ms INTEGER,
    overlap TEXT,
    catchup TEXT,
    paused INTEGER NOT NULL DEFAULT 0,
    UNIQUE (tenant, id)
);
CREATE INDEX schedules_due ON schedules (next_run_at) WHERE paused = 0;

-- Messages on their way out (A6). `key_address` tells unblocks of one promise apart; an execute is
-- known by its task alone. `channel` is what has to be open for it: a server takes only its own.
CREATE TABLE outbox (
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    key_address TEXT NOT NULL,
    address TEXT NOT NULL,
    channel TEXT NOT NULL,
    version INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    PRIMARY KEY (tenant, kind, id, key_address)
) WITHOUT ROWID;
CREATE INDEX outbox_due ON outbox (channel, due_at);

CREATE TABLE dead_letters (
    seq INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    queue TEXT,
    function TEXT,
    reason TEXT NOT NULL,
    error_headers TEXT,
    error_data TEXT,
    failures INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    died_at INTEGER NOT NULL,
    halted INTEGER NOT NULL,
    param_headers TEXT,
    param_data TEXT,
    tags TEXT,
    replays INTEGER NOT NULL,
    UNIQUE (tenant, id)
);

-- Not used yet; here so that files need no rewriting when they are.
CREATE TABLE dedupe (
    tenant TEXT NOT NULL,
    queue TEXT NOT NULL,
    key TEXT NOT NULL,
    promise TEXT NOT NULL,
    fingerprint TEXT,
    until INTEGER,
    PRIMARY KEY (tenant, queue, key)
) WITHOUT ROWID;
CREATE TABLE mailboxes (
    promise INTEGER NOT NULL,
    name TEXT NOT NULL,
    next_number INTEGER NOT NULL,
    PRIMARY KEY (promise, name)
) WITHOUT ROWID;
CREATE TABLE attributes (
    promise INTEGER NOT NULL,
    name TEXT NOT NULL,
    tenant TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (promise, name)
) WITHOUT ROWID;
CREATE TABLE queues (tenant TEXT NOT NULL, name TEXT NOT NULL, settings TEXT NOT NULL, PRIMARY KEY (tenant, name))
    WITHOUT ROWID;
CREATE TABLE workers (
    tenant TEXT NOT NULL,
    pid TEXT NOT NULL,
    announcement TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, pid)
) WITHOUT ROWID;
CREATE TABLE locks (
    tenant TEXT NOT NULL,
    resource TEXT NOT NULL,
    holder TEXT,
    fence INTEGER NOT NULL,
    expires_at INTEGER,
    PRIMARY KEY (tenant, resource)
) WITHOUT ROWID;
