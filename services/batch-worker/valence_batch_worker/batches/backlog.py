"""The backlog of chunks, for metrics and autoscaling: how many wait, how many run, for how long.

Every worker measures it every two seconds, so each count has a limit and follows an index.
"""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from valence_batch_worker.batches.chunks import CLAIMABLE
from valence_common.postgres import force_index_scans

MAX_CHUNKS = 1000
MAX_QUEUES = 300

WAITING: Final = f"SELECT count(*) FROM (SELECT {CLAIMABLE} LIMIT :limit) AS claimable"  # noqa: S608 - constant
"""Counts the claimable chunks, up to `limit`; KEDA scales by the same query."""

_RUNNING = text("""
SELECT count(*) FROM (SELECT FROM batch_chunks WHERE state = 'running' LIMIT :limit) AS running
""")

# One index step for each pair of user and priority, then the first chunk of each pair.
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
    """Numbers of chunks, each up to `MAX_CHUNKS`, and the age of the oldest claimable one."""

    waiting: int
    running: int
    oldest_seconds: float


def count_waiting(session: Session, *, max_attempts: int, limit: int = MAX_CHUNKS) -> int:
    """Count the claimable chunks, up to `limit`."""
    force_index_scans(session)
    limits = {"max_attempts": max_attempts, "limit": limit}
    count: int = session.execute(text(WAITING), limits).scalar_one()
    return count


def measure(session: Session, *, max_attempts: int) -> Backlog:
    """Measure the backlog now; the oldest chunk is searched in `MAX_QUEUES` queues.

    A queue holds one user's chunks of one priority.
    """
    count = count_waiting(session, max_attempts=max_attempts)
    running = session.execute(_RUNNING, {"limit": MAX_CHUNKS}).scalar_one()
    limits = {"max_attempts": max_attempts, "limit": MAX_QUEUES}
    oldest = float(session.execute(_OLDEST, limits).scalar_one())
    return Backlog(count, running, oldest)
