"""The backlog: how much waits and is in work, and for how long; what operators and scalers ask.

Every worker counts it every two seconds, so each count has a bound and follows an index.
"""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from valence_batch_worker.batches.chunks import CLAIMABLE
from valence_batch_worker.fair_queue import follow_index

MAX_CHUNKS = 1000
MAX_QUEUES = 300

WAITING: Final = f"SELECT count(*) FROM (SELECT {CLAIMABLE} LIMIT :limit) AS claimable"  # noqa: S608
"""Chunks that could be claimed now, up to `most`; also the query that KEDA scales by."""

_RUNNING = text(
    "SELECT count(*) FROM (SELECT FROM batch_chunks WHERE state = 'running' LIMIT :limit) AS running"
)

# One step along the index for each user's chunks of one priority, then the first of each.
_OLDEST = text(f"""
WITH RECURSIVE queue AS (
    (SELECT user_id, priority FROM batch_chunks WHERE state = 'pending'
    ORDER BY user_id, priority LIMIT 1)
    UNION ALL
    SELECT later.user_id, later.priority
    FROM queue, LATERAL (
        SELECT user_id, priority FROM batch_chunks
        WHERE state = 'pending' AND (user_id, priority) > (queue.user_id, queue.priority)
        ORDER BY user_id, priority LIMIT 1
    ) AS later
)
SELECT coalesce(extract(epoch FROM now() - min(first.available_at)), 0)
FROM (SELECT user_id, priority FROM queue LIMIT :limit) AS queue, LATERAL (
    SELECT chunk.available_at {CLAIMABLE}
        AND chunk.user_id = queue.user_id AND chunk.priority = queue.priority
    ORDER BY chunk.available_at LIMIT 1
) AS first
""")  # noqa: S608 - constants of that file


@dataclass(frozen=True)
class Backlog:
    """Chunks, up to `MOST_CHUNKS` of each kind; the oldest that waits does so for that long."""

    waiting: int
    running: int
    oldest_seconds: float


def count_waiting(session: Session, *, max_attempts: int, limit: int = MAX_CHUNKS) -> int:
    """How many chunks could be claimed now, counted up to `most`."""
    follow_index(session)
    limits = {"max_attempts": max_attempts, "limit": limit}
    count: int = session.execute(text(WAITING), limits).scalar_one()
    return count


def measure(session: Session, *, max_attempts: int) -> Backlog:
    """All of it as of now; the oldest of `MOST_QUEUES` users' and priorities' queues."""
    count = count_waiting(session, max_attempts=max_attempts)
    running = session.execute(_RUNNING, {"limit": MAX_CHUNKS}).scalar_one()
    limits = {"max_attempts": max_attempts, "limit": MAX_QUEUES}
    oldest = float(session.execute(_OLDEST, limits).scalar_one())
    return Backlog(count, running, oldest)
