"""Passwords: argon2id off the event loop, never more at once than there are cores.

Every check costs one hash, whether the account exists or not, so that time tells nothing.
"""

import os

from passlib.hash import argon2
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from valence_common.threads import Threads

MIN_BYTES, MAX_BYTES = 8, 256
WAIT_SECONDS = 5.0

# OWASP's floor for argon2id: 19 MiB, two passes, one lane (Password Storage Cheat Sheet).
_argon2id = argon2.using(type="ID", memory_cost=19 * 1024, time_cost=2, parallelism=1)

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


class Passwords:
    """Hashes and checks passwords in a bounded set of threads."""

    def __init__(self, hashers: int):
        self._threads = Threads("hasher", hashers or os.cpu_count() or 1, wait=WAIT_SECONDS)
        self._nobody: str = _argon2id.hash(os.urandom(16).hex())

    async def hash(self, password: str) -> str:
        """The password's argon2id hash."""
        return await self._threads.run(_argon2id.hash, password)

    async def check(self, password: str, hashed: str | None) -> bool:
        """Whether the password matches; with `hashed` None the same work is done for nothing."""
        too_long = len(password.encode()) > MAX_BYTES
        subject = "" if too_long else password
        matches = await self._threads.run(_argon2id.verify, subject, hashed or self._nobody)
        return matches and hashed is not None and not too_long
