"""Redis with real timeouts: one command, one try, and a breaker after a failure.

Redis is a doorbell and a cache. Nobody may wait for it: a command gets `timeout` seconds once, and
after a failure the next ones fail at once for a second, so that a frozen server costs little.
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

from pydantic import SecretStr
from redis import Redis as BlockingRedis
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError
from redis.retry import Retry as BlockingRetry

from valence_common.problems import Unavailable
from valence_common.timeouts import sliced_timeout

BREAKER_SECONDS = 1.0
MAX_CONNECTIONS = 8  # a script's runs share one
MAX_PIPELINE = 200

T = TypeVar("T")


class RedisClient:
    """A Redis client for one event loop."""

    def __init__(self, url: SecretStr, *, timeout: float):
        self._timeout = timeout
        pool = BlockingConnectionPool.from_url(
            url.get_secret_value(),
            max_connections=MAX_CONNECTIONS,
            timeout=None,  # `within` is the timeout of all that a command waits for
            socket_timeout=None,
            socket_connect_timeout=None,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )
        self.client: Redis = Redis.from_pool(pool)
        self._open_until = 0.0

    async def execute(self, command: Awaitable[T]) -> T:
        """Await one command; raises `Unavailable` when Redis does not answer in time."""
        now = time.monotonic()
        if now < self._open_until:
            _close_coroutine(command)
            raise Unavailable("redis")
        if self._open_until:
            self._open_until = now + BREAKER_SECONDS  # one tries; the others do not wait with it
        try:
            answer = await sliced_timeout(self._timeout, command)
        except (RedisError, OSError, TimeoutError) as error:
            self._open_until = time.monotonic() + BREAKER_SECONDS
            raise Unavailable("redis") from error
        self._open_until = 0.0
        return answer

    def script(self, source: str) -> "Script":
        """A Lua script to be run through `Script.run`."""
        return Script(self, source)

    async def ping(self) -> bool:
        """Whether Redis answers now; asks past the breaker, and closes it on an answer."""
        try:
            await sliced_timeout(self._timeout, self.client.ping())
        except (RedisError, OSError, TimeoutError):
            return False
        self._open_until = 0.0
        return True

    async def close(self) -> None:
        """Close the connections."""
        await self.client.aclose()


def blocking_client(url: SecretStr, *, timeout: float) -> BlockingRedis:
    """A client for one thread that may wait `timeout` seconds, once, for each answer."""
    return BlockingRedis.from_url(
        url.get_secret_value(),
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=BlockingRetry(NoBackoff(), 0),
        decode_responses=True,
    )


class Script:
    """A Lua script, atomic, and known to Redis by its hash.

    Runs that come while others are under way wait for these and then go together, in one round
    trip: a busy process asks with few large messages instead of many connections.
    """

    def __init__(self, cache: RedisClient, source: str):
        self._cache = cache
        self._source = source
        self._sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
        self._waiting: list[tuple[_Run, asyncio.Future[Any]]] = []
        self._sender: asyncio.Task[None] | None = None

    async def run(self, keys: Sequence[str], arguments: Sequence[float | str]) -> Any:
        """Run it; raises `Unavailable` when Redis does not answer in time."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._waiting.append(((len(keys), *keys, *arguments), answer))
        if self._sender is None or self._sender.done():
            self._sender = loop.create_task(self._send())
        return await answer

    async def _send(self) -> None:
        while self._waiting:
            some = self._waiting[:MAX_PIPELINE]
            del self._waiting[:MAX_PIPELINE]
            try:
                answers = await self._cache.execute(self._evaluate([run for run, _ in some]))
            except Unavailable as error:
                answers = [error] * len(some)
            for (_, waiting), answer in zip(some, answers, strict=True):
                if waiting.done():
                    continue  # nobody waits any more
                if isinstance(answer, Exception):
                    waiting.set_exception(Unavailable("redis"))
                else:
                    waiting.set_result(answer)

    async def _evaluate(self, runs: "Sequence[_Run]") -> list[Any]:
        answers = await self._evaluate_known(runs)
        if any(isinstance(answer, NoScriptError) for answer in answers):
            await self._cache.client.script_load(self._source)
            unknown = [n for n, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            again = await self._evaluate_known([runs[n] for n in unknown])
            for n, answer in zip(unknown, again, strict=True):
                answers[n] = answer
        return answers

    async def _evaluate_known(self, runs: "Sequence[_Run]") -> list[Any]:
        pipeline = self._cache.client.pipeline(transaction=False)
        for run in runs:
            pipeline.execute_command("EVALSHA", self._sha, *run)
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers


_Run = tuple[float | str, ...]


def _close_coroutine(command: Awaitable[Any]) -> None:
    """Close a coroutine that will not be awaited, so that Python does not warn."""
    close = getattr(command, "close", None)
    if close is not None:
        close()
