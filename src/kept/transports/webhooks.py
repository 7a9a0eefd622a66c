"""What an operator says of messages that are POSTed: secrets to sign them, and where they may go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from kept.errors import ConfigurationError
from kept.protocol.records import MessageKind
from kept.protocol.signatures import MAX_SECRETS, MIN_SECRET_BYTES
from kept.transports.reach import Network, Reach, networks_of

SECRET_VARIABLE: Final = "KEPT_WEBHOOK_SECRET"
PRIVATE_VARIABLE: Final = "KEPT_ALLOW_PRIVATE_WEBHOOKS"
NETWORKS_VARIABLE: Final = "KEPT_WEBHOOK_NETWORKS"
_TRUE: Final = frozenset({"1", "true", "yes"})


class WebhookOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`secrets`: one, or while it is replaced two. Addresses that are not public are refused to
    webhooks unless `private` or in `networks`; to workers only without `private_workers`."""

    secrets: tuple[bytes, ...] = ()
    private: bool = False
    networks: tuple[Network, ...] = ()
    private_workers: bool = True

    def __repr__(self) -> str:
        """Without the secrets: options end up in logs."""
        return f"WebhookOptions(signed={bool(self.secrets)}, private={self.private})"

    def reach(self, kind: MessageKind) -> Reach:
        """Where messages of a kind may go."""
        is_private = self.private_workers if kind is MessageKind.EXECUTE else self.private
        return Reach(is_private, self.networks)


def webhook_options(environment: Mapping[str, str]) -> WebhookOptions:
    """What the environment says. Raises `ConfigurationError`."""
    try:
        networks = networks_of(environment.get(NETWORKS_VARIABLE, ""))
    except ValueError as error:
        raise ConfigurationError(f"{NETWORKS_VARIABLE}: {error}") from None
    return WebhookOptions(
        secrets=secrets_of(environment.get(SECRET_VARIABLE, "")),
        private=environment.get(PRIVATE_VARIABLE, "").lower() in _TRUE,
        networks=networks,
    )


def secrets_of(text: str) -> tuple[bytes, ...]:
    """The secrets in a text, separated by blanks or lines. Raises `ConfigurationError`."""
    secrets = tuple(part.encode() for part in text.split())
    if len(secrets) > MAX_SECRETS:
        raise ConfigurationError(f"there are {len(secrets)} webhook secrets, at most {MAX_SECRETS}")
    if any(len(secret) < MIN_SECRET_BYTES for secret in secrets):
        raise ConfigurationError(f"a webhook secret has at least {MIN_SECRET_BYTES} bytes")
    return secrets
