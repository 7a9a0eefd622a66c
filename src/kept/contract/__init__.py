"""Floor 7: conformance suites that we ship: for a store, for a connection, for a server."""
