"""Public addresses, and the forms of those that are not."""

import ipaddress

import pytest

from support.addresses import OURS, PUBLIC
from valence_common.ssrf import is_allowed, is_public, unmap_ipv4


@pytest.mark.parametrize("written", PUBLIC)
def test_public_addresses_are_public(written: str) -> None:
    """Also through NAT64, as a network without IPv4 reaches the Internet."""
    assert is_public(ipaddress.ip_address(written))


@pytest.mark.parametrize("written", OURS)
def test_special_addresses_are_not_public(written: str) -> None:
    """Nor is any IPv6 address that embeds one."""
    address = ipaddress.ip_address(written)
    assert not is_public(address)
    assert not is_allowed(address, [])


def test_network_can_be_allowed() -> None:
    """Its addresses, in every form, and no others."""
    allowed = [ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("fd00::/8")]
    for written in ("127.0.0.1", "::ffff:127.0.0.1", "fd00::1", "1.1.1.1"):
        assert is_allowed(ipaddress.ip_address(written), allowed)
    for written in ("10.0.0.1", "::1", "64:ff9b::7f00:1"):
        assert not is_allowed(ipaddress.ip_address(written), allowed)


def test_mapped_address_is_unmapped() -> None:
    """`::ffff:1.2.3.4` is 1.2.3.4."""
    mapped = ipaddress.ip_address("::ffff:1.2.3.4")
    assert ipaddress.ip_address("1.2.3.4") == unmap_ipv4(mapped)
