"""Concurrency limits of one process: reject at once, wait for a slot, or run in bounded threads."""

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
    """At most `max_total` units in use at once, and `per_user` by one user; never waits."""

    def __init__(
        self,
        *,
        max_total: int,
        per_user: int = 1,
        retry_after: int = 30,
        dependency: str | None = None,
    ) -> None:
        """`retry_after` is the `Retry-After` of the 429, in seconds.

        With `dependency`, exhaustion by other users is a 503 of that name instead.
        """
        self._max_total, self._per_user = max_total, per_user
        self._retry_after, self._dependency = retry_after, dependency
        self._used: Counter[uuid.UUID] = Counter()

    def acquire(self, user_id: uuid.UUID, units: int = 1) -> None:
        """Take units; raise `TooManyRequests`, or `Unavailable`, when too few are free."""
        if self._used[user_id] + units > self._per_user:
            raise TooManyRequests(self._retry_after)
        if self._used.total() + units > self._max_total:
            if self._dependency is not None:
                raise Unavailable(self._dependency)
            raise TooManyRequests(self._retry_after)
        self._used[user_id] += units

    def release(self, user_id: uuid.UUID, units: int = 1) -> None:
        """Return units."""
        self._used[user_id] -= units
        self._used += Counter()  # drops users without units

    @contextlib.contextmanager
    def slot(self, user_id: uuid.UUID) -> Iterator[None]:
        """Hold one unit; raise what `acquire` raises."""
        self.acquire(user_id)
        try:
            yield
        finally:
            self.release(user_id)


class TimedSemaphore:
    """At most `limit` holders in this process; others wait up to `timeout` seconds."""

    def __init__(self, name: str, *, timeout: float, limit: int = 1) -> None:
        """`name` is the dependency reported in the 503."""
        self.name = name
        self.timeout = timeout
        self._semaphore = asyncio.Semaphore(limit)

    async def acquire(self) -> None:
        """Wait for a slot; raise `Unavailable` after the timeout."""
        try:
            async with asyncio.timeout(self.timeout):
                await self._semaphore.acquire()
        except TimeoutError:
            raise Unavailable(self.name) from None

    def release(self) -> None:
        """Return a slot; for the event loop's thread."""
        self._semaphore.release()

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold a slot; raise `Unavailable` when none became free in time."""
        await self.acquire()
        try:
            yield
        finally:
            self.release()


class ThreadPool:
    """`size` threads for blocking work; callers wait up to `timeout` seconds for a free one."""

    def __init__(self, name: str, size: int, *, timeout: float):
        """`name` is the dependency reported in the 503."""
        self._slots = TimedSemaphore(name, timeout=timeout, limit=size)
        self._executor = ThreadPoolExecutor(size, thread_name_prefix=name)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run blocking `work` in a thread; raise `Unavailable` when none became free in time."""
        return await (await self.start(work, *args, **kwargs))

    async def start(
        self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[T]:
        """Start blocking `work` in a thread; raise `Unavailable` when none became free in time."""
        await self._slots.acquire()
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        future = self._executor.submit(lambda: context.run(work, *args, **kwargs))
        # The slot belongs to the thread: a cancelled caller leaves it occupied.
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._slots.release))
        return asyncio.wrap_future(future)

    def close(self) -> None:
        """Wait for running work."""
        self._executor.shutdown(wait=True, cancel_futures=True)
