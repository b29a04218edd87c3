"""Passwords: policy, hashes, and the number of threads."""

import asyncio
import threading
from pathlib import Path

import pytest
from passlib.hash import argon2, pbkdf2_sha256

from valence_auth import passwords
from valence_auth.passwords import Check, Passwords, password_error
from valence_common.problems import Unavailable

PASSWORD = "correct horse battery staple"


def _check(password: str, hashed: str | None) -> Check:
    return asyncio.run(Passwords(1).check(password, hashed))


def test_hashes_are_argon2id_at_owasps_minimum() -> None:
    """19 MiB, two passes, one lane; hashes of the same password differ."""

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
    """Length in bytes, common passwords and the username count; composition does not."""
    assert fine == (password_error(password, "some-name") is None)


@pytest.mark.parametrize(
    ("hashed", "weak"),
    [
        (argon2.using(type="ID", memory_cost=19456, time_cost=2, parallelism=1), False),
        (argon2.using(type="ID", memory_cost=32768, time_cost=3, parallelism=2), False),
        (argon2.using(type="ID", memory_cost=8192, time_cost=2, parallelism=1), True),
        (argon2.using(type="ID", memory_cost=19456, time_cost=1, parallelism=1), True),
        (argon2.using(type="I", memory_cost=19456, time_cost=2, parallelism=1), True),
        (pbkdf2_sha256.using(rounds=29000), True),
    ],
    ids=["floor", "stronger", "less memory", "fewer passes", "argon2i", "pbkdf2"],
)
def test_case_087_weak_hashes_are_replaced(hashed: type, *, weak: bool) -> None:
    """A matching password of an old hash returns a new hash; a wrong one never does."""
    old = hashed.hash(PASSWORD)
    check = _check(PASSWORD, old)
    assert check
    assert weak == (check.rehashed is not None)
    if check.rehashed is not None:
        assert check.rehashed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
        assert Check(matches=True) == _check(PASSWORD, check.rehashed)
    assert Check(matches=False) == _check(PASSWORD + " ", old)


@pytest.mark.parametrize(
    "hashed",
    ["", "!", "plain", PASSWORD, "$argon2id$", "$argon2id$v=19$m=1,t=2$zz", "$2b$12$x", "\u00e9"],
)
def test_malformed_hash_matches_nothing(hashed: str) -> None:
    """A stored value that cannot be parsed is an account without a password, not an error."""
    assert not _check(PASSWORD, hashed)
    assert not _check("", hashed)


class Hasher:
    """Blocks until it is released, and counts its callers."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.busy = threading.Semaphore(0)

    def hash(self, password: str) -> str:
        self.busy.release()
        assert self.go.wait(10)
        return password

    def verify(self, password: str, hashed: str) -> bool:
        return password == hashed


def test_registrations_leave_threads_for_logins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the threads always check passwords; a caller that waits too long gets a 503."""
    monkeypatch.setattr(passwords, "TIMEOUT_SECONDS", 0.2)

    async def work() -> None:
        hashing = Passwords(2)
        hasher = Hasher()
        monkeypatch.setattr(passwords, "_argon2id", hasher)
        registrations = [asyncio.create_task(hashing.hash(f"password {n}")) for n in range(20)]
        await asyncio.to_thread(hasher.busy.acquire)
        for _ in range(5):
            assert not await asyncio.wait_for(hashing.check(PASSWORD, None), 2)
        done, waiting = await asyncio.wait(registrations, timeout=2, return_when="ALL_COMPLETED")
        assert (19, 1) == (len(done), len(waiting))
        assert {Unavailable} == {type(task.exception()) for task in done}
        hasher.go.set()
        assert "password 0" == await asyncio.wait_for(waiting.pop(), 2)

    asyncio.run(work())


@pytest.mark.parametrize(
    ("content", "cores"),
    [
        ("max 100000\n", 64),
        ("100000 100000\n", 1),
        ("150000 100000\n", 2),
        ("6400000 100000\n", 64),
    ],
)
def test_threads_respect_the_cpu_limit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str, cores: int
) -> None:
    """In a container on a large node, 64 threads of 19 MiB would exceed its memory limit."""
    monkeypatch.setattr(passwords.os, "cpu_count", lambda: 64)
    quota = tmp_path / "cpu.max"
    assert 64 == passwords.available_cores(quota)
    quota.write_text(content)
    assert cores == passwords.available_cores(quota)
