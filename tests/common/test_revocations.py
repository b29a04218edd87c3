"""Revocations are seen whatever the order of commits."""

import asyncio
import time
import uuid

from pydantic import SecretStr
from sqlalchemy import func, select

from valence_common.db import Database
from valence_common.revocations import Revocations, revoke


def test_later_commit_has_a_later_time(own_database_url: str) -> None:
    """Of two transactions about one user, the one that began first and ended last is seen too."""
    url, user_id = SecretStr(own_database_url), uuid.uuid4()
    database, revocations = Database(url, pool_size=2, timeout=5), Revocations(url)
    heard: list[uuid.UUID] = []
    revocations.subscribe(heard.append)
    with database.transaction() as slow:
        slow.execute(select(func.now()))
        with database.transaction() as quick:
            revoke(quick, [user_id])
        asyncio.run(revocations.poll())
        revoke(slow, [user_id])
    asyncio.run(revocations.poll())
    assert [user_id] * 2 == heard
    revocations.close()
    database.close()


def test_a_revocation_is_known_within_two_seconds(own_database_url: str) -> None:
    """Also one that is made just after the process has read them."""
    url = SecretStr(own_database_url)
    database, revocations = Database(url, pool_size=2, timeout=20), Revocations(url)
    known = asyncio.Queue[uuid.UUID]()
    revocations.subscribe(known.put_nowait)

    def revoke_one() -> None:
        with database.transaction() as session:
            revoke(session, [uuid.uuid4()])

    async def seconds() -> float:
        revoked_at = time.monotonic()
        await asyncio.to_thread(revoke_one)
        await asyncio.wait_for(known.get(), 60)
        return time.monotonic() - revoked_at

    async def measure() -> list[float]:
        polling = asyncio.create_task(revocations.poll_forever())
        await seconds()  # the next begins where this poll ends
        times = []
        # The machine may hiccup; a process that reads too seldom is late each time.
        while len(times) < 4 and (not times or times[-1] > 2):
            times.append(await seconds())
        polling.cancel()
        return times

    times = asyncio.run(measure())
    assert times[-1] <= 2, times
    revocations.close()
    database.close()
