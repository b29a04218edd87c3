"""Rate limits and daily quotas of requests, checked before the request body is read."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

from fastapi import Request
from starlette.requests import HTTPConnection

from valence_common import rate_limits
from valence_common.problems import Unavailable
from valence_common.rate_limits import Day, Hit, Limiter, LimitStatus, Rate
from valence_common.security import Principal
from valence_common.setting_types import Plan
from valence_common.web.app import API
from valence_common.web.state import request_state
from valence_inference.metering.api_keys import ApiKeyVerifier
from valence_inference.metering.plans import UserPlans
from valence_inference.metering.usage import TextsToday, Usage

ANALYZE: Final = "analyze"
BATCH: Final = "batch"
WEBHOOKS: Final = "webhooks"
LIMIT_OF_ROUTE: Final = {
    f"{API}/sentiment/analyze": ANALYZE,
    f"{API}/sentiment/analyze/batch": BATCH,
    f"{API}/sentiment/task/{{task_id}}/retry": BATCH,
    f"{API}/webhooks/secret": WEBHOOKS,
    f"{API}/sentiment/task/{{task_id}}/deliveries/{{delivery_id}}/redeliver": WEBHOOKS,
}
"""The name of the limit of each rate-limited route, by the route's template."""

MINUTE: Final = 60

Refund = Callable[[], Awaitable[None]]


class RequestLimiter:
    """Counts requests against the limits of their user and API key.

    A request that is rejected because of its body still counts.
    """

    def __init__(
        self,
        *,
        limiter: Limiter,
        plans: UserPlans,
        api_keys: ApiKeyVerifier,
        usage: Usage,
        texts_today: TextsToday,
    ):
        self._limiter = limiter
        self._texts_today = texts_today
        self._plans = plans
        self._api_keys = api_keys
        self._usage = usage

    async def count(self, connection: HTTPConnection, principal: Principal) -> None:
        """Count one request; raise `TooManyRequests`."""
        if principal.key_id is not None:
            self._usage.touch(principal.key_id)
        name = LIMIT_OF_ROUTE.get(connection.scope["route"].path)
        if name is not None:
            hits = await self._hits(name, principal)
            _add_headers(connection, await self._acquire(hits))

    async def count_message(self, principal: Principal) -> None:
        """Count one WebSocket message as one analysis; raise `TooManyRequests`."""
        if principal.key_id is not None:
            self._usage.touch(principal.key_id)
        await self._acquire(await self._hits(ANALYZE, principal))

    async def _hits(self, name: str, principal: Principal) -> list[Hit]:
        plan = await self._plans.get(principal.user_id)
        hits = [Hit(Rate(name, plan.per_minute, MINUTE, plan.burst), str(principal.user_id))]
        if principal.key_id is not None:
            per_minute = await self._api_keys.per_minute(principal.key_id)
            if per_minute is not None:
                hits.append(Hit(Rate("key", per_minute, MINUTE), str(principal.key_id)))
        if name == ANALYZE:
            hits.append(self._texts_hit(principal.user_id, plan, 1))
        return hits

    @contextlib.asynccontextmanager
    async def reserve_texts(
        self, request: Request, principal: Principal, texts: int
    ) -> AsyncIterator[Refund]:
        """Take the texts of a batch from the daily quota; raise `TooManyRequests`.

        The block is given a function that returns the texts to the quota. They are also returned
        if the block raises or is cancelled.
        """
        plan = await self._plans.get(principal.user_id)
        hit = self._texts_hit(principal.user_id, plan, texts)
        acquired = await self._acquire([hit])
        _add_headers(request, acquired)

        async def refund() -> None:
            if acquired:
                await self._limiter.refund(hit)

        try:
            yield refund
        except (Exception, asyncio.CancelledError):
            await refund()
            raise

    def _texts_hit(self, user_id: uuid.UUID, plan: Plan, texts: int) -> Hit:
        """Return the hit on the daily quota; its counter starts at the usage in Postgres."""

        async def initial() -> int:
            if self._plans.unavailable:
                raise Unavailable("postgres")
            return await self._texts_today.get(user_id)

        return Hit(Day("texts", plan.texts_per_day), str(user_id), texts, initial)

    async def _acquire(self, hits: Sequence[Hit]) -> list[LimitStatus]:
        try:
            return await self._limiter.acquire(*hits)
        except Unavailable:
            # Without Redis and Postgres the quota is not known; the rate limits still apply.
            rates = [hit for hit in hits if hit.initial is None]
            return await self._limiter.acquire(*rates) if rates else []


def _add_headers(connection: HTTPConnection, statuses: Sequence[LimitStatus]) -> None:
    """Add the status of every limit that the request was counted against to its response."""
    state = request_state(connection.scope)
    state.limits += statuses
    state.headers.update(rate_limits.headers(state.limits))
