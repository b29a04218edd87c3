"""The meter: who may ask for how much now, decided before their request's body is read."""

import contextlib
import uuid
from collections.abc import AsyncIterator, Sequence
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
"""The routes that ask for work, by their templates, and what their limits are called."""

MINUTE: Final = 60


class RequestLimiter:
    """Counts requests against the limits of their user and key.

    A request that its body's faults end has been counted: it was work as well.
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
        self._written = texts_today
        self._allowances = plans
        self._api_keys = api_keys
        self._usage = usage

    async def count(self, connection: HTTPConnection, principal: Principal) -> None:
        """Count one request; raises `TooManyRequests`."""
        if principal.key_id is not None:
            self._usage.touch(principal.key_id)
        name = LIMIT_OF_ROUTE.get(connection.scope["route"].path)
        if name is not None:
            charges = await self._hits(name, principal)
            _add_headers(connection, await self._acquire(charges))

    async def count_message(self, principal: Principal) -> None:
        """Count one text of a connection as one analysis; raises `TooManyRequests`."""
        if principal.key_id is not None:
            self._usage.touch(principal.key_id)
        await self._acquire(await self._hits(ANALYZE, principal))

    async def _hits(self, name: str, principal: Principal) -> list[Hit]:
        plan = await self._allowances.get(principal.user_id)
        charges = [Hit(Rate(name, plan.per_minute, MINUTE, plan.burst), str(principal.user_id))]
        if principal.key_id is not None:
            per_minute = await self._api_keys.per_minute(principal.key_id)
            if per_minute is not None:
                charges.append(Hit(Rate("key", per_minute, MINUTE), str(principal.key_id)))
        if name == ANALYZE:
            charges.append(self._texts_hit(principal.user_id, plan, 1))
        return charges

    @contextlib.asynccontextmanager
    async def reserve_texts(
        self, request: Request, principal: Principal, texts: int
    ) -> AsyncIterator[None]:
        """Take a batch's texts from the day's; raises `TooManyRequests`.

        They are given back if the batch is not stored.
        """
        plan = await self._allowances.get(principal.user_id)
        charge = self._texts_hit(principal.user_id, plan, texts)
        taken = await self._acquire([charge])
        _add_headers(request, taken)
        try:
            yield
        except Exception:
            if taken:
                await self._limiter.refund(charge)
            raise

    def _texts_hit(self, user_id: uuid.UUID, plan: Plan, texts: int) -> Hit:
        """The charge of today's texts, which goes on from what is written when Redis forgot."""

        async def written() -> int:
            if self._allowances.unavailable:
                raise Unavailable("postgres")
            return await self._written.get(user_id)

        return Hit(Day("texts", plan.texts_per_day), str(user_id), texts, written)

    async def _acquire(self, charges: Sequence[Hit]) -> list[LimitStatus]:
        try:
            return await self._limiter.acquire(*charges)
        except Unavailable:
            # Nobody knows how many texts it were today: the other limits hold.
            known = [charge for charge in charges if charge.initial is None]
            return await self._limiter.acquire(*known) if known else []


def _add_headers(connection: HTTPConnection, states: Sequence[LimitStatus]) -> None:
    """Put the state of all limits that the request met into its answer."""
    state = request_state(connection.scope)
    state.limits += states
    state.headers.update(rate_limits.headers(state.limits))
