"""The interface of a transport (protocol A6)."""

from __future__ import annotations

from typing import Protocol


class DeliveryFailedError(Exception):
    """A message could not be handed over; the outbox keeps it and tries again later."""


class Transport(Protocol):
    """Carries messages to addresses of its schemes."""

    schemes: frozenset[str]

    def reachable(self, address: str) -> bool:
        """Whether a try makes sense now: a poll group without a connection is not worth one."""

    async def deliver(self, address: str, message: bytes) -> None:
        """Hands one message (JSON) over and returns once that is sure; raises `DeliveryFailedError`."""

    async def close(self) -> None:
        """Ends all deliveries and connections."""
