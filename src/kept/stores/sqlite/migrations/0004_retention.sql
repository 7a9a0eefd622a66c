-- Settled trees leave (B6), when nothing names them any more: edges are looked for by their other end.
CREATE INDEX callbacks_by_awaiter ON callbacks (awaiter);
CREATE INDEX resumes_by_awaited ON resumes (awaited);

-- However many trees are due, the rest that is due is found without walking past them.
DROP INDEX entries_due;
CREATE INDEX entries_due ON entries (due_at) WHERE due_at IS NOT NULL AND kind NOT IN ('retention', 'retiring');
CREATE INDEX trees_due ON entries (due_at) WHERE due_at IS NOT NULL AND kind IN ('retention', 'retiring');

-- What is there already is looked at after the default retention.
INSERT OR IGNORE INTO entries (tenant, kind, name, data, due_at)
    SELECT tenant, 'retention', ifnull(origin, id), '{}',
        max(ifnull(settled_at, (SELECT clock FROM meta))) + 604800000
    FROM promises GROUP BY tenant, ifnull(origin, id);

-- How many promises there are is told without counting them: those numbered, less those removed.
ALTER TABLE meta ADD COLUMN removed INTEGER NOT NULL DEFAULT 0;
UPDATE meta SET removed = next_seq - 1 - (SELECT count(*) FROM promises);
