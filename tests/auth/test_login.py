"""Login: every rejection costs the same work (reliability case 84), a throttled one costs none."""

import asyncio
import contextlib
import ipaddress
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from passlib.hash import pbkdf2_sha256
from pydantic import SecretStr

from support.rows import query
from valence_auth import passwords
from valence_auth.app import create_app
from valence_auth.settings import Settings
from valence_common import keyring

PASSWORD = "correct horse battery staple"


class CountingHasher:
    """A hasher that counts its work."""

    def __init__(self, hasher: object):
        self._hasher = hasher
        self.hashes = 0
        self.checks = 0

    def hash(self, password: str) -> str:
        self.hashes += 1
        return str(self._hasher.hash(password))

    def verify(self, password: str, hashed: str) -> bool:
        self.checks += 1
        return bool(self._hasher.verify(password, hashed))


@pytest.fixture
def hasher(monkeypatch: pytest.MonkeyPatch) -> CountingHasher:
    counting = CountingHasher(passwords._argon2id)
    monkeypatch.setattr(passwords, "_argon2id", counting)
    return counting


@pytest.fixture
def make_app(
    tmp_path: Path, own_database_url: str, redis_url: str, hasher: CountingHasher
) -> Iterator[Callable[..., FastAPI]]:
    """Replicas of the service in this process, with one database and one Redis."""
    path = tmp_path / "keyring.json"
    path.write_bytes(keyring.generate())
    apps = []

    def make(**options: object) -> FastAPI:
        settings = Settings(
            database_url=SecretStr(own_database_url),
            redis_url=SecretStr(redis_url),
            redis_timeout_seconds=2,
            jwt_keyring_file=path,
            **options,
        )
        apps.append(create_app(settings))
        return apps[-1]

    yield make
    for app in apps:
        app.state.resources.database.close()


@contextlib.asynccontextmanager
async def _clients(*apps: FastAPI) -> AsyncIterator[list[httpx.AsyncClient]]:
    """A client of each replica, all with one address that no other test uses."""
    address = str(ipaddress.IPv4Address(0x0A000000 + uuid.uuid4().int % 0x1000000))
    async with contextlib.AsyncExitStack() as stack:
        for app in apps:
            stack.push_async_callback(app.state.resources.redis.close)
        yield [
            await stack.enter_async_context(
                httpx.AsyncClient(
                    transport=httpx.ASGITransport(app, client=(address, 1)),
                    base_url="http://test",
                )
            )
            for app in apps
        ]


async def _register(client: httpx.AsyncClient, name: str, email: str = "") -> int:
    email = email or f"{name}@example.com"
    body = {"username": name, "email": email, "password": PASSWORD}
    return (await client.post("/api/v1/auth/register", json=body)).status_code


async def _login(client: httpx.AsyncClient, name: str, password: str) -> int:
    form = {"username": name, "password": password}
    return (await client.post("/api/v1/auth/login", data=form)).status_code


def _names(count: int) -> list[str]:
    return [f"user-{uuid.uuid4().hex[:12]}" for _ in range(count)]


def test_case_084_the_hasher_is_called_once(
    make_app: Callable[..., FastAPI], hasher: CountingHasher, own_database_url: str
) -> None:
    """One check for each login, whatever is wrong with it; none for a throttled one."""
    name, disabled, outside, broken, erased = _names(5)

    async def work() -> list[tuple[int, int]]:
        async with _clients(make_app()) as [client]:
            for username in (name, disabled, outside, broken, erased):
                assert 201 == await _register(client, username)
            for username, change in (
                (disabled, "is_active = false"),
                (outside, "password_hash = NULL"),
                (broken, "password_hash = '!'"),
                (erased, "erased_at = now()"),
            ):
                statement = f"UPDATE users SET {change} WHERE username = :name"
                query(own_database_url, statement, name=username)
            outcomes = []
            for username, password in (
                (name, PASSWORD),
                (name, "not the password"),
                (name, "x" * 5000),
                ("nobody-at-all", PASSWORD),
                ("\u2603", PASSWORD),
                (disabled, PASSWORD),
                (disabled, "not the password"),
                (outside, PASSWORD),
                (broken, PASSWORD),
                (erased, PASSWORD),
                *[(name, PASSWORD)] * 3,
            ):
                before = hasher.checks + hasher.hashes
                status = await _login(client, username, password)
                outcomes.append((status, hasher.checks + hasher.hashes - before))
            return outcomes

    outcomes = asyncio.run(work())
    assert [(200, 1)] + [(401, 1)] * 9 == outcomes[:10]
    assert [(200, 1), (200, 1), (429, 0)] == outcomes[10:]


def test_case_085_a_taken_name_costs_a_hash_too(
    make_app: Callable[..., FastAPI], hasher: CountingHasher
) -> None:
    """Registering a taken name costs the same work as a free one; a throttled one costs none."""
    name, other, third = _names(3)

    async def work() -> list[tuple[int, int]]:
        async with _clients(make_app(register_attempts=4)) as [client]:
            outcomes = []
            for username, email in (
                (name, ""),
                (name, ""),
                (other, f"{name}@example.com"),
                (other, ""),
                (third, ""),
            ):
                before = hasher.hashes
                status = await _register(client, username, email)
                outcomes.append((status, hasher.hashes - before))
            return outcomes

    assert [(201, 1), (400, 1), (400, 1), (201, 1), (429, 0)] == asyncio.run(work())


@pytest.mark.parametrize("known", [True, False])
def test_case_093_fifty_at_once_are_five_checks(
    make_app: Callable[..., FastAPI], hasher: CountingHasher, *, known: bool
) -> None:
    """Over two replicas, 50 concurrent wrong passwords cost five checks, and the right one none."""
    [name] = _names(1)

    async def work() -> list[int]:
        async with _clients(make_app(), make_app()) as clients:
            if known:
                assert 201 == await _register(clients[0], name)
            guesses = (_login(clients[n % 2], name, f"wrong {n}") for n in range(50))
            statuses = await asyncio.gather(*guesses)
            return [*sorted(statuses), await _login(clients[0], name, PASSWORD)]

    assert [401] * 5 + [429] * 45 + [429] == asyncio.run(work())
    assert 5 == hasher.checks


def test_old_hash_is_replaced_at_login(
    make_app: Callable[..., FastAPI], own_database_url: str
) -> None:
    """Case 87: not by a wrong password; and five concurrent logins all succeed."""
    [name] = _names(1)

    def kept() -> str:
        statement = "SELECT password_hash FROM users WHERE username = :name"
        return str(query(own_database_url, statement, name=name)[0][0])

    async def work() -> None:
        async with _clients(make_app(), make_app(login_attempts=100)) as clients:
            await _register(clients[0], name)
            old = pbkdf2_sha256.using(rounds=1000).hash(PASSWORD)
            statement = "UPDATE users SET password_hash = :old WHERE username = :name"
            query(own_database_url, statement, name=name, old=old)
            assert 401 == await _login(clients[0], name, "not the password")
            assert old == kept()
            logins = (_login(clients[1], name, PASSWORD) for _ in range(5))
            assert [200] * 5 == await asyncio.gather(*logins)
            assert kept().startswith("$argon2id$v=19$m=19456,t=2,p=1$")
            assert 200 == await _login(clients[1], name, PASSWORD)

    asyncio.run(work())
