-- Small records that are found by kind and name alone (protocol/entries.py), in the place of one table
-- for each kind. `data` is JSON; `due_at` is when the background looks at one.
DROP TABLE dedupe;
DROP TABLE mailboxes;
DROP TABLE queues;
DROP TABLE workers;
DROP TABLE locks;

CREATE TABLE entries (
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    data TEXT NOT NULL,
    due_at INTEGER,
    PRIMARY KEY (tenant, kind, name)
) WITHOUT ROWID;
CREATE INDEX entries_due ON entries (due_at) WHERE due_at IS NOT NULL;
