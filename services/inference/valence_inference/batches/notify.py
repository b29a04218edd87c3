"""The doorbell as async code rings it."""

from valence_common.celery_app import Doorbell
from valence_common.concurrency import ThreadPool
from valence_common.problems import Unavailable

MAX_RINGS = 8
"""Enough to wake a small fleet; the worker's sweeper wakes the rest within its interval."""


class AsyncDoorbell:
    """Rings the doorbell in one thread; gives up if the thread is not free within `timeout`."""

    def __init__(self, doorbell: Doorbell, *, timeout: float):
        self._doorbell = doorbell
        self._threads = ThreadPool("doorbell", 1, timeout=timeout)

    async def ring(self, chunks: int) -> None:
        """Notify up to `chunks` worker processes; a lost notification only delays the work."""
        try:
            await self._threads.run(self._doorbell.ring, min(chunks, MAX_RINGS))
        except Unavailable:
            return
