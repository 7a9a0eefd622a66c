"""All requests by their kind, and which of them wait."""

from __future__ import annotations

from typing import Final

from kept.protocol.guard_requests import GUARD_REQUESTS, LockAcquire, SlotAcquire
from kept.protocol.inquiries import INQUIRY_REQUESTS
from kept.protocol.requests import CORE_REQUESTS, PromiseWait, Request, TaskClaim
from kept.protocol.schedule_requests import SCHEDULE_REQUESTS
from kept.protocol.worker_requests import WORKER_REQUESTS

ALL_REQUESTS: Final[tuple[type[Request], ...]] = (
    *CORE_REQUESTS,
    *GUARD_REQUESTS,
    *SCHEDULE_REQUESTS,
    *WORKER_REQUESTS,
    *INQUIRY_REQUESTS,
)
REQUEST_BY_KIND: Final[dict[str, type[Request]]] = {r.kind: r for r in ALL_REQUESTS}


def wait_of(request: Request) -> int:
    """How long the engine may take over an answer, in ms; 0 for requests that do not wait."""
    if isinstance(request, TaskClaim | LockAcquire | SlotAcquire):
        return request.wait
    return request.timeout if isinstance(request, PromiseWait) else 0
