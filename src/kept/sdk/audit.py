"""Where a job comes from: the event behind it, for logs, records and handlers."""

from __future__ import annotations

import hashlib


def dedupe_key(source_id: str, revision: int, index_hash: str) -> str:
    """The key of an event: SHA-256, as 64 hex digits, of what it says and of nothing else.

    Hashed are the three as UTF-8, the revision in decimal, each as a netstring: its length in bytes
    in decimal, a colon, the bytes, a comma. So no two events have one key because their parts run
    into each other, and any language can compute it.
    """
    digest = hashlib.sha256()
    for part in (source_id, str(int(revision)), index_hash):
        data = part.encode()
        digest.update(b"%d:%b," % (len(data), data))
    return digest.hexdigest()
