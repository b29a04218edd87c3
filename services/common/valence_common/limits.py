"""Limits on how often: counted in Redis in one step, or in this process while Redis is away.

A window starts with the first attempt and ends `seconds` later; attempts over the limit are
refused until then. The local fallback keeps each process strict on its own.
"""

import math
import time
from typing import NamedTuple

from valence_common.cache import Cache
from valence_common.problems import TooManyRequests, Unavailable

MAX_LOCAL_KEYS = 10_000

# One step, so that no counter is ever left without an end (INCR, then a crash before EXPIRE).
_COUNT = """
local count = redis.call('INCR', KEYS[1])
if count == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return {count, redis.call('PTTL', KEYS[1])}
"""


class Window(NamedTuple):
    """At most `limit` attempts in `seconds`, per key."""

    name: str
    limit: int
    seconds: int


class Limiter:
    """Counts attempts against windows."""

    def __init__(self, cache: Cache):
        self._cache = cache
        self._local: dict[str, tuple[int, float]] = {}

    async def count(self, window: Window, key: str) -> None:
        """Count one attempt; raises `TooManyRequests` when it is over the window's limit."""
        name = f"valence:limit:{window.name}:{key}"
        try:
            count, left = await self._cache.script(_COUNT, name, window.seconds * 1000)
            seconds = left / 1000
        except Unavailable:
            count, seconds = self._count_locally(name, window.seconds)
        if count > window.limit:
            reset = max(1, math.ceil(seconds))
            raise TooManyRequests(
                reset,
                headers={
                    "RateLimit-Policy": f'"{window.name}";q={window.limit};w={window.seconds}',
                    "RateLimit": f'"{window.name}";r=0;t={reset}',
                },
            )

    def _count_locally(self, name: str, seconds: int) -> tuple[int, float]:
        now = time.monotonic()
        if len(self._local) >= MAX_LOCAL_KEYS:
            self._local = {k: v for k, v in self._local.items() if v[1] > now}
        count, ends = self._local.get(name, (0, 0.0))
        if ends <= now:
            count, ends = 0, now + seconds
        if len(self._local) < MAX_LOCAL_KEYS or name in self._local:
            self._local[name] = (count + 1, ends)
            return count + 1, ends - now
        # Flooded with keys: refuse new ones rather than forget the old.
        return count + MAX_LOCAL_KEYS, float(seconds)
