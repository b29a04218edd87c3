"""Turns: how many do something dear at once in a process, refused beyond that or waited for."""

import asyncio
import contextlib
import contextvars
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from valence_common.problems import TooManyRequests, Unavailable

P = ParamSpec("P")
T = TypeVar("T")


class ConcurrencyLimit:
    """At most `at_once` in one process, and `each` of one user; who gets none is refused."""

    def __init__(self, *, max_total: int, per_user: int = 1, retry_after: int = 30) -> None:
        """Who is refused is told to come back after `retry_seconds`."""
        self._at_once, self._each = max_total, per_user
        self._retry_seconds = retry_after
        self._taken: Counter[uuid.UUID] = Counter()

    @contextlib.contextmanager
    def slot(self, user_id: uuid.UUID) -> Iterator[None]:
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


class TimedSemaphore:
    """At most `at_once` in one process; the others stand in line for `patience` seconds."""

    def __init__(self, name: str, *, timeout: float, limit: int = 1) -> None:
        """`name` is what is not available to who waited in vain."""
        self._name, self._patience = name, timeout
        self._turns = asyncio.Semaphore(limit)

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
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


class ThreadPool:
    """`size` threads and no queue behind them but callers that wait at most `wait` seconds."""

    def __init__(self, name: str, size: int, *, timeout: float):
        self.name = name
        self.timeout = timeout
        self._executor = ThreadPoolExecutor(size, thread_name_prefix=name)
        self._slots = asyncio.Semaphore(size)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run blocking `work` in a thread; raises `Unavailable` when none comes free in time."""
        return await (await self.start(work, *args, **kwargs))

    async def start(
        self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[T]:
        """Start blocking `work` in a thread; raises `Unavailable` when none comes free in time."""
        try:
            async with asyncio.timeout(self.timeout):
                await self._slots.acquire()
        except TimeoutError:
            raise Unavailable(self.name) from None
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        future = self._executor.submit(lambda: context.run(work, *args, **kwargs))
        # The slot belongs to the thread, not to a caller that may have gone away.
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._slots.release))
        return asyncio.wrap_future(future)

    def close(self) -> None:
        """Wait for what runs."""
        self._executor.shutdown(wait=True, cancel_futures=True)
