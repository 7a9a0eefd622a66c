"""The explorer: all interleavings of the real machine with workers, client and network, in small
worlds. docs/design/explorer.md says how; `kept check` runs it."""
