"""Short timeouts that a busy event loop does not shorten."""

import asyncio
from collections.abc import Awaitable
from typing import Final, TypeVar

T = TypeVar("T")

SLICES: Final = 20


async def sliced_timeout(seconds: float, work: Awaitable[T]) -> T:
    """Return the result of `work`; after `seconds` cancel it and raise `TimeoutError`.

    The timeout is counted in 20 slices of loop time. A busy loop is late to read an answer that has
    arrived, and a new connection needs several iterations of the loop; no iteration counts for more
    than one slice.
    """
    task = asyncio.ensure_future(work)
    try:
        for _ in range(SLICES):
            done, _ = await asyncio.wait({task}, timeout=seconds / SLICES)
            if done:
                return await task
        raise TimeoutError
    finally:
        task.cancel()
