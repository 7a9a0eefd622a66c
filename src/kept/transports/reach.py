"""Which addresses a message may be POSTed to: they come from clients, who must not reach through the
server what they cannot reach themselves (docs/design/webhooks.md)."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import msgspec

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

# Where clouds answer with a machine's credentials, beside the link-local addresses.
_METADATA: Final = (
    ipaddress.ip_network("fd00:ec2::/32"),
    ipaddress.ip_network("100.100.100.200/32"),
)
# IPv6 addresses that stand for IPv4 ones.
_NAT64: Final = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))
_SITE_LOCAL: Final = ipaddress.ip_network("fec0::/10")


class AddressRefusedError(OSError):
    """The rule does not allow a connection to this address."""


class Reach(msgspec.Struct, frozen=True):
    """`private`: whether loopback and private addresses may be reached. `networks` may be in any case.
    Link-local ones, where clouds keep credentials, are reached only if a network names them."""

    private: bool = False
    networks: tuple[Network, ...] = ()

    def allows(self, host: str) -> bool:
        """Whether an IP address may be connected to. What is none may not."""
        try:
            address = _real(ipaddress.ip_address(host.partition("%")[0]))
        except ValueError:
            return False
        if any(address in network for network in self.networks):
            return True
        if address.is_loopback:
            return self.private
        never = address.is_link_local or address.is_multicast or address.is_unspecified
        if never or address.is_reserved or any(address in network for network in _METADATA):
            return False
        if address.is_global and address not in _SITE_LOCAL:
            return True
        return self.private


def _real(address: Address) -> Address:
    """The address that is meant: IPv4 ones come in several disguises."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    embedded = address.ipv4_mapped or address.sixtofour
    if embedded is None and address.teredo is not None:
        embedded = address.teredo[1]
    if embedded is None and any(address in network for network in _NAT64):
        embedded = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address if embedded is None else embedded


def socket_factory(reach: Reach) -> Callable[[Any], socket.socket]:
    """Makes the socket for one address that a name was resolved to, just before it is connected to
    that very address: nothing resolves the name again in between."""

    def made(info: tuple[Any, Any, Any, Any, Any]) -> socket.socket:
        family, kind, protocol, _, destination = info
        if not reach.allows(destination[0]):
            text = f"{destination[0]} is a private address, which is not allowed"
            raise AddressRefusedError(errno.EACCES, text)
        return socket.socket(family=family, type=kind, proto=protocol)

    return made


def networks_of(text: str) -> tuple[Network, ...]:
    """Networks or addresses, separated by commas or blanks. Raises `ValueError`."""
    return tuple(ipaddress.ip_network(part) for part in text.replace(",", " ").split())
