"""Limits on how often: decided in Redis in one atomic step, or in this process while it is away.

A decision may look at several limits: all take the cost, or none does. The local fallback keeps
each process strict on its own.
"""

import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from valence_common.problems import TooManyRequests, Unavailable
from valence_common.redis_client import RedisClient

MAX_LOCAL_KEYS: Final = 100_000
MICROSECOND: Final = 1_000_000
DAY_SECONDS: Final = 86_400
TOLERANCE: Final = 1e-6  # of one: what is drained is a fraction, and sums of fractions stray

# A window is a counter with an end. A rate is a level that drains by `most` in each period and may
# not rise above its size (GCRA, told in requests: times of day would leave doubles few digits for
# fractions). Whatever is written gets its end in the same command. `begin` is where a counter
# starts; -1 means that the caller must find out first, and is told so. What was found out is kept
# even by a refusal, or it would be asked for with each.
_TAKE: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local refused, wait = 0, 0
local before, after, writes, begun = {}, {}, {}, {}
for i, key in ipairs(KEYS) do
  local at = (i - 1) * 5
  local burst, most = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local period, cost = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local begin = tonumber(ARGV[at + 5])
  local value = redis.call('GET', key)
  local used, size, reset, ends, short = 0, most, 0, 0, 0
  if burst < 0 then
    if not value and begin < 0 then return {-1, i} end
    used = tonumber(value or begin)
    local left = redis.call('PTTL', key)
    ends = left > 0 and left * 1000 or period
    reset = ends
    if used + cost > size and cost > 0 then short = ends end
    if not value and begin > 0 then begun[key] = {begin, ends} end
    writes[i] = {string.format('%.0f', math.max(0, used + cost)), ends}
  else
    size = most + burst
    local level, seen = string.match(value or '0 0', '^(%S+) (%S+)$')
    used = math.max(0, level - math.max(0, now - seen) * most / period)
    short = math.max(0, (used + cost - size - 0.000001) * period / most)
    reset = used * period / most
    ends = (used + cost) * period / most
    writes[i] = {string.format('%.17g %.0f', used + cost, now), ends}
  end
  if short > 0 and short >= wait then refused, wait = i, short end
  before[2 * i - 1] = math.max(0, math.floor(size - used + 0.000001))
  before[2 * i] = math.ceil(reset)
  after[2 * i - 1] = math.max(0, math.floor(size - used - cost + 0.000001))
  after[2 * i] = math.ceil(ends)
end
if refused > 0 then
  for key, start in pairs(begun) do
    redis.call('SET', key, start[1], 'PX', math.max(1, math.ceil(start[2] / 1000)))
  end
  return {refused, math.ceil(wait), unpack(before)}
end
for i, key in ipairs(KEYS) do
  redis.call('SET', key, writes[i][1], 'PX', math.max(1, math.ceil(writes[i][2] / 1000)))
end
return {0, 0, unpack(after)}
"""


class Window(NamedTuple):
    """At most `limit` in `seconds`, which begin with the first."""

    name: str
    limit: int
    seconds: int


class Day(NamedTuple):
    """At most `limit` from midnight to midnight (UTC)."""

    name: str
    limit: int
    seconds: int = DAY_SECONDS


class Rate(NamedTuple):
    """`limit` in `seconds` in the long run, and `burst` more at once."""

    name: str
    limit: int
    seconds: int
    burst: int = 0


Limit = Window | Day | Rate


class Hit(NamedTuple):
    """What one decision takes from one limit, for the user, address or account in `key`.

    `begin` tells what was taken before from a `Day` that nobody counts yet; without it, nothing.
    """

    limit: Limit
    key: str
    cost: int = 1
    initial: Callable[[], Awaitable[int]] | None = None


class LimitStatus(NamedTuple):
    """What is left of a limit, and the seconds until it is whole again."""

    limit: Limit
    remaining: int
    reset: float


class _Request(NamedTuple):
    """A charge as it is decided now: in seconds and numbers."""

    name: str
    burst: int  # -1 for a counter
    limit: int
    seconds: float
    cost: int
    begin: int  # -1 for unknown


class _Decision(NamedTuple):
    refused: int  # 1-based; 0 for nobody; -1: bill number `wait` must begin somewhere
    wait: float  # seconds
    states: list[tuple[int, float]]  # left, seconds


class Limiter:
    """Decides about charges."""

    def __init__(self, cache: RedisClient):
        self._script = cache.script(_TAKE)
        self._local = _Local()

    async def acquire(self, *charges: Hit) -> list[LimitStatus]:
        """Take all charges at once; raises `TooManyRequests` when one is over its limit.

        What a charge's `begin` raises comes out as it is, and then nothing was taken.
        """
        bills = [_bill(charge) for charge in charges]
        decision = await self._decide(bills)
        while decision.refused < 0:
            number = int(decision.wait) - 1
            begin = charges[number].initial
            bills[number] = bills[number]._replace(begin=await begin() if begin else 0)
            decision = await self._decide(bills)
        states = [
            LimitStatus(charge.limit, left, reset)
            for charge, (left, reset) in zip(charges, decision.states, strict=True)
        ]
        if decision.refused:
            raise TooManyRequests(max(1, math.ceil(decision.wait)), headers=headers(states))
        return states

    async def refund(self, *charges: Hit) -> None:
        """Undo a `take` as far as can be: of a limit that ended meanwhile nothing is left."""
        with suppress(TooManyRequests, Unavailable):
            await self.acquire(*(charge._replace(cost=-charge.cost) for charge in charges))

    async def _decide(self, bills: Sequence[_Request]) -> _Decision:
        try:
            return await self._ask(bills)
        except Unavailable:
            return self._local.take(bills)

    async def _ask(self, bills: Sequence[_Request]) -> _Decision:
        arguments: list[float | str] = []
        for _, burst, limit, seconds, cost, begin in bills:
            arguments += [burst, limit, round(seconds * MICROSECOND), cost, begin]
        answer = await self._script.run([bill.name for bill in bills], arguments)
        refused, wait, *flat = (int(part) for part in answer)
        if refused < 0:
            return _Decision(refused, wait, [])
        states = [(flat[i], flat[i + 1] / MICROSECOND) for i in range(0, len(flat), 2)]
        return _Decision(refused, wait / MICROSECOND, states)


def headers(states: Sequence[LimitStatus]) -> dict[str, str]:
    """The `RateLimit` fields of draft-ietf-httpapi-ratelimit-headers."""
    return {
        "RateLimit-Policy": ", ".join(_policy(limit) for limit, _, _ in states),
        "RateLimit": ", ".join(
            f'"{limit.name}";r={left};t={math.ceil(reset)}' for limit, left, reset in states
        ),
    }


def _policy(limit: Limit) -> str:
    policy = f'"{limit.name}";q={limit.limit};w={limit.seconds}'
    burst = isinstance(limit, Rate) and limit.burst
    return f"{policy};burst={burst}" if burst else policy


def _bill(charge: Hit) -> _Request:
    limit, key, cost, begin = charge
    name = f"valence:limit:{limit.name}:{key}"
    burst = limit.burst if isinstance(limit, Rate) else -1
    seconds = float(limit.seconds)
    if isinstance(limit, Day):
        now = datetime.now(UTC)
        name = f"{name}:{now:%Y-%m-%d}"
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        seconds = (midnight - now).total_seconds()
    return _Request(name, burst, limit.limit, seconds, cost, 0 if begin is None else -1)


class _Value(NamedTuple):
    used: float
    seen: float
    ends: float


class _Local:
    """The script's arithmetic in this process, for as long as Redis is away."""

    def __init__(self) -> None:
        self._values: dict[str, _Value] = {}
        self._swept_at = 0.0

    def take(self, bills: Sequence[_Request]) -> _Decision:
        now = time.monotonic()
        self._make_room(now)
        refused, wait = 0, 0.0
        before: list[tuple[int, float]] = []
        after: list[tuple[int, float]] = []
        values: dict[str, _Value] = {}
        for number, bill in enumerate(bills, 1):
            used, ends = self._used(bill, now)
            if used < 0:
                return _Decision(-1, number, [])
            size, total = bill.limit + max(0, bill.burst), max(0.0, used + bill.cost)
            if bill.burst < 0:
                short = ends - now if total > size and bill.cost > 0 else 0.0
                reset = ends
            else:
                step = bill.seconds / bill.limit
                short = max(0.0, (total - size - TOLERANCE) * step)
                reset, ends = now + used * step, now + total * step
            # Flooded with keys: refuse new ones rather than forget the old.
            if len(self._values) >= MAX_LOCAL_KEYS and bill.name not in self._values:
                short = short or bill.seconds
            elif bill.begin > 0:
                self._values[bill.name] = _Value(used, now, ends)
            if short > 0 and short >= wait:
                refused, wait = number, short
            before.append((_whole(size - used), reset - now))
            after.append((_whole(size - total), ends - now))
            values[bill.name] = _Value(total, now, ends)
        if refused:
            return _Decision(refused, wait, before)
        self._values |= values
        return _Decision(0, 0.0, after)

    def _used(self, bill: _Request, now: float) -> tuple[float, float]:
        """What is taken as of now, -1 if that must be found out, and when a counter ends."""
        value = self._values.get(bill.name, _Value(0.0, now, now))
        if bill.burst >= 0:
            drained = (now - value.seen) * bill.limit / bill.seconds
            return max(0.0, value.used - drained), value.ends
        if value.ends <= now:
            return bill.begin, now + bill.seconds
        return value.used, value.ends

    def _make_room(self, now: float) -> None:
        """When full, forget what has ended; a look at all of them is not for every request."""
        if len(self._values) >= MAX_LOCAL_KEYS and now - self._swept_at >= 1:
            self._swept_at = now
            self._values = {k: v for k, v in self._values.items() if v.ends > now}


def _whole(left: float) -> int:
    return max(0, math.floor(left + TOLERANCE))
