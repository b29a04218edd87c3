"""Throttles of what guesses passwords or makes accounts or keys: counted before any work is done.

Nobody's name or address stands in Redis: keys are hashes. An account that is tried from everywhere
is slowed down, never locked: its owner gets a turn within seconds.
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
KEYS: Final = Rate("api-keys", 20, 60, burst=80)
TAKE_OUTS: Final = Window("take-out", 10, 3600)


def login(settings: Settings, username: str, address: str) -> list[Hit]:
    """What one login takes from its address, whether the account exists or not."""
    seconds, account, origin = settings.login_window_seconds, _account(username), _origin(address)
    return [
        Hit(Window("login", settings.login_attempts, seconds), _key(account, origin)),
        Hit(Window("login-address", settings.login_address_attempts, seconds), _key(origin)),
    ]


def everywhere(settings: Settings, username: str) -> list[Hit]:
    """What it takes from the account after that.

    In a step of its own: who is refused here has still spent a try of their address, so hammering
    addresses fall silent and leave turns to the owner.
    """
    rate = Rate("login-account", settings.login_account_attempts, settings.login_window_seconds)
    return [Hit(rate, _key(_account(username)))]


def password(settings: Settings, username: str, address: str) -> list[Hit]:
    """What one guess at the current password takes from somebody who holds a token."""
    seconds, account, origin = settings.login_window_seconds, _account(username), _origin(address)
    guesses = Window("password", settings.login_attempts, seconds)
    return [Hit(guesses, _key(account, origin)), *everywhere(settings, username)]


def take_out(user_id: uuid.UUID) -> list[Hit]:
    """What a take-out takes: there are few turns, and they are for everybody."""
    return [Hit(TAKE_OUTS, str(user_id))]


def register(settings: Settings, address: str) -> list[Hit]:
    """What one registration takes."""
    window = Window("register", settings.register_attempts, settings.login_window_seconds)
    return [Hit(window, _key(_origin(address)))]


def new_key(user_id: uuid.UUID) -> list[Hit]:
    """What a new API key takes.

    The end of each is news that every process keeps for an hour: a flood of it would fill them.
    """
    return [Hit(KEYS, str(user_id))]


@asynccontextmanager
async def returned(limiter: Limiter, charges: Sequence[Hit]) -> AsyncIterator[None]:
    """Give back what was taken for a try that Postgres could not judge: an outage shuts nobody out.

    Not for want of a turn at the hasher: who floods that would never be refused.
    """
    try:
        yield
    except Unavailable as error:
        if error.dependency == "postgres":
            await limiter.refund(*charges)
        raise


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
