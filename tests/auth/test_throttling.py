"""Rate limits of logins: shared limits, privacy in Redis, no lockout."""

import asyncio
import uuid
from collections.abc import Callable

import pytest
import redis
from pydantic import SecretStr

from valence_auth import throttling
from valence_auth.settings import Settings
from valence_common.problems import TooManyRequests, Unavailable
from valence_common.rate_limits import Hit, Limiter
from valence_common.redis_client import RedisClient

ADDRESS = "192.0.2.7"


@pytest.fixture
def settings(database_url: str, redis_url: str, tmp_path) -> Callable[..., Settings]:
    def make(**options: object) -> Settings:
        return Settings(
            database_url=SecretStr(database_url),
            redis_url=SecretStr(redis_url),
            jwt_keyring_file=tmp_path / "keyring.json",
            **options,
        )

    return make


def _login(settings: Settings, name: str, address: str) -> list[Hit]:
    """Return all charges of one login."""
    own = throttling.login(settings, name, address)
    return [*own, *throttling.per_account(settings, name)]


async def _try(limiter: Limiter, settings: Settings, name: str, address: str) -> str | None:
    """Try to log in as the route does; return the Retry-After of a rejection."""
    try:
        await limiter.acquire(*throttling.login(settings, name, address))
        await limiter.acquire(*throttling.per_account(settings, name))
    except TooManyRequests as error:
        return error.headers["Retry-After"]
    return None


def _keys(charges: list[Hit]) -> dict[str, str]:
    return {charge.limit.name: charge.key for charge in charges}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.8", False),
        ("192.0.2.7", "::ffff:192.0.2.7", True),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("", "garbage", False),
    ],
)
def test_addresses_are_grouped_by_network(
    settings: Callable[..., Settings], one: str, other: str, *, same: bool
) -> None:
    """One IPv4 host; an IPv6 /64, since each of its hosts has 2^64 addresses."""
    keys = [_keys(_login(settings(), "ada", address)) for address in (one, other)]
    assert same == (keys[0]["login-address"] == keys[1]["login-address"])
    assert same == (keys[0]["login"] == keys[1]["login"])
    assert keys[0]["login-account"] == keys[1]["login-account"]


def test_limits_are_by_canonical_username(settings: Callable[..., Settings]) -> None:
    """Spellings of one username share a limit; invalid usernames have limits of their own."""
    names = ["ada", "ADA", "\uff41da", "bob", "\u2603", "\u2603\u2603", "x" * 60_000]
    keys = [_keys(throttling.login(settings(), name, ADDRESS))["login"] for name in names]
    assert 1 == len(set(keys[:3]))
    assert 5 == len(set(keys))


def test_redis_stores_no_names(settings: Callable[..., Settings]) -> None:
    """No key contains a name or an address; checks of a password are counted apart."""
    name = f"user-{uuid.uuid4().hex[:12]}"
    charges = [
        *_login(settings(), name, ADDRESS),
        *throttling.password(settings(), name, ADDRESS),
        *throttling.register(settings(), ADDRESS),
    ]
    assert not any(name in charge.key or ADDRESS in charge.key for charge in charges)
    assert {"login", "login-address", "login-account", "password", "register"} == {
        charge.limit.name for charge in charges
    }


def test_account_is_slowed_down_and_never_locked(
    settings: Callable[..., Settings], redis_url: str
) -> None:
    """Attacked from many addresses it admits its rate; later a login passes, and keys expire."""
    name = f"user-{uuid.uuid4().hex[:12]}"
    limits = settings(login_account_attempts=20, login_window_seconds=10)

    async def work() -> None:
        cache = RedisClient(SecretStr(redis_url), timeout=2)
        limiter = Limiter(cache)
        tries = [await _try(limiter, limits, name, f"192.0.2.{host}") for host in range(60)]
        waits = [wait for wait in tries if wait is not None]
        assert {"1"} == set(waits)
        assert 30 <= len(waits) <= 40
        # All refusals did not put off the next turn.
        await asyncio.sleep(1)
        assert None is await _try(limiter, limits, name, ADDRESS)
        await cache.close()

    asyncio.run(work())
    [account] = throttling.per_account(limits, name)
    with redis.Redis.from_url(redis_url) as client:
        [key] = client.keys(f"*{account.key}*")
        assert 0 < client.pttl(key) <= 10_000


def test_attackers_spend_their_own_attempts(
    settings: Callable[..., Settings], redis_url: str
) -> None:
    """Two dozen addresses that never pause are rejected soon; then the owner can log in."""
    name = f"user-{uuid.uuid4().hex[:12]}"
    limits = settings(login_account_attempts=60, login_window_seconds=60)

    async def work() -> None:
        cache = RedisClient(SecretStr(redis_url), timeout=2)
        limiter = Limiter(cache)
        for _ in range(20):
            for host in range(24):
                await _try(limiter, limits, name, f"198.51.100.{host}")
        await asyncio.sleep(1)
        assert None is await _try(limiter, limits, name, ADDRESS)
        await cache.close()

    asyncio.run(work())


@pytest.mark.parametrize(("dependency", "counted"), [("postgres", False), ("hasher", True)])
def test_attempt_during_an_outage_is_refunded(
    settings: Callable[..., Settings], redis_url: str, dependency: str, *, counted: bool
) -> None:
    """After an outage of Postgres no user is locked out; a flood of the hasher is limited."""
    name, own = uuid.uuid4().hex, settings(login_attempts=2)

    async def scenario() -> list[bool]:
        cache = RedisClient(SecretStr(redis_url), timeout=2)
        limiter, charges = Limiter(cache), _login(own, name, name)
        refused = []
        for _ in range(4):
            try:
                await limiter.acquire(*charges)
                async with throttling.refund_on_outage(limiter, charges):
                    raise Unavailable(dependency)
            except TooManyRequests:
                refused.append(True)
            except Unavailable:
                refused.append(False)
        await cache.close()
        return refused

    assert [False, False, counted, counted] == asyncio.run(scenario())
