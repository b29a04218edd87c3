"""The rate limit script against GCRA as the textbook has it, on a clock that the test sets."""

import asyncio
import math
import uuid
from collections.abc import Coroutine, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from valence_common import rate_limits
from valence_common.problems import TooManyRequests
from valence_common.rate_limits import Hit, Limiter, Rate
from valence_common.redis_client import RedisClient

SECOND = 1_000_000  # microseconds, the script's unit
ROUNDING = Fraction(1, 1_000_000)  # of a request, which the script grants


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


class Clock:
    """A limiter in Redis whose clock stands still unless the test advances it."""

    def __init__(self, redis_url: str):
        self.now = 1_700_000_000 * SECOND
        self.name = f"valence:test:clock:{uuid.uuid4().hex}"
        self.redis = RedisClient(SecretStr(redis_url), timeout=2)
        self.limiter = Limiter(self.redis)
        read_clock = f"redis.call('MGET', '{self.name}:s', '{self.name}:us')"
        source = rate_limits._SCRIPT.replace("redis.call('TIME')", read_clock)
        self.limiter._script = self.redis.script(source)

    async def advance(self, microseconds: int) -> None:
        self.now += microseconds
        seconds, rest = divmod(self.now, SECOND)
        await self.redis.client.mset({f"{self.name}:s": seconds, f"{self.name}:us": rest})


class Outcome(NamedTuple):
    """A decision: whether it was admitted, what remains of each limit, microseconds to wait."""

    admitted: bool
    remaining: list[int]
    wait: float


class Gcra:
    """GCRA by its definition, in exact fractions, with the TAT as a time of day."""

    def __init__(self, rate: Rate):
        self.interval = Fraction(rate.seconds * SECOND, rate.limit)
        self.tolerance = self.interval * (rate.limit + rate.burst)
        self.tat = Fraction(0)

    def next_tat(self, now: int, cost: int) -> Fraction:
        return max(self.tat, Fraction(now)) + cost * self.interval

    def wait(self, now: int, cost: int) -> Fraction:
        ahead = self.next_tat(now, cost) - now
        return max(Fraction(0), ahead - self.tolerance - ROUNDING * self.interval)

    def remaining(self, now: int) -> int:
        ahead = max(self.tat - now, Fraction(0))
        return max(0, math.floor((self.tolerance - ahead) / self.interval + ROUNDING))


def reference(cells: Sequence[Gcra], now: int, costs: Sequence[int]) -> Outcome:
    """Decide as the definition does: all limits admit the request, or none is charged."""
    waits = [cell.wait(now, cost) for cell, cost in zip(cells, costs, strict=True)]
    if not any(waits):
        for cell, cost in zip(cells, costs, strict=True):
            cell.tat = cell.next_tat(now, cost)
    return Outcome(not any(waits), [cell.remaining(now) for cell in cells], float(max(waits)))


async def outcome(limiter: Limiter, hits: Sequence[Hit]) -> Outcome:
    """Decide with the script."""
    decision = await limiter._decide_in_redis([rate_limits._request(hit) for hit in hits])
    assert isinstance(decision, rate_limits._Decision)
    remaining = [remaining for remaining, _ in decision.states]
    return Outcome(not decision.refused, remaining, decision.wait * SECOND)


# Periods are long, because the keys' expiry follows the true time.
RATES = st.builds(
    Rate, st.just("rate"), st.integers(1, 50), st.just(3600), burst=st.integers(0, 20)
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, SECOND, 71_400_000, 72_000_000, 3600 * SECOND]),
        st.lists(st.integers(1, 3), min_size=2, max_size=2),
    ),
    min_size=1,
    max_size=60,
)


@given(rates=st.tuples(RATES, RATES), steps=STEPS)
@settings(max_examples=40, deadline=None)
def test_script_decides_as_gcra_is_defined(
    redis_url: str, rates: tuple[Rate, Rate], steps: list[tuple[int, list[int]]]
) -> None:
    """The same requests at the same times have the same decisions, remainders and waits."""

    async def work() -> None:
        clock, key = Clock(redis_url), uuid.uuid4().hex
        named = [rate._replace(name=f"rate-{n}") for n, rate in enumerate(rates)]
        cells = [Gcra(rate) for rate in named]
        for microseconds, costs in steps:
            await clock.advance(microseconds)
            hits = [Hit(rate, key, cost) for rate, cost in zip(named, costs, strict=True)]
            actual = await outcome(clock.limiter, hits)
            expected = reference(cells, clock.now, costs)
            assert expected[:2] == actual[:2]
            assert expected.wait == pytest.approx(actual.wait, abs=100)
        await clock.redis.close()

    _run(work())


@pytest.mark.parametrize("limit", [1, 7, 60, 1000, 70_000])
def test_rate_admits_its_size_and_then_its_pace(redis_url: str, limit: int) -> None:
    """`limit` and `burst` at once; then one more per emission interval, whatever its fractions."""

    async def admitted(limiter: Limiter, hit: Hit) -> bool:
        try:
            [status] = await limiter.acquire(hit)
        except TooManyRequests:
            return False
        assert 0 == status.remaining
        return True

    async def work() -> None:
        clock, rate = Clock(redis_url), Rate("test", limit, 60, burst=3)
        limiter, key = clock.limiter, uuid.uuid4().hex
        await clock.advance(0)
        size = limit + 3
        singles = min(size - 1, 20)
        # The large hit is first: keys expire in true time, and that of a single hit does so soon.
        statuses = await limiter.acquire(Hit(rate, key, size - singles))
        for _ in range(singles):
            statuses = await limiter.acquire(Hit(rate, key))
        [status] = statuses
        assert 0 == status.remaining
        assert status.reset == pytest.approx(60 * size / limit, abs=0.001)
        interval = 60 * SECOND / limit
        for _ in range(20):
            assert not await admitted(limiter, Hit(rate, key))
            await clock.advance(math.floor(interval * 0.9))
            assert not await admitted(limiter, Hit(rate, key))
            await clock.advance(math.ceil(interval) - math.floor(interval * 0.9))
            assert await admitted(limiter, Hit(rate, key))
        await clock.advance(3600 * SECOND)
        [status] = await limiter.acquire(Hit(rate, key))
        assert size - 1 == status.remaining
        await clock.redis.close()

    _run(work())
