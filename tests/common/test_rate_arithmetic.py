"""Rates: the script's arithmetic is the fallback's, on a clock that the test moves."""

import asyncio
import uuid
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from valence_common import rate_limits
from valence_common.problems import TooManyRequests
from valence_common.rate_limits import Hit, Limiter, Rate
from valence_common.redis_client import RedisClient

NOWHERE = "redis://127.0.0.1:1/0"


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


class Clock:
    """A clock that stands still unless a test moves it, for the script and for the fallback."""

    def __init__(self, redis_url: str):
        self.now = 1_700_000_000.0
        self.name = f"valence:test:clock:{uuid.uuid4().hex}"
        self.cache = RedisClient(SecretStr(redis_url), timeout=2)
        self.remote = Limiter(self.cache)
        asks = f"redis.call('MGET', '{self.name}:s', '{self.name}:us')"
        self.remote._script = self.cache.script(
            rate_limits._TAKE.replace("redis.call('TIME')", asks)
        )
        self.local = Limiter(RedisClient(SecretStr(NOWHERE), timeout=0.2))

    async def forward(self, seconds: float) -> None:
        self.now = round(self.now + seconds, 6)
        whole = int(self.now)
        micro = round((self.now - whole) * 1_000_000)
        await self.cache.client.mset({f"{self.name}:s": whole, f"{self.name}:us": micro})


async def _outcome(limiter: Limiter, charges: Sequence[Hit]) -> tuple[Any, ...]:
    """Whether it was taken, what is left of each limit, and the whole seconds to wait."""
    try:
        states = await limiter.acquire(*charges)
    except TooManyRequests as error:
        return False, error.headers["RateLimit"], int(error.headers["Retry-After"])
    return True, [state.remaining for state in states]


# Periods so long that no key of Redis, whose ends follow the true time, ends during a test.
RATES = st.builds(
    Rate,
    st.sampled_from(["a", "b"]),
    st.integers(1, 50),
    st.just(3600),
    burst=st.integers(0, 20),
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 0.000001, 1, 71.4, 72, 3600]),
        st.lists(st.integers(1, 3), min_size=2, max_size=2),
    ),
    min_size=1,
    max_size=60,
)


@given(rates=st.tuples(RATES, RATES), steps=STEPS)
@settings(max_examples=40, deadline=None)
def test_the_fallback_decides_as_the_script_does(
    redis_url: str, rates: tuple[Rate, Rate], steps: list[tuple[float, list[int]]]
) -> None:
    """The same charges at the same moments: the same decisions, waits and states, in both."""

    async def work() -> None:
        clock, key = Clock(redis_url), uuid.uuid4().hex
        one, two = rates[0]._replace(name="one"), rates[1]._replace(name="two")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rate_limits.time, "monotonic", lambda: clock.now)
            for seconds, costs in steps:
                await clock.forward(seconds)
                charges = [Hit(one, key, costs[0]), Hit(two, key, costs[1])]
                remote = await clock.remote._ask([rate_limits._bill(c) for c in charges])
                local = clock.local._local.take([rate_limits._bill(c) for c in charges])
                assert remote.refused == local.refused
                assert remote.wait == pytest.approx(local.wait, abs=0.001)
                assert [left for left, _ in remote.states] == [left for left, _ in local.states]
                ends = [reset for _, reset in local.states]
                assert ends == pytest.approx([reset for _, reset in remote.states], abs=0.001)
        await clock.cache.close()

    _run(work())


@pytest.mark.parametrize("where", ["remote", "local"])
@pytest.mark.parametrize("limit", [1, 7, 60, 1000, 70_000])
def test_a_rate_lets_through_its_size_and_then_its_pace(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, where: str, limit: int
) -> None:
    """`limit` and `burst` at once; then one more with each step, whatever the step's fractions."""

    async def work() -> None:
        clock, rate = Clock(redis_url), Rate("test", limit, 60, burst=3)
        limiter, key = getattr(clock, where), uuid.uuid4().hex
        await clock.forward(0)
        monkeypatch.setattr(rate_limits.time, "monotonic", lambda: clock.now)
        most = limit + 3
        singles = min(most - 1, 20)
        # The many first: a key of Redis ends in true time, and that of one request soon.
        states = await limiter.acquire(Hit(rate, key, most - singles))
        for _ in range(singles):
            states = await limiter.acquire(Hit(rate, key))
        [state] = states
        assert 0 == state.remaining
        assert state.reset == pytest.approx(60 * most / limit, abs=0.001)
        for _ in range(20):
            assert not (await _outcome(limiter, [Hit(rate, key)]))[0]
            await clock.forward(60 / limit * 0.9)
            assert not (await _outcome(limiter, [Hit(rate, key)]))[0]
            await clock.forward(60 / limit * 0.1 + 0.000001)
            assert (True, [0]) == await _outcome(limiter, [Hit(rate, key)])
        await clock.forward(3600)
        assert (True, [most - 1]) == await _outcome(limiter, [Hit(rate, key)])
        await clock.cache.close()

    _run(work())
