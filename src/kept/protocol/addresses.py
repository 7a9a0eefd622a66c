"""Addresses: where a message goes, or which queue holds the work (protocol A6)."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import msgspec

from kept.protocol.limits import MAX_ADDRESS_BYTES, MAX_QUEUE_NAME_BYTES
from kept.protocol.storage import DEFAULT_TENANT

# What the engine serves by itself; a transport that is installed adds its scheme.
BASE_SCHEMES: Final = frozenset({"poll", "http", "https"})
QUEUE_PREFIX: Final = "queue://"

_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*)://(.+)", re.DOTALL)
# Installed clients put names of groups and workers in as they are, blanks and all.
_POLL: Final = re.compile(r"poll://(uni|any)@([^/\x00-\x1f\x7f]+)(?:/([^\x00-\x1f\x7f]+))?")
_HTTP: Final = re.compile(r"https?://[^\s/?#]+[^\s]*", re.IGNORECASE)
_QUEUE_NAME: Final = re.compile(r"(?!queue://)\S+")


class PollAddress(msgspec.Struct, frozen=True):
    """`poll://uni@GROUP/ID` or `poll://any@GROUP[/ID]`, taken apart."""

    unicast: bool
    group: str
    id: str | None


def scheme_of(address: str) -> str | None:
    """The scheme of an address; none where it has no `scheme://rest` form."""
    match = _SCHEME.fullmatch(address)
    return match.group(1) if match else None


def parse_poll(address: str) -> PollAddress | None:
    """A poll address taken apart; none where it is not one."""
    match = _POLL.fullmatch(address)
    if match is None:
        return None
    return PollAddress(match.group(1) == "uni", match.group(2), match.group(3))


def channel_of(address: str, tenant: str = DEFAULT_TENANT) -> str:
    """What has to be open for a tenant's message to an address: the poll connection that alone may
    have it, the poll group, else the scheme."""
    poll = parse_poll(address)
    if poll is None:
        return scheme_of(address) or ""
    return poll_channel(poll.group, poll.id if poll.unicast else None, tenant)


def poll_channel(group: str, id: str | None, tenant: str = DEFAULT_TENANT) -> str:
    """The channel of a tenant's poll group, or of one connection in it: never another tenant's."""
    name = f"poll:{group}" if id is None else f"poll:{group}/{id}"
    # No group and no id has such a character in it.
    return name if tenant == DEFAULT_TENANT else f"{name}\x1f{tenant}"


def is_http(address: str) -> bool:
    """Whether messages to an address are POSTed."""
    return scheme_of(address) in ("http", "https")


def shown_address(address: str) -> str:
    """An HTTP address as it may be shown: a password and a query can be secrets."""
    try:
        parts = urlsplit(address)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return f"{scheme_of(address)}://"
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def queue_of(address: str) -> str | None:
    """The queue that a `queue://NAME` address names; none for other addresses."""
    return address[len(QUEUE_PREFIX) :] if address.startswith(QUEUE_PREFIX) else None


def is_queue_name(name: str) -> bool:
    """Whether a target can name a queue so: without blanks, and not by its address."""
    return len(name.encode()) <= MAX_QUEUE_NAME_BYTES and _QUEUE_NAME.fullmatch(name) is not None


def is_deliverable(address: str, schemes: frozenset[str] = BASE_SCHEMES) -> bool:
    """Whether a message can be sent there by a transport that serves one of `schemes`."""
    scheme = scheme_of(address)
    if scheme is None or scheme not in schemes or len(address.encode()) > MAX_ADDRESS_BYTES:
        return False
    if scheme == "poll":
        return _POLL.fullmatch(address) is not None
    if scheme in ("http", "https"):
        return _HTTP.fullmatch(address) is not None
    return True


def is_target(address: str, schemes: frozenset[str] = BASE_SCHEMES) -> bool:
    """Whether work can be sent, or queued, there."""
    queue = queue_of(address)
    return is_deliverable(address, schemes) if queue is None else is_queue_name(queue)
