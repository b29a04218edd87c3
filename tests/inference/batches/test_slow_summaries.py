"""Slow summaries: of one user, and of all others."""

import asyncio
import time
import uuid

from pydantic import SecretStr

from support.files import stored
from support.stack import Stack
from valence_common.db import Database
from valence_common.problems import TooManyRequests
from valence_inference.batches.summary import Summaries, Summary
from valence_ml.scorer import Explanation


class Slow:
    """A scorer that explains slowly."""

    name, version = "slow", "1"

    def explain(self, _: str) -> Explanation:
        time.sleep(0.3)
        return Explanation(0.0, 0.0, [])


def test_one_user_cannot_keep_others_from_their_summaries(stack: Stack, database_url: str) -> None:
    """A user with many concurrent requests gets one summary and 429s; other users do not wait."""
    database = Database(SecretStr(database_url), pool_size=2, timeout=1.0)
    greedy, other = (stack.account() for _ in range(2))
    tasks = {
        owner.id: uuid.UUID(stored(database_url, owner.id, ["good"], model="slow@1"))
        for owner in (greedy, other)
    }

    async def run() -> list[Summary | BaseException]:
        summaries, owners = Summaries(database), [*[greedy] * 6, other]
        asked = [summaries.summarize(Slow(), uuid.UUID(each.id), tasks[each.id]) for each in owners]
        return await asyncio.gather(*asked, return_exceptions=True)

    first, *refused, others = asyncio.run(run())
    database.close()
    assert isinstance(first, Summary)
    assert [(TooManyRequests, "2")] * 5 == [(type(e), e.headers["Retry-After"]) for e in refused]
    assert isinstance(others, Summary)
