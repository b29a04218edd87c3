"""Passwords: argon2id off the event loop, never more at once than there are cores.

Every check costs one hash, whether the account exists or not, so that time tells nothing. Hashes
of another kind, or a weaker one, cost what they cost until their owner's next login replaces them.
"""

import os
from contextlib import suppress
from typing import Any, NamedTuple

from passlib.hash import argon2, pbkdf2_sha256
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from valence_common.concurrency import ThreadPool, TimedSemaphore

MIN_BYTES, MAX_BYTES = 8, 256
WAIT_SECONDS = 5.0

# OWASP's floor for argon2id: 19 MiB, two passes, one lane (Password Storage Cheat Sheet).
MEMORY_KIBIBYTES, PASSES = 19 * 1024, 2

_argon2id = argon2.using(type="ID", memory_cost=MEMORY_KIBIBYTES, time_cost=PASSES, parallelism=1)

_COMMON = frozenset(word for word in FREQUENCY_LISTS["passwords"] if len(word) >= MIN_BYTES)


def weakness(password: str, username: str) -> str | None:
    """Why a password may not be chosen, as a sentence; None when it may."""
    size = len(password.encode())
    if not MIN_BYTES <= size <= MAX_BYTES:
        return f"must be {MIN_BYTES} to {MAX_BYTES} bytes long in UTF-8"
    plain = password.casefold()
    if plain in _COMMON or plain in {username.casefold(), "valence1", "valence123"}:
        return "is too common or too close to the username"
    return None


class Check(NamedTuple):
    """True if a password matched; then `rehashed` replaces a hash that is too weak by now."""

    matches: bool
    rehashed: str | None = None

    def __bool__(self) -> bool:
        return self.matches


class Passwords:
    """Hashes and checks passwords in a bounded set of threads."""

    def __init__(self, hashers: int):
        size = hashers or os.cpu_count() or 1
        self._threads = ThreadPool("hasher", size, timeout=WAIT_SECONDS)
        # Whoever only registers leaves room for those who log in.
        self._newcomers = TimedSemaphore("hasher", timeout=WAIT_SECONDS, limit=max(1, size // 2))
        self._nobody: str = _argon2id.hash(os.urandom(16).hex())

    async def hash(self, password: str) -> str:
        """A new password's argon2id hash; raises `Unavailable` when too many are waiting."""
        async with self._newcomers.slot():
            return await self._threads.run(_argon2id.hash, password)

    async def check(self, password: str, hashed: str | None) -> Check:
        """Whether the password matches; with `hashed` None the same work is done for nothing."""
        return await self._threads.run(self._check, password, hashed)

    def _check(self, password: str, hashed: str | None) -> Check:
        kept = _read(hashed)
        if kept is None or len(password.encode()) > MAX_BYTES:
            _argon2id.verify("", self._nobody)
            return Check(matches=False)
        scheme = _argon2id if isinstance(kept, argon2) else pbkdf2_sha256
        if not scheme.verify(password, hashed):
            return Check(matches=False)
        return Check(matches=True, rehashed=_argon2id.hash(password) if _is_weak(kept) else None)


def _read(hashed: str | None) -> Any:
    """The hash taken apart; None when there is none, or none that can be checked."""
    for scheme in (argon2, pbkdf2_sha256):
        with suppress(ValueError):
            if hashed is not None:
                return scheme.from_string(hashed)
    return None


def _is_weak(kept: Any) -> bool:
    if not isinstance(kept, argon2):
        return True
    return bool(kept.type != "id" or kept.memory_cost < MEMORY_KIBIBYTES or kept.rounds < PASSES)
