"""Floor 5: how to reach an engine, in this process or over HTTP: one interface, `Connection`."""
