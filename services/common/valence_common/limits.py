"""Limits on how often: decided in Redis in one atomic step, or in this process while it is away.

A decision may look at several limits: all take the cost, or none does. The local fallback keeps
each process strict on its own.
"""

import math
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from valence_common.cache import Cache
from valence_common.problems import TooManyRequests, Unavailable

MAX_LOCAL_KEYS: Final = 10_000
MICROSECOND: Final = 1_000_000

# A window is a counter that ends `seconds` after its first attempt. A rate is kept as the time at
# which its allowance would be whole again (GCRA). Every key gets its end in the step that makes it.
_TAKE: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local refused, wait = 0, 0
local answer, writes = {}, {}
for i, key in ipairs(KEYS) do
  local at = (i - 1) * 4
  local kind, most = ARGV[at + 1], tonumber(ARGV[at + 2])
  local period, cost = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local left, reset, short
  if kind == 'window' then
    local used = tonumber(redis.call('GET', key) or '0')
    local ends = redis.call('PTTL', key)
    reset = ends > 0 and ends * 1000 or period
    left = most - used - cost
    short = left < 0 and reset or 0
    if left < 0 then left = math.max(0, most - used) end
    writes[i] = {'window', ends, period}
  else
    local step = period / most
    local size = tonumber(ARGV[at + 2]) + tonumber(kind)
    local full = math.max(tonumber(redis.call('GET', key) or '0'), now)
    local after = full + cost * step
    short = math.max(0, after - size * step - now)
    if short > 0 then after = full end
    left = math.floor((size * step - (after - now)) / step + 0.000001)
    reset = after - now
    writes[i] = {'rate', after}
  end
  if short > 0 and short >= wait then refused, wait = i, short end
  answer[#answer + 1] = left
  answer[#answer + 1] = math.ceil(reset)
end
if refused == 0 then
  for i, key in ipairs(KEYS) do
    local write, cost = writes[i], ARGV[i * 4]
    if write[1] == 'rate' then
      local ttl = math.max(1, math.ceil((write[2] - now) / 1000))
      redis.call('SET', key, string.format('%.0f', write[2]), 'PX', ttl)
    else
      redis.call('INCRBY', key, cost)
      if write[2] < 0 then redis.call('PEXPIRE', key, math.ceil(write[3] / 1000)) end
    end
  end
end
return {refused, math.ceil(wait), unpack(answer)}
"""


class Window(NamedTuple):
    """At most `limit` in `seconds`, which begin with the first."""

    name: str
    limit: int
    seconds: int


class Rate(NamedTuple):
    """`limit` in `seconds` in the long run, and `burst` more at once."""

    name: str
    limit: int
    seconds: int
    burst: int = 0


Limit = Window | Rate


class Charge(NamedTuple):
    """What one decision takes from one limit, for the user, address or account in `key`."""

    limit: Limit
    key: str
    cost: int = 1

    @property
    def name(self) -> str:
        """The key in Redis."""
        return f"valence:limit:{self.limit.name}:{self.key}"


class State(NamedTuple):
    """What is left of a limit, and the seconds until it is whole again."""

    limit: Limit
    left: int
    reset: float


class _Decision(NamedTuple):
    refused: int  # 1-based; 0 for nobody
    wait: float  # seconds
    states: list[tuple[int, float]]  # left, seconds


class Limiter:
    """Decides about charges."""

    def __init__(self, cache: Cache):
        self._script = cache.script(_TAKE)
        self._local = _Local()

    async def take(self, *charges: Charge) -> list[State]:
        """Take all charges at once; raises `TooManyRequests` when one is over its limit."""
        try:
            decision = await self._ask(charges)
        except Unavailable:
            decision = self._local.take(charges)
        states = [
            State(charge.limit, left, reset)
            for charge, (left, reset) in zip(charges, decision.states, strict=True)
        ]
        if decision.refused:
            raise TooManyRequests(max(1, math.ceil(decision.wait)), headers=headers(states))
        return states

    async def _ask(self, charges: Sequence[Charge]) -> _Decision:
        arguments: list[float | str] = []
        for limit, _, cost in charges:
            kind = str(limit.burst) if isinstance(limit, Rate) else "window"
            arguments += [kind, limit.limit, limit.seconds * MICROSECOND, cost]
        answer = await self._script.run([charge.name for charge in charges], arguments)
        refused, wait, *flat = (int(part) for part in answer)
        states = [(flat[i], flat[i + 1] / MICROSECOND) for i in range(0, len(flat), 2)]
        return _Decision(refused, wait / MICROSECOND, states)


def headers(states: Sequence[State]) -> dict[str, str]:
    """The `RateLimit` fields of draft-ietf-httpapi-ratelimit-headers."""
    return {
        "RateLimit-Policy": ", ".join(
            f'"{limit.name}";q={limit.limit};w={limit.seconds}' for limit, _, _ in states
        ),
        "RateLimit": ", ".join(
            f'"{limit.name}";r={left};t={math.ceil(reset)}' for limit, left, reset in states
        ),
    }


class _Local:
    """The script's arithmetic in this process, for as long as Redis is away."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[float, float]] = {}  # count or 0, end

    def take(self, charges: Sequence[Charge]) -> _Decision:
        now = time.monotonic()
        if len(self._values) >= MAX_LOCAL_KEYS:
            self._values = {k: v for k, v in self._values.items() if v[1] > now}
        refused, wait = 0, 0.0
        states: list[tuple[int, float]] = []
        after: dict[str, tuple[float, float]] = {}
        for number, charge in enumerate(charges, 1):
            value, left, short = self._look(charge, now)
            # Flooded with keys: refuse new ones rather than forget the old.
            if len(self._values) >= MAX_LOCAL_KEYS and charge.name not in self._values:
                short = short or float(charge.limit.seconds)
            if short > 0 and short >= wait:
                refused, wait = number, short
            states.append((left, value[1] - now))
            after[charge.name] = value
        if not refused:
            self._values |= after
        return _Decision(refused, wait, states)

    def _look(self, charge: Charge, now: float) -> tuple[tuple[float, float], int, float]:
        """The value after the charge, what it leaves, and the seconds that it comes too early."""
        limit, cost = charge.limit, charge.cost
        count, ends = self._values.get(charge.name, (0.0, now))
        if isinstance(limit, Window):
            if ends <= now:
                count, ends = 0.0, now + limit.seconds
            left = limit.limit - int(count) - cost
            if left < 0:
                return (count, ends), max(0, limit.limit - int(count)), ends - now
            return (count + cost, ends), left, 0.0
        step, size = limit.seconds / limit.limit, limit.limit + limit.burst
        full = max(ends, now)
        after = full + cost * step
        short = max(0.0, after - size * step - now)
        if short > 0:
            after = full
        return (0.0, after), int((size * step - (after - now)) / step + 1e-6), short
