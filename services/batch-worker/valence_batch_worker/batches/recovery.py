"""Recovery of chunks: requeue those whose lease expired, bisect those that no attempt could score.

Any number of sweepers may run, since each takes different rows (`SKIP LOCKED`).
"""

import time
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from valence_batch_worker.batches.chunks import OPEN, Claim, LeaseLost, fail, report_ended, to_json
from valence_common.db import Database, new_id
from valence_common.postgres import force_index_scans

POISON_ERROR = "could not be scored"
MAX_CHUNKS = 200
MAX_SECONDS = 10

_REQUEUE_EXPIRED = text("""
UPDATE batch_chunks SET state = 'pending', lease_until = NULL
WHERE id IN (
    SELECT id FROM batch_chunks WHERE state = 'running' AND lease_until < now()
    ORDER BY lease_until LIMIT :limit FOR UPDATE SKIP LOCKED
)
""")

# `attempt > 0` and the order select the partial index; the result does not depend on them.
_EXHAUSTED = text(f"""
SELECT chunk.id, chunk.attempt, chunk.batch_id, chunk.user_id, chunk.start, chunk.texts,
    chunk.priority, chunk.rows
FROM batch_chunks AS chunk
WHERE chunk.state = 'pending' AND chunk.attempt > 0 AND chunk.attempt >= :max_attempts AND {OPEN}
ORDER BY chunk.attempt DESC LIMIT 1 FOR UPDATE OF chunk SKIP LOCKED
""")  # noqa: S608 - a constant of that file

_DELETE_CHUNK = text("DELETE FROM batch_chunks WHERE id = :id")

_INSERT_CHUNK = text("""
INSERT INTO batch_chunks (id, batch_id, user_id, priority, start, size, texts, rows, attempt)
VALUES (:id, :batch_id, :user_id, :priority, :start, :size, CAST(:texts AS json),
    CAST(:rows AS json), :attempt)
""")


def requeue_expired(session: Session) -> int:
    """Requeue chunks whose lease expired; return how many."""
    force_index_scans(session)
    result = session.connection().execute(_REQUEUE_EXPIRED, {"limit": MAX_CHUNKS})
    return result.rowcount


def resolve_exhausted(database: Database, *, max_attempts: int, store_texts: bool = True) -> int:
    """Bisect each chunk without attempts left; fail single texts. Return the number of chunks."""
    resolved, ends = 0, time.monotonic() + MAX_SECONDS
    while resolved < MAX_CHUNKS and time.monotonic() < ends:
        with database.transaction() as session:
            force_index_scans(session)
            row = session.execute(_EXHAUSTED, {"max_attempts": max_attempts}).one_or_none()
            if row is None:
                break
            *claim, priority, rows = row
            chunk = Claim(*claim)
            if len(chunk.texts) > 1:
                _bisect(session, chunk, priority, rows, max_attempts=max_attempts)
        if len(chunk.texts) == 1:
            _fail(database, chunk, store_texts=store_texts)
        resolved += 1
    return resolved


def _bisect(
    session: Session, chunk: Claim, priority: int, rows: list[Any] | None, *, max_attempts: int
) -> None:
    """Replace a chunk by its halves under new ids, which voids the old fencing token.

    A half has one attempt left, because each step towards the failing text may kill a worker. A
    single text has all attempts, so that no text fails because of its neighbours.
    """
    half = len(chunk.texts) // 2
    session.execute(_DELETE_CHUNK, {"id": chunk.id})
    for part in (slice(half), slice(half, None)):
        texts = chunk.texts[part]
        values = {
            "id": new_id(),
            "batch_id": chunk.batch_id,
            "user_id": chunk.user_id,
            "priority": priority,
            "start": chunk.start + (part.start or 0),
            "size": len(texts),
            "texts": to_json(texts),
            "rows": None if rows is None else to_json(rows[part]),
            "attempt": 0 if len(texts) == 1 else max_attempts - 1,
        }
        session.execute(_INSERT_CHUNK, values)


def _fail(database: Database, chunk: Claim, *, store_texts: bool) -> None:
    # A separate transaction: it must lock the batch before the chunk, as completion does.
    try:
        with database.transaction() as session:
            ended = fail(session, chunk, POISON_ERROR, store_texts=store_texts)
    except LeaseLost:
        return
    report_ended(chunk, ended)
