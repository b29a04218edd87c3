"""Addresses: the public's, and all the ways to write one that is not."""

import ipaddress

import pytest

from valence_common.addresses import is_public, may_reach, plain

PUBLIC = ["93.184.215.14", "1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "64:ff9b::808:808"]
OURS = [
    "127.0.0.1",
    "127.8.9.10",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",  # metadata of AWS, Azure, GCP and others
    "100.64.0.1",
    "100.100.100.200",  # and of Alibaba
    "168.63.129.16",  # Azure's host
    "192.0.0.192",
    "198.18.0.1",
    "203.0.113.5",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::808:808",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2001:0:7f00:1::f5f5:f5f5",
    "2001:0:808:808::80ff:fffe",  # Teredo of a client at 127.0.0.1
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "2001:db8::1",
    "3fff::1",
    "192.88.99.1",
    "100::1",
    "4000::1",
]


@pytest.mark.parametrize("written", PUBLIC)
def test_public_addresses_are_public(written: str) -> None:
    """Also through NAT64, as the Internet is reached from a network without IPv4."""
    assert is_public(ipaddress.ip_address(written))


@pytest.mark.parametrize("written", OURS)
def test_special_addresses_are_not(written: str) -> None:
    """Nor any IPv6 address that carries one."""
    address = ipaddress.ip_address(written)
    assert not is_public(address)
    assert not may_reach(address, [])


def test_a_network_can_be_allowed() -> None:
    """An address in it, however it is written; and no other."""
    allowed = [ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("fd00::/8")]
    for written in ("127.0.0.1", "::ffff:127.0.0.1", "fd00::1", "1.1.1.1"):
        assert may_reach(ipaddress.ip_address(written), allowed)
    for written in ("10.0.0.1", "::1", "64:ff9b::7f00:1"):
        assert not may_reach(ipaddress.ip_address(written), allowed)


def test_a_mapped_address_is_reached_as_what_it_is() -> None:
    """`::ffff:1.2.3.4` is 1.2.3.4."""
    mapped = ipaddress.ip_address("::ffff:1.2.3.4")
    assert ipaddress.ip_address("1.2.3.4") == plain(mapped)
