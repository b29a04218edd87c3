"""Turns: how many do something dear at once in a process, refused beyond that or waited for."""

import asyncio
import contextlib
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator

from valence_common.problems import TooManyRequests, Unavailable


class Turns:
    """At most `at_once` in one process, and `each` of one user; who gets none is refused."""

    def __init__(self, *, at_once: int, each: int = 1, retry_seconds: int = 30) -> None:
        """Who is refused is told to come back after `retry_seconds`."""
        self._at_once, self._each = at_once, each
        self._retry_seconds = retry_seconds
        self._taken: Counter[uuid.UUID] = Counter()

    @contextlib.contextmanager
    def take(self, user_id: uuid.UUID) -> Iterator[None]:
        """A turn; raises `TooManyRequests` when there is none."""
        if self._taken[user_id] >= self._each or self._taken.total() >= self._at_once:
            raise TooManyRequests(self._retry_seconds)
        self._taken[user_id] += 1
        try:
            yield
        finally:
            self._taken[user_id] -= 1
            if not self._taken[user_id]:
                del self._taken[user_id]


class Line:
    """At most `at_once` in one process; the others stand in line for `patience` seconds."""

    def __init__(self, name: str, *, patience: float, at_once: int = 1) -> None:
        """`name` is what is not available to who waited in vain."""
        self._name, self._patience = name, patience
        self._turns = asyncio.Semaphore(at_once)

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn; raises `Unavailable` when none comes."""
        try:
            async with asyncio.timeout(self._patience):
                await self._turns.acquire()
        except TimeoutError:
            raise Unavailable(self._name) from None
        try:
            yield
        finally:
            self._turns.release()
