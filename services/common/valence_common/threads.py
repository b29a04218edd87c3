"""A bounded set of threads for blocking work: who finds no free one in time is told so at once."""

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from valence_common.problems import Unavailable

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """`size` threads and no queue behind them but callers that wait at most `wait` seconds."""

    def __init__(self, name: str, size: int, *, wait: float):
        self.name = name
        self.wait = wait
        self._executor = ThreadPoolExecutor(size, thread_name_prefix=name)
        self._slots = asyncio.Semaphore(size)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run blocking `work` in a thread; raises `Unavailable` when none comes free in time."""
        try:
            async with asyncio.timeout(self.wait):
                await self._slots.acquire()
        except TimeoutError:
            raise Unavailable(self.name) from None
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        future = self._executor.submit(lambda: context.run(work, *args, **kwargs))
        # The slot belongs to the thread, not to a caller that may have gone away.
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._slots.release))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Wait for what runs."""
        self._executor.shutdown(wait=True, cancel_futures=True)
