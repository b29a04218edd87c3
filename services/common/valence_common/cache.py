"""Redis with real timeouts: one command, one try, and a breaker after a failure.

Redis is a doorbell and a cache. Nobody may wait for it: a command gets `timeout` seconds once, and
after a failure the next ones fail at once for a second, so that a frozen server costs little.
"""

import time
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

from pydantic import SecretStr
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from valence_common.problems import Unavailable

BREAKER_SECONDS = 1.0
MAX_CONNECTIONS = 50

T = TypeVar("T")


class Cache:
    """A Redis client for one event loop."""

    def __init__(self, url: SecretStr, *, timeout: float):
        pool = BlockingConnectionPool.from_url(
            url.get_secret_value(),
            max_connections=MAX_CONNECTIONS,
            timeout=timeout,  # who waits longer for a connection is told that Redis is away
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )
        self.client: Redis = Redis.from_pool(pool)
        self._open_until = 0.0

    async def ask(self, command: Awaitable[T]) -> T:
        """Await one command; raises `Unavailable` when Redis does not answer in time."""
        if time.monotonic() < self._open_until:
            _discard(command)
            raise Unavailable("redis")
        try:
            return await command
        except (RedisError, OSError, TimeoutError) as error:
            self._open_until = time.monotonic() + BREAKER_SECONDS
            raise Unavailable("redis") from error

    def script(self, source: str) -> "Script":
        """A Lua script to be run through `Script.run`."""
        return Script(self, source)

    async def ping(self) -> bool:
        """Whether Redis answers now; asks past the breaker, and closes it on an answer."""
        try:
            await self.client.ping()
        except (RedisError, OSError, TimeoutError):
            return False
        self._open_until = 0.0
        return True

    async def close(self) -> None:
        """Close the connections."""
        await self.client.aclose()


class Script:
    """A Lua script: one round trip and atomic; sent once, then known to Redis by its hash."""

    def __init__(self, cache: Cache, source: str):
        self._cache = cache
        self._script = cache.client.register_script(source)

    async def run(self, keys: Sequence[str], arguments: Sequence[float | str]) -> Any:
        """Run it; raises `Unavailable` when Redis does not answer in time."""
        return await self._cache.ask(self._script(keys=keys, args=arguments))


def _discard(command: Awaitable[Any]) -> None:
    """Close a coroutine that will not be awaited, so that Python does not warn."""
    close = getattr(command, "close", None)
    if close is not None:
        close()
