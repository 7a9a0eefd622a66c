"""Which addresses may be connected to."""

from __future__ import annotations

import pytest

from kept.transports.reach import Reach, networks_of

PUBLIC = ("93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34", "64:ff9b::5db8:d822")
PRIVATE = (
    "127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1",
    "::1", "fd12:3456::1", "fec0::1", "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::a00:1",
)  # fmt: skip
NEVER = (
    "169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::",
    "fe80::1", "fe80::1%eth0", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255",
    "240.0.0.1", "fd00:ec2::254", "100.100.100.200", "localhost", "",
)  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    """Always."""
    assert Reach().allows(address)
    assert Reach(private=True).allows(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses(address: str) -> None:
    """If private ones are allowed, in whichever disguise they come."""
    assert not Reach().allows(address)
    assert Reach(private=True).allows(address)


@pytest.mark.parametrize("address", NEVER)
def test_addresses_that_are_nobodys(address: str) -> None:
    """Where clouds keep credentials, and what is no address of one machine: not even with private."""
    assert not Reach().allows(address)
    assert not Reach(private=True).allows(address)


def test_a_network_that_is_named_is_reached() -> None:
    """Whatever it is; its neighbours are not."""
    reach = Reach(networks=networks_of("10.1.0.0/16, 169.254.169.254 fd00::/8"))
    for address in ("10.1.2.3", "169.254.169.254", "fd12::1", "::ffff:10.1.2.3"):
        assert reach.allows(address)
    for address in ("10.2.0.1", "169.254.169.253", "127.0.0.1"):
        assert not reach.allows(address)


@pytest.mark.parametrize("text", ["10.0.0.1/8", "example.com", "10.0.0.0/33"])
def test_what_is_no_network(text: str) -> None:
    """Is refused when it is said."""
    with pytest.raises(ValueError, match=r"."):
        networks_of(text)
