"""Rate limits on guessing passwords and on creating accounts, API keys and data exports.

Requests are charged before any work is done. Redis stores hashes of names and addresses only. An
account that is attacked from many addresses is slowed down and never locked: its owner can log in
within seconds.
"""

import hashlib
import ipaddress
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from valence_auth import accounts
from valence_auth.settings import Settings
from valence_common.problems import Unavailable
from valence_common.rate_limits import Hit, Limiter, Rate, Window

IPV6_NETWORK_BITS = 64
NEW_KEYS: Final = Rate("api-keys", 20, 60, burst=80)
EXPORTS: Final = Window("take-out", 10, 3600)


def login(settings: Settings, username: str, address: str) -> list[Hit]:
    """Return the charges of a login to its address, whether the account exists or not."""
    seconds, account, network = settings.login_window_seconds, _account(username), _network(address)
    return [
        Hit(Window("login", settings.login_attempts, seconds), _key(account, network)),
        Hit(Window("login-address", settings.login_address_attempts, seconds), _key(network)),
    ]


def per_account(settings: Settings, username: str) -> list[Hit]:
    """Return the charge of a login to the account.

    Charged after the per-address limit, so an attacker rejected here has still spent their own
    address's attempts.
    """
    rate = Rate("login-account", settings.login_account_attempts, settings.login_window_seconds)
    return [Hit(rate, _key(_account(username)))]


def password(settings: Settings, username: str, address: str) -> list[Hit]:
    """Return the charges of one check of the current password, for a client with a token."""
    seconds, account, network = settings.login_window_seconds, _account(username), _network(address)
    guesses = Window("password", settings.login_attempts, seconds)
    return [Hit(guesses, _key(account, network)), *per_account(settings, username)]


def data_export(user_id: uuid.UUID) -> list[Hit]:
    """Return the charge of a data export."""
    return [Hit(EXPORTS, str(user_id))]


def register(settings: Settings, address: str) -> list[Hit]:
    """Return the charge of a registration."""
    window = Window("register", settings.register_attempts, settings.login_window_seconds)
    return [Hit(window, _key(_network(address)))]


def new_key(user_id: uuid.UUID) -> list[Hit]:
    """Return the charge of a new API key.

    Every process remembers the revocation of a key for an hour, so keys must not be created and
    revoked without limit.
    """
    return [Hit(NEW_KEYS, str(user_id))]


@asynccontextmanager
async def refund_on_outage(limiter: Limiter, hits: Sequence[Hit]) -> AsyncIterator[None]:
    """Refund an attempt that failed because Postgres was unavailable.

    An attempt that waited too long for a password hasher is not refunded, or a flood of logins
    would never be limited.
    """
    try:
        yield
    except Unavailable as error:
        if error.dependency == "postgres":
            await limiter.refund(*hits)
        raise


def _account(username: str) -> str:
    return accounts.username_key(username) or username


def _network(address: str) -> str:
    """Return the network of an address: a host usually has one IPv4 address or an IPv6 /64."""
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
