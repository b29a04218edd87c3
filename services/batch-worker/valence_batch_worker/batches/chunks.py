"""Chunks of batches: claimed under a lease, completed once, whatever dies in between.

The claim counts the attempt before the work begins; (id, attempt) is the fencing token without
which nothing is stored. All times are the database's. Lock order: the batch, then its chunk; a
claim takes its chunk alone and touches the batch only while it is still pending.
"""

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog
from sqlalchemy import text
from sqlalchemy.orm import Session

from valence_batch_worker import metrics
from valence_batch_worker.fair_queue import NIL, follow_index, round_robin_users
from valence_common.batches import end_batch
from valence_common.db import new_id
from valence_ml import Score

# What stands in front of a user's queue and cannot be claimed is looked at by every claim (1.4 µs a
# chunk): the sweeper settles exhausted chunks; whoever ends a batch before its last chunk deletes
# its chunks in the same transaction.
# Batches of an erased account are never open again; erasing deletes them. The batch is asked for a
# value, since of EXISTS Postgres makes a join, in any order.
OPEN = """(
    SELECT batch.status IN ('pending', 'processing') AND owner.erased_at IS NULL
    FROM batches AS batch JOIN users AS owner ON owner.id = batch.user_id
    WHERE batch.id = chunk.batch_id
)"""

CLAIMABLE = f"""
    FROM batch_chunks AS chunk
    WHERE chunk.state = 'pending' AND chunk.available_at <= now() AND chunk.attempt < :max_attempts
        AND {OPEN}
"""

# `busy` are those who have as many chunks in work as anybody may; two who claim at once may go one
# over.
_CLAIM = text(f"""
WITH RECURSIVE busy AS MATERIALIZED (
    SELECT user_id FROM batch_chunks WHERE state = 'running'
    GROUP BY user_id HAVING count(*) >= :user_chunks
), {round_robin_users("batch_chunks WHERE state = 'pending'")}, next AS (
    SELECT found.id
    FROM turn, LATERAL (
        SELECT chunk.id {CLAIMABLE} AND chunk.user_id = turn.user_id
        ORDER BY chunk.priority, chunk.available_at, chunk.id
        LIMIT 1 FOR UPDATE OF chunk SKIP LOCKED
    ) AS found
    WHERE turn.begun AND turn.user_id NOT IN (SELECT user_id FROM busy)
    LIMIT 1
)
UPDATE batch_chunks AS mine
SET state = 'running', attempt = mine.attempt + 1, lease_until = now() + :lease * interval '1 s'
FROM batches AS batch
WHERE batch.id = mine.batch_id AND mine.id = (SELECT id FROM next)
RETURNING mine.id, mine.attempt, mine.batch_id, mine.start, mine.texts, batch.user_id, batch.status
""")  # noqa: S608 - constants of this file

# Never waits: who has locked the batch may want the chunk that this transaction holds.
_BEGIN_BATCH = text("""
UPDATE batches SET status = 'processing', started_at = now()
WHERE id = (
    SELECT id FROM batches WHERE id = :id AND status = 'pending' FOR NO KEY UPDATE SKIP LOCKED
)
""")

# NO KEY: rows that only refer to the batch may be written meanwhile.
_LOCK_BATCH = text("""
SELECT total, user_id FROM batches
WHERE id = :id AND status IN ('pending', 'processing')
    AND (SELECT erased_at FROM users WHERE id = user_id) IS NULL
FOR NO KEY UPDATE
""")

_MARK_DONE = text("""
UPDATE batch_chunks
SET state = 'done', lease_until = NULL, done_at = now(), failed = :failed, model = :model,
    texts = CASE WHEN :store_texts THEN texts ELSE '[]' END,
    rows = CASE WHEN :store_texts THEN rows END
WHERE id = :id AND attempt = :attempt AND state <> 'done'
""")

_INSERT_RESULTS = text("""
INSERT INTO batch_results (batch_id, position, sentiment, confidence, low_confidence, error)
SELECT :batch_id, position, sentiment, confidence, low_confidence, error
FROM json_to_recordset(:rows) AS row (
    position integer, sentiment text, confidence double precision, low_confidence boolean,
    error text)
ON CONFLICT DO NOTHING
""")

_INSERT_HISTORY = text("""
INSERT INTO predictions
    (id, user_id, text, text_hash, sentiment, confidence, low_confidence, model)
SELECT id, :user_id, text, decode(hash, 'hex'), sentiment, confidence, low_confidence, :model
FROM json_to_recordset(:rows) AS row (
    id uuid, text text, hash text, sentiment text, confidence double precision,
    low_confidence boolean)
""")

_COUNT_REMAINING = text("""
SELECT count(*) FILTER (WHERE state <> 'done') AS left_over, sum(failed) AS failed
FROM batch_chunks WHERE batch_id = :id
""")

_REQUEUE_COUNTED = text("""
UPDATE batch_chunks
SET state = 'pending', lease_until = NULL, available_at = now() + attempt * interval '1 s'
WHERE id = :id AND attempt = :attempt AND state = 'running'
""")

# A lease that has run out is the sweeper's: whoever takes so long has used up its attempt.
_REQUEUE_UNCOUNTED = text("""
UPDATE batch_chunks SET state = 'pending', lease_until = NULL, attempt = attempt - 1
WHERE id = :id AND attempt = :attempt AND state = 'running' AND lease_until > now()
""")


UNLIMITED = 1_000_000
"""As good as no limit to the chunks of one user that are in work."""


@dataclass(frozen=True)
class Claim:
    """One attempt at one chunk; `texts` begin at position `start` of the batch."""

    id: uuid.UUID
    attempt: int
    batch_id: uuid.UUID
    user_id: uuid.UUID
    start: int
    texts: list[str]


class LeaseLost(Exception):
    """The chunk is no longer ours, or its batch has ended: what was computed must not be stored."""


def claim(
    session: Session,
    *,
    lease_seconds: float,
    max_attempts: int,
    user_chunks: int = UNLIMITED,
    last_user_id: uuid.UUID = NIL,
) -> Claim | None:
    """Take the next chunk under a lease, counting the attempt; None when there is no work.

    It is that of the next user `after` the one who was served last, so that each gets a turn
    whatever the others have queued; of a user's chunks the most urgent and then the oldest. Who has
    `user_chunks` in work is passed over.
    """
    follow_index(session)
    limits = {"lease": lease_seconds, "max_attempts": max_attempts, "user_chunks": user_chunks}
    row = session.execute(_CLAIM, {**limits, "after": last_user_id}).one_or_none()
    if row is None:
        return None
    if row.status == "pending":
        session.execute(_BEGIN_BATCH, {"id": row.batch_id})
    return Claim(row.id, row.attempt, row.batch_id, row.user_id, row.start, row.texts)


def complete(
    session: Session, claim: Claim, scores: Sequence[Score], model: str, *, store_texts: bool = True
) -> str | None:
    """Store the chunk's results, exactly once; returns the batch's final status if it ended.

    Raises `Lost`, and the transaction must roll back, when another attempt has overtaken ours.
    Without `store_texts` no text is left of the chunk.
    """
    total = _fence(session, claim, failed=0, model=model, store_texts=store_texts)
    shared = [
        (score.label, score.confidence, score.low_confidence, text)
        for score, text in zip(scores, claim.texts, strict=True)
    ]
    results = [
        {"position": claim.start + i, "sentiment": s, "confidence": c, "low_confidence": low}
        for i, (s, c, low, _) in enumerate(shared)
    ]
    session.execute(_INSERT_RESULTS, {"batch_id": claim.batch_id, "rows": to_json(results)})
    history = [
        {"id": new_id(), "sentiment": s, "confidence": c, "low_confidence": low}
        | ({"text": t} if store_texts else {"hash": hashlib.sha256(t.encode()).hexdigest()})
        for s, c, low, t in shared
    ]
    parameters = {"user_id": claim.user_id, "model": model, "rows": to_json(history)}
    session.execute(_INSERT_HISTORY, parameters)
    return _end_if_done(session, claim, total)


def fail(session: Session, claim: Claim, error: str, *, store_texts: bool = True) -> str | None:
    """Record every text of the chunk as failed; returns the batch's final status if it ended."""
    failed = len(claim.texts)
    total = _fence(session, claim, failed=failed, model=None, store_texts=store_texts)
    rows = [{"position": claim.start + i, "error": error} for i in range(failed)]
    session.execute(_INSERT_RESULTS, {"batch_id": claim.batch_id, "rows": to_json(rows)})
    return _end_if_done(session, claim, total)


def report_ended(claim: Claim, status: str | None) -> None:
    """After the commit: count and log the batch if it ended with this chunk."""
    if status is not None:
        metrics.BATCHES.labels(status).inc()
        structlog.get_logger().info("batch_ended", batch=str(claim.batch_id), status=status)


def requeue_counted(session: Session, claim: Claim) -> None:
    """Give a chunk back after an error; the attempt stays counted, the next one waits a little."""
    session.execute(_REQUEUE_COUNTED, {"id": claim.id, "attempt": claim.attempt})


def requeue_uncounted(session: Session, claim: Claim) -> bool:
    """Give a chunk back untried, since its texts are not why it was not done; whether it was ours.

    Its next claim has the number of this one, so nothing may be stored under it any more. Where
    it is not known whether that was stored, this waits for the transaction and finds it done.
    """
    values = {"id": claim.id, "attempt": claim.attempt}
    return session.connection().execute(_REQUEUE_UNCOUNTED, values).rowcount == 1


def _fence(
    session: Session, claim: Claim, *, failed: int, model: str | None, store_texts: bool
) -> int:
    batch = session.execute(_LOCK_BATCH, {"id": claim.batch_id}).one_or_none()
    if batch is None:
        raise LeaseLost
    values = {"failed": failed, "model": model, "store_texts": store_texts}
    done = session.connection().execute(
        _MARK_DONE, {"id": claim.id, "attempt": claim.attempt, **values}
    )
    if done.rowcount != 1:
        raise LeaseLost
    total: int = batch.total
    return total


def _end_if_done(session: Session, claim: Claim, total: int) -> str | None:
    row = session.execute(_COUNT_REMAINING, {"id": claim.batch_id}).one()
    if row.left_over:
        return None
    status = "completed" if not row.failed else "completed_with_errors"
    if row.failed == total:
        status = "failed"
    end_batch(
        session,
        claim.batch_id,
        user_id=claim.user_id,
        status=status,
        details={"total": total, "failed": row.failed},
    )
    return status


def to_json(value: Any) -> str:
    """JSON as a parameter of a statement."""
    return msgspec.json.encode(value).decode()
