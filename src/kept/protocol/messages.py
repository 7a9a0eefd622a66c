"""The two messages that leave the engine, as they travel (protocol A6)."""

from __future__ import annotations

from typing import Any

import msgspec

from kept.protocol.records import MessageKind, OutboxEntry, PromiseRecord


def execute_message(entry: OutboxEntry, server_url: str | None = None) -> dict[str, Any]:
    """Asks a worker to acquire a task at a version; `server_url` tells it where."""
    head = {"serverUrl": server_url} if server_url else {}
    return {
        "kind": MessageKind.EXECUTE.value,
        "head": head,
        "data": {"task": {"id": entry.key.id, "version": entry.version}},
    }


def unblock_message(promise: PromiseRecord) -> dict[str, Any]:
    """Tells a listener that a promise is settled."""
    return {
        "kind": MessageKind.UNBLOCK.value,
        "head": {},
        "data": {"promise": msgspec.to_builtins(promise)},
    }
