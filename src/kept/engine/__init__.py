"""Floor 4: runs the machine over a store: group commit, timers, wake-ups, outbox."""
