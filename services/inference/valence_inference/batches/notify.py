"""Ringing for workers from the event loop: soon, or not at all."""

from valence_common.celery_app import Doorbell
from valence_common.concurrency import ThreadPool
from valence_common.problems import Unavailable

MAX_RINGS = 8
"""Enough to wake a small fleet; the sweeper wakes the rest within its interval."""


class AsyncDoorbell:
    """Rings the doorbell in one thread; who does not get it in time goes on without."""

    def __init__(self, doorbell: Doorbell, *, timeout: float):
        self._doorbell = doorbell
        self._threads = ThreadPool("doorbell", 1, timeout=timeout)

    async def ring(self, chunks: int) -> None:
        """Tell workers that there are chunks; it does no harm if nobody hears."""
        try:
            await self._threads.run(self._doorbell.ring, min(chunks, MAX_RINGS))
        except Unavailable:
            return
