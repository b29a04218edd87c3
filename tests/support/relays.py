"""Relays as workers have them, and what they must have told."""

import contextlib
from collections.abc import Iterator

from pydantic import SecretStr
from sqlalchemy import text

from support.events import Published, judge_order, stream
from support.rows import query
from support.servers import FragileValkey
from valence_batch_worker.outbox_relay import OutboxRelay
from valence_batch_worker.periodic import PeriodicThread
from valence_common.db import Database
from valence_common.redis_client import blocking_client


def make(
    database: Database, valkey: FragileValkey, cls: type[OutboxRelay] = OutboxRelay
) -> OutboxRelay:
    """A relay as each worker has one."""
    return cls(database, blocking_client(SecretStr(valkey.url()), timeout=2))


@contextlib.contextmanager
def relaying(database: Database, valkey: FragileValkey, count: int = 1) -> Iterator[None]:
    """Relays that look again and again, as in workers."""
    loops = [PeriodicThread("relay", 0.01, make(database, valkey).work) for _ in range(count)]
    for loop in loops:
        loop.start()
    try:
        yield
    finally:
        for loop in loops:
            loop.stop()
        for loop in loops:
            loop.join(30)


def write_many(database: Database, count: int) -> None:
    with database.transaction() as session:
        session.execute(
            text(
                "INSERT INTO events (id, type) SELECT gen_random_uuid(), 'batch.accepted'"
                " FROM generate_series(1, :count)"
            ),
            {"count": count},
        )


def published(valkey: FragileValkey) -> Published:
    with valkey.client() as client:
        return stream(client)


def judge(database_url: str, found: Published) -> None:
    """Every event that was ever written, each once, in the order of its number."""
    judge_order(found)
    written = query(database_url, "SELECT id::text FROM events")
    assert sorted(own for (own,) in written) == sorted(event["id"] for _, event in found)
