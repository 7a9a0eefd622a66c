"""Floor 3: databases that are not kept's, as far as the outbox and the inbox need them: a few statements
on a connection of the caller's, or on one of our own."""
