"""Revocations are seen whatever the order of commits."""

import asyncio
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
