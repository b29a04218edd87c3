"""Limits: counted in Redis, or in this process while Redis is away."""

import asyncio
import uuid
from collections.abc import Coroutine
from typing import Any

import pytest
from pydantic import SecretStr

from valence_common import cache as cache_module
from valence_common import limits
from valence_common.cache import Cache
from valence_common.limits import Charge, Limiter, Window
from valence_common.problems import TooManyRequests, Unavailable

NOWHERE = "redis://127.0.0.1:1/0"


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


async def _count(limiter: Limiter, window: Window, key: str, times: int) -> list[str]:
    """`ok` or the Retry-After of each attempt."""
    outcomes = []
    for _ in range(times):
        try:
            await limiter.take(Charge(window, key))
        except TooManyRequests as error:
            outcomes.append(error.headers["Retry-After"])
        else:
            outcomes.append("ok")
    return outcomes


@pytest.mark.parametrize("away", [False, True], ids=["redis", "local"])
def test_attempts_over_the_limit_are_refused(redis_url: str, *, away: bool) -> None:
    """Exactly `limit` attempts pass, per key; the rest hear when the window ends."""

    async def work() -> None:
        cache = Cache(SecretStr(NOWHERE if away else redis_url), timeout=0.2)
        limiter, window = Limiter(cache), Window("test", 3, 60)
        key, other = uuid.uuid4().hex, uuid.uuid4().hex
        assert ["ok"] * 3 + ["60"] * 2 == await _count(limiter, window, key, 5)
        assert ["ok"] == await _count(limiter, window, other, 1)
        assert ["ok"] == await _count(limiter, Window("else", 3, 60), key, 1)
        await cache.close()

    _run(work())


@pytest.mark.parametrize("away", [False, True], ids=["redis", "local"])
def test_attempts_at_once_are_counted_exactly(redis_url: str, *, away: bool) -> None:
    """Of many at the same moment exactly `limit` pass."""

    async def work() -> None:
        cache = Cache(SecretStr(NOWHERE if away else redis_url), timeout=2)
        limiter, window, key = Limiter(cache), Window("test", 7, 60), uuid.uuid4().hex
        rounds = await asyncio.gather(*(_count(limiter, window, key, 1) for _ in range(40)))
        assert 7 == [outcome for outcomes in rounds for outcome in outcomes].count("ok")
        await cache.close()

    _run(work())


def test_a_counter_always_ends(redis_url: str) -> None:
    """From its first attempt on a counter has an end, which later attempts do not move."""

    async def work() -> None:
        cache = Cache(SecretStr(redis_url), timeout=2)
        limiter, window, key = Limiter(cache), Window("test", 2, 60), uuid.uuid4().hex
        name = f"valence:limit:test:{key}"
        lives = []
        for _ in range(4):
            await _count(limiter, window, key, 1)
            lives.append(await cache.client.pttl(name))
        assert 59_000 < lives[0] <= 60_000
        assert sorted(lives, reverse=True) == lives
        await cache.close()

    _run(work())


def test_a_window_ends(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its seconds a key counts anew, in Redis and here."""

    async def work() -> None:
        cache = Cache(SecretStr(redis_url), timeout=2)
        limiter, window, key = Limiter(cache), Window("test", 1, 60), uuid.uuid4().hex
        assert ["ok", "60"] == await _count(limiter, window, key, 2)
        await cache.client.pexpire(f"valence:limit:test:{key}", 0)
        assert ["ok"] == await _count(limiter, window, key, 1)
        await cache.close()
        local = Limiter(Cache(SecretStr(NOWHERE), timeout=0.2))
        assert ["ok", "60"] == await _count(local, window, key, 2)
        now = limits.time.monotonic()
        monkeypatch.setattr(limits.time, "monotonic", lambda: now + 61)
        assert ["ok"] == await _count(local, window, key, 1)

    _run(work())


def test_the_local_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flooded with keys the fallback refuses new ones, and forgets none that it counts."""
    monkeypatch.setattr(limits, "MAX_LOCAL_KEYS", 3)

    async def work() -> None:
        limiter, window = Limiter(Cache(SecretStr(NOWHERE), timeout=0.2)), Window("test", 2, 60)
        for key in "abc":
            assert ["ok"] == await _count(limiter, window, key, 1)
        assert ["60"] == await _count(limiter, window, "d", 1)
        assert ["ok", "60"] == await _count(limiter, window, "a", 2)

    _run(work())


def test_the_breaker_opens_and_closes(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failure nobody waits for a second; an answer to `ping` ends that."""

    async def work() -> None:
        cache = Cache(SecretStr(NOWHERE), timeout=0.2)
        with pytest.raises(Unavailable):
            await cache.script("return 1").run(["key"], [])
        good = Cache(SecretStr(redis_url), timeout=2)
        cache.client = good.client
        with pytest.raises(Unavailable):  # though Redis would answer
            await cache.script("return 1").run(["key"], [])
        now = cache_module.time.monotonic()
        with monkeypatch.context() as later:
            later.setattr(cache_module.time, "monotonic", lambda: now + 1.1)
            assert 1 == await cache.script("return 1").run(["key"], [])
        with pytest.raises(Unavailable):
            await cache.script("return 1").run(["key"], [])
        assert await cache.ping()
        assert 1 == await cache.script("return 1").run(["key"], [])
        await good.close()

    _run(work())


def test_a_silent_redis_costs_its_timeout_once() -> None:
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
        cache = Cache(SecretStr(f"redis://127.0.0.1:{port}"), timeout=0.2)
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
