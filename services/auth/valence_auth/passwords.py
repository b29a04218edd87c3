"""Passwords: argon2id in a thread pool, with no more threads than cores.

Every check costs one hash, whether the account exists or not, so that timing discloses nothing. An
older or weaker hash costs its own time until the user's next login replaces it.
"""

import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from passlib.hash import argon2, pbkdf2_sha256
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from valence_common.concurrency import ThreadPool, TimedSemaphore

MIN_BYTES, MAX_BYTES = 8, 256
TIMEOUT_SECONDS = 5.0

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""The CPU limit of a container (cgroup v2): a quota and a period in microseconds, or `max`."""

# OWASP's minimum for argon2id: 19 MiB, two passes, one lane (Password Storage Cheat Sheet).
MEMORY_KIBIBYTES, PASSES = 19 * 1024, 2

_argon2id = argon2.using(type="ID", memory_cost=MEMORY_KIBIBYTES, time_cost=PASSES, parallelism=1)

_COMMON = frozenset(word for word in FREQUENCY_LISTS["passwords"] if len(word) >= MIN_BYTES)


def password_error(password: str, username: str) -> str | None:
    """Return why a password is not acceptable, as the end of a sentence, or None."""
    size = len(password.encode())
    if not MIN_BYTES <= size <= MAX_BYTES:
        return f"must be {MIN_BYTES} to {MAX_BYTES} bytes long in UTF-8"
    folded = password.casefold()
    if folded in _COMMON or folded in {username.casefold(), "valence1", "valence123"}:
        return "is too common or too close to the username"
    return None


class Check(NamedTuple):
    """Whether a password matches; if so, `rehashed` is to replace a hash that is too weak."""

    matches: bool
    rehashed: str | None = None

    def __bool__(self) -> bool:
        return self.matches


class Passwords:
    """Hashes and checks passwords in a thread pool."""

    def __init__(self, hashers: int):
        """`hashers` is the number of threads; 0 is one for each available core."""
        size = hashers or available_cores()
        self._threads = ThreadPool("hasher", size, timeout=TIMEOUT_SECONDS)
        # New passwords use at most half of the threads, so that registrations do not block logins.
        self._hashing = TimedSemaphore("hasher", timeout=TIMEOUT_SECONDS, limit=max(1, size // 2))
        self._dummy_hash: str = _argon2id.hash(os.urandom(16).hex())

    async def hash(self, password: str) -> str:
        """Return a new password's argon2id hash; raise `Unavailable` after the timeout."""
        async with self._hashing.slot():
            return await self._threads.run(_argon2id.hash, password)

    async def check(self, password: str, hashed: str | None) -> Check:
        """Check a password; without `hashed` do the same work and return a mismatch."""
        return await self._threads.run(self._check, password, hashed)

    def _check(self, password: str, hashed: str | None) -> Check:
        parsed = _parse(hashed)
        if parsed is None or len(password.encode()) > MAX_BYTES:
            _argon2id.verify("", self._dummy_hash)
            return Check(matches=False)
        scheme = _argon2id if isinstance(parsed, argon2) else pbkdf2_sha256
        if not scheme.verify(password, hashed):
            return Check(matches=False)
        return Check(matches=True, rehashed=_argon2id.hash(password) if _is_weak(parsed) else None)


def available_cores(quota: Path = CPU_QUOTA) -> int:
    """Return the cores that this process may use: at most its container's CPU limit.

    `os.cpu_count` alone would be that of the node: a pod would start a thread, with 19 MiB, for
    each of the node's cores.
    """
    cores = os.cpu_count() or 1
    with suppress(OSError, ValueError):  # no cgroup v2, or the quota is `max`
        microseconds, period = map(int, quota.read_text().split())
        cores = min(cores, max(1, math.ceil(microseconds / period)))
    return cores


def _parse(hashed: str | None) -> Any:
    """Parse a hash; return None if there is none, or its scheme is unknown."""
    for scheme in (argon2, pbkdf2_sha256):
        with suppress(ValueError):
            if hashed is not None:
                return scheme.from_string(hashed)
    return None


def _is_weak(parsed: Any) -> bool:
    if not isinstance(parsed, argon2):
        return True
    return bool(
        parsed.type != "id" or parsed.memory_cost < MEMORY_KIBIBYTES or parsed.rounds < PASSES
    )
