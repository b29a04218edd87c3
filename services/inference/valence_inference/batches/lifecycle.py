"""What the owner of a submitted batch can do with it: cancel, retry, delete.

Locks are taken in one order everywhere: the batch, then its chunks. A transaction that claims or
bisects chunks never waits for the batch, so waiting for chunks here is short.
"""

import uuid
from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.orm import Session

from valence_common.audit import record
from valence_common.batches import end_batch
from valence_common.db import new_id, renew_deadline
from valence_common.models import TERMINAL, Batch
from valence_common.problems import Conflict
from valence_inference.batches import status
from valence_inference.batches.status import Status

MAX_CHUNKS_PER_STATEMENT = 2_000

_OPEN_CHUNKS = "FROM batch_chunks WHERE batch_id = :id AND state <> 'done'"
_HAS_OPEN_CHUNKS = text(f"SELECT EXISTS (SELECT {_OPEN_CHUNKS})")
_DELETE_OPEN_CHUNKS = text(f"DELETE {_OPEN_CHUNKS}")

_COUNT_DONE = text("""
SELECT coalesce(sum(size), 0) AS done, coalesce(sum(failed), 0) AS failed
FROM batch_chunks WHERE batch_id = :id
""")

_COUNT_FAILED = text("""
SELECT coalesce(sum(failed), 0) AS failed, bool_and(json_array_length(texts) > 0) AS stored
FROM batch_chunks WHERE batch_id = :id AND state = 'done' AND failed > 0
""")

_NEXT_FAILED_CHUNKS = text("""
SELECT id FROM batch_chunks WHERE batch_id = :id AND state = 'done' AND failed > 0
ORDER BY start LIMIT :limit
""")

# The worker fails a chunk as a whole, and only after it was bisected down to a single text.
_DELETE_RESULTS = text("""
DELETE FROM batch_results AS result USING batch_chunks AS chunk
WHERE chunk.id = ANY(:old) AND result.batch_id = chunk.batch_id
    AND result.position >= chunk.start AND result.position < chunk.start + chunk.size
""")

_COPY_CHUNKS = text("""
INSERT INTO batch_chunks (id, batch_id, user_id, priority, start, size, texts, rows)
SELECT pair.new, chunk.batch_id, :user_id, :priority, chunk.start, chunk.size, chunk.texts,
    chunk.rows
FROM unnest(CAST(:old AS uuid[]), CAST(:new AS uuid[])) AS pair (old, new)
JOIN batch_chunks AS chunk ON chunk.id = pair.old
""")

_DELETE_CHUNKS = text("DELETE FROM batch_chunks WHERE id = ANY(:old)")

_REOPEN_BATCH = text("""
UPDATE batches SET status = 'processing', started_at = now(), finished_at = NULL WHERE id = :id
""")

_MARK_DELETED = text("UPDATE batches SET deleted_at = now() WHERE id = :id")


class AlreadyEnded(Conflict):
    """A batch that has ended cannot be cancelled."""

    detail = "The batch has already ended"


class NothingToRetry(Conflict):
    """The batch has not ended, was cancelled, or has no failed texts."""

    detail = "The batch has no failed texts to retry"


class TextsNotStored(Conflict):
    """This installation does not store texts."""

    detail = "The texts of the batch are not stored, so they cannot be retried"


def cancel(session: Session, user_id: uuid.UUID, task_id: uuid.UUID, *, max_inline: int) -> Status:
    """End a batch early: keep the results so far and drop the rest.

    Workers discard the chunks that they hold. Cancelling a cancelled batch changes nothing. Raises
    `AlreadyEnded` for a batch that ended otherwise.
    """
    batch = status.find(session, user_id, task_id, lock=True)
    if batch.status != "cancelled":
        if batch.status in TERMINAL:
            raise AlreadyEnded
        _end(session, batch)
        session.refresh(batch)
    return status.compute_status(session, batch, max_inline=max_inline)


def _end(session: Session, batch: Batch) -> None:
    # A delete that waited for a bisected chunk does not see the chunk's halves: look again.
    while session.scalar(_HAS_OPEN_CHUNKS, {"id": batch.id}):
        session.execute(_DELETE_OPEN_CHUNKS, {"id": batch.id})
    counts = session.execute(_COUNT_DONE, {"id": batch.id}).one()
    end_batch(
        session,
        batch.id,
        user_id=batch.user_id,
        status="cancelled",
        details={"total": batch.total, "done": counts.done, "failed": counts.failed},
    )


def count_retriable(session: Session, user_id: uuid.UUID, task_id: uuid.UUID) -> int:
    """Return how many texts of a batch `retry` would retry, at least one; raise what it raises."""
    return _count_retriable(session, status.find(session, user_id, task_id))


def _count_retriable(session: Session, batch: Batch) -> int:
    if batch.status not in {"completed_with_errors", "failed"}:
        raise NothingToRetry
    row = session.execute(_COUNT_FAILED, {"id": batch.id}).one()
    count: int = row.failed
    if not count:
        raise NothingToRetry
    if not row.stored:
        raise TextsNotStored
    return count


def retry(
    session: Session, user_id: uuid.UUID, task_id: uuid.UUID, *, texts: int, max_inline: int
) -> Status:
    """Reopen a batch for its failed texts, of which there must be exactly `texts`.

    Their chunks get new ids, because the fencing tokens of the old ones are used up.
    """
    batch = status.find(session, user_id, task_id, lock=True)
    if _count_retriable(session, batch) != texts:
        raise NothingToRetry  # a concurrent request has just retried them
    values = {"id": batch.id, "limit": MAX_CHUNKS_PER_STATEMENT}
    while old := session.scalars(_NEXT_FAILED_CHUNKS, values).all():
        _replace_chunks(session, batch, old)
        renew_deadline()
    session.execute(_REOPEN_BATCH, {"id": batch.id})
    _audit(session, batch, "batch.retried", {"total": batch.total, "retried": texts})
    session.refresh(batch)
    return status.compute_status(session, batch, max_inline=max_inline)


def _replace_chunks(session: Session, batch: Batch, old: Sequence[uuid.UUID]) -> None:
    ids = {"old": list(old), "new": [new_id() for _ in old]}
    session.execute(_DELETE_RESULTS, {"old": ids["old"]})
    session.execute(_COPY_CHUNKS, {**ids, "user_id": batch.user_id, "priority": batch.priority})
    session.execute(_DELETE_CHUNKS, {"old": ids["old"]})


def delete(session: Session, user_id: uuid.UUID, task_id: uuid.UUID) -> None:
    """Hide a batch, cancelling it if it has not ended; workers delete its rows later."""
    batch = status.find(session, user_id, task_id, lock=True)
    if batch.status not in TERMINAL:
        _end(session, batch)
    session.execute(_MARK_DELETED, {"id": batch.id})
    _audit(session, batch, "batch.deleted", {"total": batch.total})


def _audit(session: Session, batch: Batch, action: str, details: dict[str, int]) -> None:
    record(session, action, user_id=batch.user_id, subject_id=batch.id, details=details)
