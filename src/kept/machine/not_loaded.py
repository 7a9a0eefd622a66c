"""How a handler says that it needs more records."""

from __future__ import annotations

from kept.protocol.storage import Reads


class NotLoaded(Exception):
    """Undo the request, load `reads`, apply it again."""

    def __init__(self, reads: Reads) -> None:
        super().__init__(reads)
        self.reads = reads
