"""Login: equal work for every refusal (CATALOGUE 84), and none for what is throttled."""

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from support.rows import query
from valence_auth import passwords
from valence_auth.app import create_app
from valence_auth.passwords import Passwords, weakness
from valence_auth.settings import Settings
from valence_common import keyring

PASSWORD = "correct horse battery staple"


class CountingHasher:
    """The hasher, counting its checks."""

    def __init__(self, hasher: object):
        self._hasher = hasher
        self.checks = 0

    def hash(self, password: str) -> str:
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
def app(
    tmp_path: Path, own_database_url: str, redis_url: str, hasher: CountingHasher
) -> Iterator[FastAPI]:
    path = tmp_path / "keyring.json"
    path.write_bytes(keyring.generate())
    settings = Settings(
        database_url=SecretStr(own_database_url),
        redis_url=SecretStr(redis_url),
        redis_timeout_seconds=2,
        jwt_keyring_file=path,
    )
    app = create_app(settings)
    yield app
    app.state.database.close()


async def _session(
    app: FastAPI, hasher: CountingHasher, database_url: str
) -> list[tuple[int, int]]:
    """Status and number of hash checks of each login."""
    name, disabled = (f"user-{uuid.uuid4().hex[:12]}" for _ in range(2))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for username in (name, disabled):
            body = {"username": username, "email": f"{username}@example.com", "password": PASSWORD}
            assert 201 == (await client.post("/api/v1/auth/register", json=body)).status_code
        statement = "UPDATE users SET is_active = false WHERE username = :name"
        query(database_url, statement, name=disabled)
        outcomes = []
        for username, password in (
            (name, PASSWORD),
            (name, "not the password"),
            (name, "x" * 5000),
            ("nobody-at-all", PASSWORD),
            ("\u2603", PASSWORD),
            (disabled, PASSWORD),
            *[(name, PASSWORD)] * 3,
        ):
            before = hasher.checks
            form = {"username": username, "password": password}
            answer = await client.post("/api/v1/auth/login", data=form)
            outcomes.append((answer.status_code, hasher.checks - before))
        await app.state.cache.close()
        return outcomes


def test_case_084_the_hasher_is_called_once(
    app: FastAPI, hasher: CountingHasher, own_database_url: str
) -> None:
    """Right, wrong, over-long, unknown, impossible, disabled: one check; throttled: none."""
    outcomes = asyncio.run(_session(app, hasher, own_database_url))
    assert [(200, 1)] + [(401, 1)] * 5 == outcomes[:6]
    assert [(200, 1), (200, 1), (429, 0)] == outcomes[6:]


def test_hashes_are_argon2id_at_owasps_floor() -> None:
    """19 MiB, two passes, one lane; the same password never gives the same hash."""

    async def work() -> None:
        hashing = Passwords(1)
        one, two = await hashing.hash(PASSWORD), await hashing.hash(PASSWORD)
        assert one != two
        assert one.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
        assert await hashing.check(PASSWORD, one)
        assert not await hashing.check(PASSWORD, None)
        assert not await hashing.check(PASSWORD + "\0", one)
        assert not await hashing.check("", one)

    asyncio.run(work())


@pytest.mark.parametrize(
    ("password", "fine"),
    [
        ("x7#kQ2!a", True),
        ("x7#kQ2!", False),
        ("é" * 4, True),
        ("a" * 256, True),
        ("a" * 257, False),
        ("é" * 129, False),
        ("password1", False),
        ("PassWord1", False),
        ("some-name", False),
        ("SOME-NAME", False),
        ("some-name1", True),
        ("valence123", False),
        ("alllowercase words", True),
    ],
)
def test_password_policy(password: str, *, fine: bool) -> None:
    """Length in bytes, common ones and the username count; composition does not."""
    assert fine == (weakness(password, "some-name") is None)
