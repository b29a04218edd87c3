"""Limits: counted in Redis, or in this process while Redis is away."""

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
def test_attempts_over_the_limit_are_refused(redis_url: str, *, away: bool) -> None:
    """Exactly `limit` attempts pass, per key; the rest hear when the window ends."""

    async def work() -> None:
        cache = RedisClient(SecretStr(NOWHERE if away else redis_url), timeout=0.2)
        limiter, window = Limiter(cache), Window("test", 3, 60)
        key, other = uuid.uuid4().hex, uuid.uuid4().hex
        assert ["ok"] * 3 + ["60"] * 2 == await _count(limiter, window, key, 5)
        assert ["ok"] == await _count(limiter, window, other, 1)
        assert ["ok"] == await _count(limiter, Window("else", 3, 60), key, 1)
        await cache.close()

    _run(work())


@BOTH
def test_attempts_at_once_are_counted_exactly(redis_url: str, *, away: bool) -> None:
    """Of many at the same moment exactly `limit` pass."""

    async def work() -> None:
        cache = RedisClient(SecretStr(NOWHERE if away else redis_url), timeout=2)
        limiter, window, key = Limiter(cache), Window("test", 7, 60), uuid.uuid4().hex
        rounds = await asyncio.gather(*(_count(limiter, window, key, 1) for _ in range(40)))
        assert 7 == [outcome for outcomes in rounds for outcome in outcomes].count("ok")
        await cache.close()

    _run(work())


def test_a_counter_always_ends(redis_url: str) -> None:
    """From its first attempt on a counter has an end, which later attempts do not move."""

    async def work() -> None:
        cache = RedisClient(SecretStr(redis_url), timeout=2)
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
        cache = RedisClient(SecretStr(redis_url), timeout=2)
        limiter, window, key = Limiter(cache), Window("test", 1, 60), uuid.uuid4().hex
        assert ["ok", "60"] == await _count(limiter, window, key, 2)
        await cache.client.pexpire(f"valence:limit:test:{key}", 0)
        assert ["ok"] == await _count(limiter, window, key, 1)
        await cache.close()
        local = Limiter(RedisClient(SecretStr(NOWHERE), timeout=0.2))
        assert ["ok", "60"] == await _count(local, window, key, 2)
        now = rate_limits.time.monotonic()
        monkeypatch.setattr(rate_limits.time, "monotonic", lambda: now + 61)
        assert ["ok"] == await _count(local, window, key, 1)

    _run(work())


def test_the_local_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flooded with keys the fallback refuses new ones, and forgets none that it counts."""
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


async def _outcome(limiter: Limiter, charges: Sequence[Hit]) -> tuple[Any, ...]:
    """Whether it was taken, what is left of each limit, and the whole seconds to wait."""
    try:
        states = await limiter.acquire(*charges)
    except TooManyRequests as error:
        return False, error.headers["RateLimit"], int(error.headers["Retry-After"])
    return True, [state.remaining for state in states]


@BOTH
def test_waiting_as_told_is_enough(redis_url: str, *, away: bool) -> None:
    """After the `Retry-After` of a refusal the same charge is taken."""

    async def work() -> None:
        cache = RedisClient(SecretStr(NOWHERE if away else redis_url), timeout=2)
        limiter, rate, key = Limiter(cache), Rate("test", 90, 60), uuid.uuid4().hex
        await limiter.acquire(Hit(rate, key, 90))
        with pytest.raises(TooManyRequests) as refusal:
            await limiter.acquire(Hit(rate, key))
        assert "1" == refusal.value.headers["Retry-After"]
        await asyncio.sleep(1)
        await limiter.acquire(Hit(rate, key))
        await cache.close()

    _run(work())


@BOTH
def test_several_charges_are_taken_together_or_not_at_all(redis_url: str, *, away: bool) -> None:
    """What one limit refuses costs the others nothing, and their states say so."""

    async def work() -> None:
        cache = RedisClient(SecretStr(NOWHERE if away else redis_url), timeout=2)
        limiter, key = Limiter(cache), uuid.uuid4().hex
        wide, narrow, day = Rate("wide", 100, 60), Window("narrow", 1, 60), Day("day", 50)
        charges = [Hit(wide, key), Hit(narrow, key), Hit(day, key, 10)]
        states = await limiter.acquire(*charges)
        assert [99, 0, 40] == [state.remaining for state in states]
        for _ in range(5):
            with pytest.raises(TooManyRequests) as refusal:
                await limiter.acquire(*charges)
            assert '"wide";r=99' in refusal.value.headers["RateLimit"]
            assert '"narrow";r=0;t=60' in refusal.value.headers["RateLimit"]
            assert '"day";r=40' in refusal.value.headers["RateLimit"]
        assert [98] == [state.remaining for state in await limiter.acquire(charges[0])]
        assert [30] == [state.remaining for state in await limiter.acquire(charges[2])]
        await cache.close()

    _run(work())


@BOTH
def test_a_day_goes_on_from_what_is_known(redis_url: str, *, away: bool) -> None:
    """What nobody counts is asked for once, refused or not, and may be given back."""

    async def work() -> None:
        cache = RedisClient(SecretStr(NOWHERE if away else redis_url), timeout=2)
        limiter, asked = Limiter(cache), []

        async def begin() -> int:
            asked.append(None)
            return 95

        charge = Hit(Day("test", 100), uuid.uuid4().hex, 1, begin)
        for _ in range(3):
            with pytest.raises(TooManyRequests) as refusal:
                await limiter.acquire(charge._replace(cost=6))
            assert 1 <= int(refusal.value.headers["Retry-After"]) <= 86400
        assert [0] == [state.remaining for state in await limiter.acquire(charge._replace(cost=5))]
        assert not (await _outcome(limiter, [charge]))[0]
        assert [3] == [state.remaining for state in await limiter.acquire(charge._replace(cost=-3))]
        assert 1 == len(asked)
        nothing = Hit(Day("test", 0), uuid.uuid4().hex)
        assert not (await _outcome(limiter, [nothing]))[0]
        await cache.close()

    _run(work())


@BOTH
def test_who_cannot_know_takes_nothing(redis_url: str, *, away: bool) -> None:
    """When a day's count cannot be found out, that comes out, and other limits stay whole."""

    async def work() -> None:
        cache = RedisClient(SecretStr(NOWHERE if away else redis_url), timeout=2)
        limiter, key = Limiter(cache), uuid.uuid4().hex

        async def begin() -> int:
            raise Unavailable("postgres")

        rate = Hit(Rate("rate", 5, 60), key)
        with pytest.raises(Unavailable):
            await limiter.acquire(rate, Hit(Day("day", 5), key, 1, begin))
        assert [4] == [state.remaining for state in await limiter.acquire(rate)]
        await cache.close()

    _run(work())


def test_every_key_has_an_end(redis_url: str) -> None:
    """Whatever was taken, refused or begun, and also where a key had lost its end."""

    async def work() -> None:
        cache = RedisClient(SecretStr(redis_url), timeout=2)
        limiter, key = Limiter(cache), uuid.uuid4().hex

        async def begin() -> int:
            return 7

        for charge, life in (
            (Hit(Window("window", 2, 60), key), 60),
            (Hit(Rate("rate", 2, 60, 1), key), 90),
            (Hit(Day("day", 8), key, 1, begin), 86400),
        ):
            name = rate_limits._bill(charge).name
            for _ in range(3):
                await _outcome(limiter, [charge])
                assert 0 < await cache.client.pttl(name) <= life * 1000
            await cache.client.persist(name)
            await _outcome(limiter, [charge._replace(cost=-1)])
            assert 0 < await cache.client.pttl(name) <= life * 1000
        await cache.close()

    _run(work())


def test_the_fields_say_what_holds() -> None:
    """The draft's parameters, and the burst as one of ours."""
    states = [
        LimitStatus(Rate("analyze", 60, 60, 10), 69, 1.0),
        LimitStatus(Rate("key", 5, 60), 4, 12.5),
        LimitStatus(Day("texts", 100), 99, 3600.0),
    ]
    assert {
        "RateLimit-Policy": '"analyze";q=60;w=60;burst=10, "key";q=5;w=60, "texts";q=100;w=86400',
        "RateLimit": '"analyze";r=69;t=1, "key";r=4;t=13, "texts";r=99;t=3600',
    } == rate_limits.headers(states)
