"""Redis with strict timeouts: each command is tried once, and a circuit breaker follows a failure.

Redis holds only limits and wake-up messages, so no request may wait long for it. A command has
`timeout` seconds. After a failure all commands fail at once for a second, so a frozen server costs
little.
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
MAX_CONNECTIONS = 8  # the calls of a script share one
MAX_PIPELINE = 200

T = TypeVar("T")


class RedisClient:
    """A Redis client for one event loop."""

    def __init__(self, url: SecretStr, *, timeout: float):
        self._timeout = timeout
        pool = BlockingConnectionPool.from_url(
            url.get_secret_value(),
            max_connections=MAX_CONNECTIONS,
            timeout=None,  # `sliced_timeout` covers everything that a command waits for
            socket_timeout=None,
            socket_connect_timeout=None,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )
        self.client: Redis = Redis.from_pool(pool)
        self._open_until = 0.0

    async def execute(self, command: Awaitable[T]) -> T:
        """Await one command; raise `Unavailable` when Redis does not answer in time."""
        now = time.monotonic()
        if now < self._open_until:
            _close_coroutine(command)
            raise Unavailable("redis")
        if self._open_until:
            self._open_until = now + BREAKER_SECONDS  # one command probes, the others fail
        try:
            answer = await sliced_timeout(self._timeout, command)
        except (RedisError, OSError, TimeoutError) as error:
            self._open_until = time.monotonic() + BREAKER_SECONDS
            raise Unavailable("redis") from error
        self._open_until = 0.0
        return answer

    def script(self, source: str) -> "Script":
        """Return a Lua script, to be run with `Script.run`."""
        return Script(self, source)

    async def ping(self) -> bool:
        """Return whether Redis answers now; ignores an open breaker, and closes it on success."""
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
    """Return a blocking client for one thread: one try a command, with a timeout in seconds."""
    return BlockingRedis.from_url(
        url.get_secret_value(),
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=BlockingRetry(NoBackoff(), 0),
        decode_responses=True,
    )


class Script:
    """A Lua script, executed atomically and sent to Redis by its hash.

    Calls that arrive during a round trip wait for it and then share the next one. So a busy process
    sends few large messages instead of opening many connections.
    """

    def __init__(self, redis: RedisClient, source: str):
        self._redis = redis
        self._source = source
        self._sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
        self._queue: list[tuple[_Call, asyncio.Future[Any]]] = []
        self._sender: asyncio.Task[None] | None = None

    async def run(self, keys: Sequence[str], arguments: Sequence[float | str]) -> Any:
        """Return the script's result; raise `Unavailable` when Redis does not answer in time."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Any] = loop.create_future()
        self._queue.append(((len(keys), *keys, *arguments), result))
        if self._sender is None or self._sender.done():
            self._sender = loop.create_task(self._send())
        return await result

    async def _send(self) -> None:
        while self._queue:
            calls = self._queue[:MAX_PIPELINE]
            del self._queue[:MAX_PIPELINE]
            try:
                answers = await self._redis.execute(self._evaluate([call for call, _ in calls]))
            except Unavailable as error:
                answers = [error] * len(calls)
            for (_, result), answer in zip(calls, answers, strict=True):
                if result.done():
                    continue  # the caller was cancelled
                if isinstance(answer, Exception):
                    result.set_exception(Unavailable("redis"))
                else:
                    result.set_result(answer)

    async def _evaluate(self, calls: "Sequence[_Call]") -> list[Any]:
        answers = await self._evaluate_by_hash(calls)
        if any(isinstance(answer, NoScriptError) for answer in answers):
            await self._redis.client.script_load(self._source)
            failed = [n for n, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            retried = await self._evaluate_by_hash([calls[n] for n in failed])
            for n, answer in zip(failed, retried, strict=True):
                answers[n] = answer
        return answers

    async def _evaluate_by_hash(self, calls: "Sequence[_Call]") -> list[Any]:
        pipeline = self._redis.client.pipeline(transaction=False)
        for call in calls:
            pipeline.execute_command("EVALSHA", self._sha, *call)
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers


_Call = tuple[float | str, ...]


def _close_coroutine(command: Awaitable[Any]) -> None:
    """Close a coroutine that is not awaited, or Python would warn."""
    close = getattr(command, "close", None)
    if close is not None:
        close()
