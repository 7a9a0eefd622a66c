"""The interface of a transport (protocol A6)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from kept.protocol.records import MessageKind


class DeliveryFailedError(Exception):
    """A message could not be handed over; the outbox keeps it and tries again later."""


class Transport(Protocol):
    """Carries messages to addresses of its schemes."""

    schemes: frozenset[str]

    def channels(self) -> Iterable[str]:
        """The channels (addresses.channel_of) that are open now: schemes, or poll connections and
        their groups. Messages on others stay in the outbox untouched."""

    def reachable(self, address: str, tenant: str) -> bool:
        """Whether somebody of the tenant at this very address can be tried now."""

    async def deliver(self, address: str, message: bytes, tenant: str, kind: MessageKind) -> None:
        """Hands one message (JSON) of a tenant over and returns once that is sure.

        Raises `DeliveryFailedError`.
        """

    async def close(self) -> None:
        """Ends all deliveries and connections."""
