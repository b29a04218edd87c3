"""Rate limits and quotas: decided in Redis in one atomic step, in this process while Redis is away.

One decision may involve several limits: the request is charged to all of them, or to none.
"""

import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Final, NamedTuple

from valence_common.problems import TooManyRequests, Unavailable
from valence_common.redis_client import RedisClient

MAX_LOCAL_KEYS: Final = 100_000
MICROSECOND: Final = 1_000_000
DAY_SECONDS: Final = 86_400

_SCRIPT: Final = files("valence_common").joinpath("rate_limit.lua").read_text("utf-8")


class Window(NamedTuple):
    """At most `limit` in `seconds`, from the first request on."""

    name: str
    limit: int
    seconds: int


class Day(NamedTuple):
    """At most `limit` from midnight to midnight (UTC)."""

    name: str
    limit: int
    seconds: int = DAY_SECONDS


class Rate(NamedTuple):
    """`limit` in `seconds` in the long run (GCRA), and `burst` more at once."""

    name: str
    limit: int
    seconds: int
    burst: int = 0


Limit = Window | Day | Rate


class Hit(NamedTuple):
    """The charge of one request to one limit, for the user, address or account in `key`.

    `initial` looks up what was used of a `Day` before it is first counted; by default nothing.
    """

    limit: Limit
    key: str
    cost: int = 1
    initial: Callable[[], Awaitable[int]] | None = None


class LimitStatus(NamedTuple):
    """What remains of a limit, and the seconds until it is full again."""

    limit: Limit
    remaining: int
    reset: float


class _Request(NamedTuple):
    """A hit at this moment, as numbers: the arguments of the script."""

    name: str
    burst: int  # -1 for a window
    limit: int
    seconds: float
    cost: int
    initial: int  # -1 if it has to be looked up

    @property
    def capacity(self) -> int:
        return self.limit + max(0, self.burst)


class _Decision(NamedTuple):
    refused: bool
    wait: float  # seconds
    states: list[tuple[int, float]]  # remaining, seconds to the reset


class _InitialNeeded(NamedTuple):
    """No decision yet: the request at `position` needs its initial count."""

    position: int


class Limiter:
    """Charges requests to limits."""

    def __init__(self, redis: RedisClient):
        self._script = redis.script(_SCRIPT)
        self._local = _LocalLimiter()

    async def acquire(self, *hits: Hit) -> list[LimitStatus]:
        """Charge all hits at once; raise `TooManyRequests` when one exceeds its limit.

        An error of a hit's `initial` is raised as it is; then nothing was charged.
        """
        requests = [_request(hit) for hit in hits]
        decision = await self._decide(requests)
        while isinstance(decision, _InitialNeeded):
            position = decision.position
            initial = hits[position].initial
            count = 0 if initial is None else await initial()
            requests[position] = requests[position]._replace(initial=count)
            decision = await self._decide(requests)
        statuses = [
            LimitStatus(hit.limit, remaining, reset)
            for hit, (remaining, reset) in zip(hits, decision.states, strict=True)
        ]
        if decision.refused:
            raise TooManyRequests(max(1, math.ceil(decision.wait)), headers=headers(statuses))
        return statuses

    async def refund(self, *hits: Hit) -> None:
        """Undo `acquire` as far as possible: a window that has ended since is not refunded."""
        with suppress(TooManyRequests, Unavailable):
            await self.acquire(*(hit._replace(cost=-hit.cost) for hit in hits))

    async def _decide(self, requests: Sequence[_Request]) -> _Decision | _InitialNeeded:
        try:
            decision = await self._decide_in_redis(requests)
        except Unavailable:
            return self._local.decide(requests)
        for request in requests:
            if request.initial < 0:
                # Redis counts it again, so the next outage must look it up.
                self._local.forget(request.name)
        return decision

    async def _decide_in_redis(self, requests: Sequence[_Request]) -> _Decision | _InitialNeeded:
        arguments: list[float | str] = []
        for _, burst, limit, seconds, cost, initial in requests:
            arguments += [burst, limit, round(seconds * MICROSECOND), cost, initial]
        answer = await self._script.run([request.name for request in requests], arguments)
        refused, wait, *flat = (int(part) for part in answer)
        if refused < 0:
            return _InitialNeeded(wait - 1)
        states = [(flat[i], flat[i + 1] / MICROSECOND) for i in range(0, len(flat), 2)]
        return _Decision(refused > 0, wait / MICROSECOND, states)


class _LocalLimiter:
    """Fixed windows in this process: each process enforces limits alone while Redis is away.

    A rate's window admits its limit and burst, so a client within its rate is not refused.
    """

    def __init__(self) -> None:
        self._windows: dict[str, tuple[int, float]] = {}  # used, end
        self._swept_at = 0.0

    def decide(self, requests: Sequence[_Request]) -> _Decision | _InitialNeeded:
        now = time.monotonic()
        self._sweep(now)
        for position, request in enumerate(requests):
            _, end = self._windows.get(request.name, (0, now))
            if end > now:
                continue
            if request.initial < 0:
                return _InitialNeeded(position)
            # When full of keys, refuse new ones rather than forget any that still counts.
            if len(self._windows) >= MAX_LOCAL_KEYS and request.name not in self._windows:
                states = [(0, other.seconds) for other in requests]
                return _Decision(refused=True, wait=request.seconds, states=states)
            self._windows[request.name] = request.initial, now + request.seconds
        windows = [self._windows[request.name] for request in requests]
        wait = max(
            end - now if request.cost > 0 and used + request.cost > request.capacity else 0.0
            for request, (used, end) in zip(requests, windows, strict=True)
        )
        if not wait:
            for n, (request, (used, end)) in enumerate(zip(requests, windows, strict=True)):
                windows[n] = self._windows[request.name] = max(0, used + request.cost), end
        states = [
            (max(0, request.capacity - used), end - now)
            for request, (used, end) in zip(requests, windows, strict=True)
        ]
        return _Decision(wait > 0, wait, states)

    def forget(self, name: str) -> None:
        self._windows.pop(name, None)

    def _sweep(self, now: float) -> None:
        """Drop the windows that have ended; only when full, and at most once a second."""
        if len(self._windows) >= MAX_LOCAL_KEYS and now - self._swept_at >= 1:
            self._swept_at = now
            self._windows = {
                k: (used, end) for k, (used, end) in self._windows.items() if end > now
            }


def headers(statuses: Sequence[LimitStatus]) -> dict[str, str]:
    """Return the `RateLimit` fields of draft-ietf-httpapi-ratelimit-headers."""
    return {
        "RateLimit-Policy": ", ".join(_policy(limit) for limit, _, _ in statuses),
        "RateLimit": ", ".join(
            f'"{limit.name}";r={remaining};t={math.ceil(reset)}'
            for limit, remaining, reset in statuses
        ),
    }


def _policy(limit: Limit) -> str:
    policy = f'"{limit.name}";q={limit.limit};w={limit.seconds}'
    burst = isinstance(limit, Rate) and limit.burst
    return f"{policy};burst={burst}" if burst else policy


def _request(hit: Hit) -> _Request:
    limit, key, cost, initial = hit
    name = f"valence:limit:{limit.name}:{key}"
    burst = limit.burst if isinstance(limit, Rate) else -1
    seconds = float(limit.seconds)
    if isinstance(limit, Day):
        now = datetime.now(UTC)
        name = f"{name}:{now:%Y-%m-%d}"
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        seconds = (midnight - now).total_seconds()
    return _Request(name, burst, limit.limit, seconds, cost, 0 if initial is None else -1)
