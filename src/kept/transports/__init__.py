"""Floor 3: how messages leave. One file per transport."""
