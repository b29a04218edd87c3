"""Throttles of what guesses passwords or makes accounts: counted before any work is done.

Nobody's name or address stands in Redis: keys are hashes. An account that is tried from everywhere
is slowed down, never locked: its owner gets a turn within seconds.
"""

import hashlib
import ipaddress

from valence_auth import accounts
from valence_auth.settings import Settings
from valence_common.limits import Charge, Rate, Window

IPV6_NETWORK_BITS = 64


def login(settings: Settings, username: str, address: str) -> list[Charge]:
    """What one login takes, whether the account exists or not."""
    seconds, account, origin = settings.login_window_seconds, _account(username), _origin(address)
    everywhere = Rate("login-account", settings.login_account_attempts, seconds)
    return [
        Charge(Window("login", settings.login_attempts, seconds), _key(account, origin)),
        Charge(Window("login-address", settings.login_address_attempts, seconds), _key(origin)),
        Charge(everywhere, _key(account)),
    ]


def password(settings: Settings, username: str, address: str) -> list[Charge]:
    """What one guess at the current password takes from somebody who holds a token."""
    seconds, account, origin = settings.login_window_seconds, _account(username), _origin(address)
    guesses = Window("password", settings.login_attempts, seconds)
    everywhere = Rate("login-account", settings.login_account_attempts, seconds)
    return [Charge(guesses, _key(account, origin)), Charge(everywhere, _key(account))]


def register(settings: Settings, address: str) -> list[Charge]:
    """What one registration takes."""
    window = Window("register", settings.register_attempts, settings.login_window_seconds)
    return [Charge(window, _key(_origin(address)))]


def _account(username: str) -> str:
    return accounts.username_key(username) or username


def _origin(address: str) -> str:
    """Who an address stands for: a host has one of IPv4, and a whole network of IPv6."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((int(ip), IPV6_NETWORK_BITS), strict=False))


def _key(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
