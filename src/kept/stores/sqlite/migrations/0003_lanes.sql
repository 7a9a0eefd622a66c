-- Lanes take turns, and limits count what is acquired (B2).
-- Before rank comes the lane: its front is found in one seek, and so is the next lane.
DROP INDEX tasks_ready;
CREATE INDEX tasks_ready ON tasks (tenant, queue, function, lane, rank)
    WHERE state = 'pending' AND delivery = 'pull' AND ready = 1;
CREATE INDEX tasks_acquired ON tasks (tenant, queue, lane)
    WHERE state = 'acquired' AND queue IS NOT NULL;
-- For the numbers of a queue.
CREATE INDEX tasks_parked ON tasks (tenant, queue, state)
    WHERE state IN ('suspended', 'halted') AND queue IS NOT NULL;
CREATE INDEX dead_letters_by_queue ON dead_letters (tenant, queue) WHERE queue IS NOT NULL;
