"""Protection against server-side request forgery: the addresses that a user's URL may lead to.

An address is public if the registries of special-purpose addresses (RFC 6890 and its successors)
call it globally reachable. IPv4 addresses embedded in IPv6 ones are judged in every form.
"""

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
# Special by the registries, but not in every supported release of Python.
_SPECIAL: Final = tuple(
    ipaddress.ip_network(network)
    for network in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "3fff::/20")
)
# Inside Azure this public address is the host's agent, which issues credentials.
_AZURE_HOST: Final = ipaddress.IPv4Address("168.63.129.16")


def is_public(address: Address) -> bool:
    """Return whether an address is public, as are all addresses embedded in it."""
    if embedded := list(_embedded(address)):
        return all(is_public(inner) for inner in embedded)
    if isinstance(address, ipaddress.IPv6Address) and address not in _UNICAST:
        return False
    if address == _AZURE_HOST or any(address in network for network in _SPECIAL):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


def is_allowed(address: Address, allowed: Iterable[Network]) -> bool:
    """Return whether an address is public, or in one of the allowed networks."""
    address = unmap_ipv4(address)
    return is_public(address) or any(address in network for network in allowed)


def unmap_ipv4(address: Address) -> Address:
    """Return an IPv4-mapped IPv6 address (`::ffff:…`) as the IPv4 address that it connects to."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _embedded(address: Address) -> Iterator[Address]:
    if isinstance(address, ipaddress.IPv4Address):
        return
    for inner in (address.ipv4_mapped, address.sixtofour, *(address.teredo or ())):
        if inner is not None:
            yield inner
    if address in _NAT64:
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
