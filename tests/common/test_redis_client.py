"""Redis: timeouts, circuit breaker, scripts that share round trips."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest
from pydantic import SecretStr

from valence_common import redis_client as cache_module
from valence_common.problems import Unavailable
from valence_common.redis_client import RedisClient

NOWHERE = "redis://127.0.0.1:1/0"


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def test_breaker_opens_and_closes(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failure commands fail at once for a second; then one probes, and closes it."""

    async def work() -> None:
        cache = RedisClient(SecretStr(NOWHERE), timeout=0.2)
        with pytest.raises(Unavailable):
            await cache.script("return 1").run(["key"], [])
        good = RedisClient(SecretStr(redis_url), timeout=2)
        cache.client = good.client
        with pytest.raises(Unavailable):  # though Redis would answer
            await cache.script("return 1").run(["key"], [])
        now = cache_module.time.monotonic()
        with monkeypatch.context() as later:
            later.setattr(cache_module.time, "monotonic", lambda: now + 1.1)
            assert 1 == await cache.script("return 1").run(["key"], [])
        assert 1 == await cache.script("return 1").run(["key"], [])  # closed by the answer
        await good.close()

    _run(work())


def test_ping_closes_the_breaker(redis_url: str) -> None:
    """A successful ping lets commands pass again."""

    async def work() -> None:
        cache = RedisClient(SecretStr(NOWHERE), timeout=0.2)
        with pytest.raises(Unavailable):
            await cache.script("return 1").run(["key"], [])
        good = RedisClient(SecretStr(redis_url), timeout=2)
        cache.client = good.client
        assert await cache.ping()
        assert 1 == await cache.script("return 1").run(["key"], [])
        await good.close()

    _run(work())


def test_silent_redis_costs_one_timeout() -> None:
    """A server that accepts and never answers is waited for once, without a retry."""

    async def work() -> None:
        tries = 0

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal tries
            tries += 1
            await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        cache = RedisClient(SecretStr(f"redis://127.0.0.1:{port}"), timeout=0.2)
        loop = asyncio.get_running_loop()
        started = loop.time()
        for _ in range(50):
            with pytest.raises(Unavailable):
                await cache.script("return 1").run(["key"], [])
        assert 0.1 < loop.time() - started < 0.9
        assert 1 == tries
        assert not await cache.ping()
        await cache.close()
        server.close()

    _run(work())


def test_busy_loop_is_no_outage(redis_url: str) -> None:
    """A process that is late to read an answer does not treat Redis as down."""

    async def work() -> None:
        cache = RedisClient(SecretStr(redis_url), timeout=0.1)
        loop = asyncio.get_running_loop()

        def burden() -> None:
            time.sleep(0.06)  # what 100 requests at once cost in each turn of the loop
            nonlocal busy
            busy = loop.call_soon(burden)

        busy = loop.call_soon(burden)
        for _ in range(3):
            assert 1 == await cache.script("return 1").run(["key"], [])
            await cache.client.connection_pool.disconnect()
        busy.cancel()
        await cache.close()

    _run(work())


def test_concurrent_calls_share_round_trips(redis_url: str) -> None:
    """A thousand calls get their own results, over one connection."""

    async def work() -> None:
        cache = RedisClient(SecretStr(redis_url), timeout=5)
        script = cache.script("return {KEYS[1], ARGV[1]}")
        runs = [script.run([f"key-{n}"], [n]) for n in range(1000)]
        assert [[f"key-{n}", str(n)] for n in range(1000)] == await asyncio.gather(*runs)
        clients = await cache.client.client_list()
        ours = cache.client.connection_pool._available_connections
        assert 1 == len(ours), clients
        await cache.close()

    _run(work())


def test_failing_call_does_not_affect_others(redis_url: str) -> None:
    """A call that fails in the script is unavailable; those in the same pipeline succeed."""

    async def work() -> None:
        cache = RedisClient(SecretStr(redis_url), timeout=5)
        script = cache.script("return tonumber(ARGV[1]) + 1")
        runs = [script.run(["key"], [argument]) for argument in (1, "odd", 3)]
        one, odd, three = await asyncio.gather(*runs, return_exceptions=True)
        assert (2, 4) == (one, three)
        assert isinstance(odd, Unavailable)
        await cache.close()

    _run(work())


def test_script_is_loaded_again(redis_url: str) -> None:
    """After a restart of Redis, or SCRIPT FLUSH, calls still succeed."""

    async def work() -> None:
        cache = RedisClient(SecretStr(redis_url), timeout=5)
        script = cache.script("return redis.call('INCR', KEYS[1])")
        await cache.client.delete("valence:test:forgot")
        assert 1 == await script.run(["valence:test:forgot"], [])
        await cache.client.script_flush()
        runs = [script.run(["valence:test:forgot"], []) for _ in range(3)]
        assert [2, 3, 4] == await asyncio.gather(*runs)
        await cache.client.delete("valence:test:forgot")
        await cache.close()

    _run(work())


def test_cancelled_call_does_not_affect_others(redis_url: str) -> None:
    """The result of a cancelled call is dropped; the others get their own."""

    async def work() -> None:
        cache = RedisClient(SecretStr(redis_url), timeout=5)
        script = cache.script("return ARGV[1]")
        tasks = [asyncio.create_task(script.run(["key"], [n])) for n in range(5)]
        await asyncio.sleep(0)
        tasks[2].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert ["0", "1", "3", "4"] == [answers[n] for n in (0, 1, 3, 4)]
        await cache.close()

    _run(work())
