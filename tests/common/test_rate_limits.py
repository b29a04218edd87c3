"""Rate limits in Redis, and in this process while Redis is away."""

import asyncio
import uuid
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest
from pydantic import SecretStr

from valence_common import rate_limits
from valence_common.problems import TooManyRequests, Unavailable
from valence_common.rate_limits import Day, Hit, Limiter, LimitStatus, Rate, Window
from valence_common.redis_client import RedisClient

NOWHERE = "redis://127.0.0.1:1/0"
BOTH = pytest.mark.parametrize("away", [False, True], ids=["redis", "local"])


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


async def _count(limiter: Limiter, window: Window, key: str, times: int) -> list[str]:
    """`ok` or the Retry-After of each attempt."""
    outcomes = []
    for _ in range(times):
        try:
            await limiter.acquire(Hit(window, key))
        except TooManyRequests as error:
            outcomes.append(error.headers["Retry-After"])
        else:
            outcomes.append("ok")
    return outcomes


@BOTH
def test_attempts_over_the_limit_are_rejected(redis_url: str, *, away: bool) -> None:
    """Exactly `limit` attempts pass for each key; the others are told when the window ends."""

    async def work() -> None:
        redis = RedisClient(SecretStr(NOWHERE if away else redis_url), timeout=0.2)
        limiter, window = Limiter(redis), Window("test", 3, 60)
        key, other = uuid.uuid4().hex, uuid.uuid4().hex
        assert ["ok"] * 3 + ["60"] * 2 == await _count(limiter, window, key, 5)
        assert ["ok"] == await _count(limiter, window, other, 1)
        assert ["ok"] == await _count(limiter, Window("else", 3, 60), key, 1)
        await redis.close()

    _run(work())


@BOTH
def test_attempts_at_once_are_counted_exactly(redis_url: str, *, away: bool) -> None:
    """Of many concurrent attempts exactly `limit` pass."""

    async def work() -> None:
        redis = RedisClient(SecretStr(NOWHERE if away else redis_url), timeout=2)
        limiter, window, key = Limiter(redis), Window("test", 7, 60), uuid.uuid4().hex
        rounds = await asyncio.gather(*(_count(limiter, window, key, 1) for _ in range(40)))
        assert 7 == [outcome for outcomes in rounds for outcome in outcomes].count("ok")
        await redis.close()

    _run(work())


def test_window_always_expires(redis_url: str) -> None:
    """The first attempt sets the expiry, and later attempts do not move it."""

    async def work() -> None:
        redis = RedisClient(SecretStr(redis_url), timeout=2)
        limiter, window, key = Limiter(redis), Window("test", 2, 60), uuid.uuid4().hex
        name = f"valence:limit:test:{key}"
        lives = []
        for _ in range(4):
            await _count(limiter, window, key, 1)
            lives.append(await redis.client.pttl(name))
        assert 59_000 < lives[0] <= 60_000
        assert sorted(lives, reverse=True) == lives
        await redis.close()

    _run(work())


def test_window_starts_again(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its seconds a key counts from zero, in Redis and in this process."""

    async def work() -> None:
        redis = RedisClient(SecretStr(redis_url), timeout=2)
        limiter, window, key = Limiter(redis), Window("test", 1, 60), uuid.uuid4().hex
        assert ["ok", "60"] == await _count(limiter, window, key, 2)
        await redis.client.pexpire(f"valence:limit:test:{key}", 0)
        assert ["ok"] == await _count(limiter, window, key, 1)
        await redis.close()
        local = Limiter(RedisClient(SecretStr(NOWHERE), timeout=0.2))
        assert ["ok", "60"] == await _count(local, window, key, 2)
        now = rate_limits.time.monotonic()
        monkeypatch.setattr(rate_limits.time, "monotonic", lambda: now + 61)
        assert ["ok"] == await _count(local, window, key, 1)

    _run(work())


def test_local_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flooded with keys, the fallback rejects new ones and keeps those that it counts."""
    monkeypatch.setattr(rate_limits, "MAX_LOCAL_KEYS", 3)

    async def work() -> None:
        limiter, window = (
            Limiter(RedisClient(SecretStr(NOWHERE), timeout=0.2)),
            Window("test", 2, 60),
        )
        for key in "abc":
            assert ["ok"] == await _count(limiter, window, key, 1)
        assert ["60"] == await _count(limiter, window, "d", 1)
        assert ["ok", "60"] == await _count(limiter, window, "a", 2)

    _run(work())


async def _outcome(limiter: Limiter, hits: Sequence[Hit]) -> tuple[Any, ...]:
    """Whether it was taken, what is left of each limit, and the whole seconds to wait."""
    try:
        statuses = await limiter.acquire(*hits)
    except TooManyRequests as error:
        return False, error.headers["RateLimit"], int(error.headers["Retry-After"])
    return True, [status.remaining for status in statuses]


def test_retry_after_is_enough(redis_url: str) -> None:
    """After the `Retry-After` of a rejection the same hit is admitted."""

    async def work() -> None:
        redis = RedisClient(SecretStr(redis_url), timeout=2)
        limiter, rate, key = Limiter(redis), Rate("test", 90, 60), uuid.uuid4().hex
        await limiter.acquire(Hit(rate, key, 90))
        with pytest.raises(TooManyRequests) as rejection:
            await limiter.acquire(Hit(rate, key))
        assert "1" == rejection.value.headers["Retry-After"]
        await asyncio.sleep(1)
        await limiter.acquire(Hit(rate, key))
        await redis.close()

    _run(work())


@BOTH
def test_hits_are_charged_together_or_not_at_all(redis_url: str, *, away: bool) -> None:
    """A rejection by one limit costs the others nothing, and their headers say so."""

    async def work() -> None:
        redis = RedisClient(SecretStr(NOWHERE if away else redis_url), timeout=2)
        limiter, key = Limiter(redis), uuid.uuid4().hex
        wide, narrow, day = Rate("wide", 100, 60), Window("narrow", 1, 60), Day("day", 50)
        hits = [Hit(wide, key), Hit(narrow, key), Hit(day, key, 10)]
        statuses = await limiter.acquire(*hits)
        assert [99, 0, 40] == [status.remaining for status in statuses]
        for _ in range(5):
            with pytest.raises(TooManyRequests) as rejection:
                await limiter.acquire(*hits)
            assert '"wide";r=99' in rejection.value.headers["RateLimit"]
            assert '"narrow";r=0;t=60' in rejection.value.headers["RateLimit"]
            assert '"day";r=40' in rejection.value.headers["RateLimit"]
        assert [98] == [status.remaining for status in await limiter.acquire(hits[0])]
        assert [30] == [status.remaining for status in await limiter.acquire(hits[2])]
        await redis.close()

    _run(work())


@BOTH
def test_day_continues_from_its_initial_count(redis_url: str, *, away: bool) -> None:
    """The initial count is looked up once, also on rejections, and hits can be refunded."""

    async def work() -> None:
        redis = RedisClient(SecretStr(NOWHERE if away else redis_url), timeout=2)
        limiter, lookups = Limiter(redis), []

        async def initial() -> int:
            lookups.append(None)
            return 95

        hit = Hit(Day("test", 100), uuid.uuid4().hex, 1, initial)
        for _ in range(3):
            with pytest.raises(TooManyRequests) as rejection:
                await limiter.acquire(hit._replace(cost=6))
            assert 1 <= int(rejection.value.headers["Retry-After"]) <= 86400
        assert [0] == [status.remaining for status in await limiter.acquire(hit._replace(cost=5))]
        assert not (await _outcome(limiter, [hit]))[0]
        assert [3] == [status.remaining for status in await limiter.acquire(hit._replace(cost=-3))]
        assert 1 == len(lookups)
        nothing = Hit(Day("test", 0), uuid.uuid4().hex)
        assert not (await _outcome(limiter, [nothing]))[0]
        await redis.close()

    _run(work())


def test_each_outage_looks_the_initial_count_up(redis_url: str) -> None:
    """What Redis counted since the last outage is not forgotten in the next one."""

    async def work() -> None:
        limiter = Limiter(RedisClient(SecretStr(redis_url), timeout=2))
        outage = Limiter(RedisClient(SecretStr(NOWHERE), timeout=0.2))
        used = 0

        async def initial() -> int:
            return used

        hit = Hit(Day("test", 10), uuid.uuid4().hex, 1, initial)
        connected, disconnected = limiter._script, outage._script
        limiter._script = disconnected
        assert not (await _outcome(limiter, [hit._replace(cost=11)]))[0]
        limiter._script = connected
        assert (True, [0]) == await _outcome(limiter, [hit._replace(cost=10)])
        used = 10
        limiter._script = disconnected
        assert not (await _outcome(limiter, [hit]))[0]

    _run(work())


@BOTH
def test_unknown_initial_count_charges_nothing(redis_url: str, *, away: bool) -> None:
    """When the initial count cannot be looked up, its error is raised and no limit is charged."""

    async def work() -> None:
        redis = RedisClient(SecretStr(NOWHERE if away else redis_url), timeout=2)
        limiter, key = Limiter(redis), uuid.uuid4().hex

        async def initial() -> int:
            raise Unavailable("postgres")

        rate = Hit(Rate("rate", 5, 60), key)
        with pytest.raises(Unavailable):
            await limiter.acquire(rate, Hit(Day("day", 5), key, 1, initial))
        assert [4] == [status.remaining for status in await limiter.acquire(rate)]
        await redis.close()

    _run(work())


def test_every_key_has_an_expiry(redis_url: str) -> None:
    """On every outcome, and also where a key had lost its expiry."""

    async def work() -> None:
        redis = RedisClient(SecretStr(redis_url), timeout=2)
        limiter, key = Limiter(redis), uuid.uuid4().hex

        async def initial() -> int:
            return 7

        for hit, life in (
            (Hit(Window("window", 2, 60), key), 60),
            (Hit(Rate("rate", 2, 60, 1), key), 90),
            (Hit(Day("day", 8), key, 1, initial), 86400),
        ):
            name = rate_limits._request(hit).name
            for _ in range(3):
                await _outcome(limiter, [hit])
                assert 0 < await redis.client.pttl(name) <= life * 1000
            await redis.client.persist(name)
            await _outcome(limiter, [hit._replace(cost=-1)])
            assert 0 < await redis.client.pttl(name) <= life * 1000
        await redis.close()

    _run(work())


def test_local_rate_is_a_window_of_limit_and_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Redis a client within its rate is never rejected, and none is unlimited."""

    async def work() -> None:
        limiter = Limiter(RedisClient(SecretStr(NOWHERE), timeout=0.2))
        hit = Hit(Rate("test", 3, 60, burst=2), uuid.uuid4().hex)
        outcomes = [await _outcome(limiter, [hit]) for _ in range(6)]
        assert [True] * 5 + [False] == [admitted for admitted, *_ in outcomes]
        assert '"test";r=0;t=60' == outcomes[-1][1]
        now = rate_limits.time.monotonic()
        monkeypatch.setattr(rate_limits.time, "monotonic", lambda: now + 61)
        assert (True, [4]) == await _outcome(limiter, [hit])

    _run(work())


def test_headers() -> None:
    """The parameters of the draft, and `burst` as an extension."""
    statuses = [
        LimitStatus(Rate("analyze", 60, 60, 10), 69, 1.0),
        LimitStatus(Rate("key", 5, 60), 4, 12.5),
        LimitStatus(Day("texts", 100), 99, 3600.0),
    ]
    assert {
        "RateLimit-Policy": '"analyze";q=60;w=60;burst=10, "key";q=5;w=60, "texts";q=100;w=86400',
        "RateLimit": '"analyze";r=69;t=1, "key";r=4;t=13, "texts";r=99;t=3600',
    } == rate_limits.headers(statuses)
