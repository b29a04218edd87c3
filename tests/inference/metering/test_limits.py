"""The daily quota of texts: what a batch took and did not use is given back."""

import asyncio
import uuid

import pytest
from pydantic import SecretStr
from starlette.requests import Request

from support.batches import make_user
from valence_common.db import Database
from valence_common.problems import TooManyRequests
from valence_common.rate_limits import Limiter
from valence_common.redis_client import RedisClient
from valence_common.revocations import Revocations
from valence_common.security import Principal
from valence_common.setting_types import Plan
from valence_inference.metering.api_keys import ApiKeyVerifier
from valence_inference.metering.limits import RequestLimiter
from valence_inference.metering.plans import UserPlans
from valence_inference.metering.usage import TextsToday, Usage

PLANS = {"default": Plan(texts_per_day=10)}


@pytest.mark.parametrize("error", [RuntimeError, asyncio.CancelledError])
def test_texts_of_a_batch_that_is_not_stored_are_returned(
    database: Database, own_database_url: str, redis_url: str, error: type[BaseException]
) -> None:
    """Whether the batch fails or its request is cancelled, as it is when a drain times out."""
    with database.transaction() as session:
        user = Principal(make_user(session), frozenset(), 0, session_id=uuid.uuid4())

    async def work() -> None:
        redis = RedisClient(SecretStr(redis_url), timeout=5)
        revocations = Revocations(SecretStr(own_database_url))
        limiter = RequestLimiter(
            limiter=Limiter(redis),
            plans=UserPlans(database, revocations, PLANS),
            api_keys=ApiKeyVerifier(database, revocations),
            usage=Usage(database),
            texts_today=TextsToday(database, revocations),
        )

        async def submit(texts: int, error: type[BaseException] | None = None) -> None:
            async with limiter.reserve_texts(Request({"type": "http"}), user, texts):
                if error is not None:
                    raise error

        with pytest.raises(error):
            await submit(10, error)
        await submit(10)
        with pytest.raises(TooManyRequests):
            await submit(1)
        await redis.close()

    asyncio.run(work())
