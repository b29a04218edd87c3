"""Short waits for another part, told apart from a busy event loop."""

import asyncio
from collections.abc import Awaitable
from typing import Final, TypeVar

T = TypeVar("T")

SLICES: Final = 20


async def sliced_timeout(seconds: float, work: Awaitable[T]) -> T:
    """What `work` returns or raises; cancelled after `seconds`, which raises `TimeoutError`.

    They are waited in many short pieces. A busy loop comes late to an answer that has long been
    there, and a new connection needs several of its turns: no turn counts for more than a piece.
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
