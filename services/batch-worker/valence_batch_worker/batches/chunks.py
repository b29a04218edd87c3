"""Chunks of batches: claimed under a lease and completed exactly once, whichever process dies.

A claim counts the attempt before the work starts. (id, attempt) is the fencing token, without which
nothing is stored. All times are the database's. Lock order: the batch, then its chunk; a claim
locks only the chunk and touches the batch only while that is still pending.
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
from valence_batch_worker.fair_queue import NIL, round_robin_users
from valence_common.batches import end_batch
from valence_common.db import new_id
from valence_common.postgres import force_index_scans
from valence_ml import Score

# Every claim reads the unclaimable chunks at the front of a user's queue, so these
# are removed: the sweeper resolves exhausted chunks, and a transaction that ends a batch early
# deletes the chunks. Batches of an erased account never open again; erasure deletes them.
# A scalar subquery, because Postgres turns EXISTS into a join and loses the queue's order.
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

# `busy` are the users at their concurrency limit; concurrent claims may exceed it by one each.
_CLAIM = text(f"""
WITH RECURSIVE busy AS MATERIALIZED (
    SELECT user_id FROM batch_chunks WHERE state = 'running'
    GROUP BY user_id HAVING count(*) >= :user_chunks
), {round_robin_users("batch_chunks WHERE state = 'pending'")}, next AS (
    SELECT first.id
    FROM round_robin, LATERAL (
        SELECT chunk.id {CLAIMABLE} AND chunk.user_id = round_robin.user_id
        ORDER BY chunk.priority, chunk.available_at, chunk.id
        LIMIT 1 FOR UPDATE OF chunk SKIP LOCKED
    ) AS first
    WHERE round_robin.started AND round_robin.user_id NOT IN (SELECT user_id FROM busy)
    LIMIT 1
)
UPDATE batch_chunks AS chunk
SET state = 'running', attempt = chunk.attempt + 1, lease_until = now() + :lease * interval '1 s'
FROM batches AS batch
WHERE batch.id = chunk.batch_id AND chunk.id = (SELECT id FROM next)
RETURNING chunk.id, chunk.attempt, chunk.batch_id, chunk.start, chunk.texts, batch.user_id,
    batch.status
""")  # noqa: S608 - constants of this file

# SKIP LOCKED, because the transaction that holds the batch may wait for our chunk.
_BEGIN_BATCH = text("""
UPDATE batches SET status = 'processing', started_at = now()
WHERE id = (
    SELECT id FROM batches WHERE id = :id AND status = 'pending' FOR NO KEY UPDATE SKIP LOCKED
)
""")

# NO KEY lets other transactions insert rows that reference the batch.
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
SELECT count(*) FILTER (WHERE state <> 'done') AS remaining, sum(failed) AS failed
FROM batch_chunks WHERE batch_id = :id
""")

_REQUEUE_COUNTED = text("""
UPDATE batch_chunks
SET state = 'pending', lease_until = NULL, available_at = now() + attempt * interval '1 s'
WHERE id = :id AND attempt = :attempt AND state = 'running'
""")

# An expired lease is the sweeper's: an attempt that took that long counts.
_REQUEUE_UNCOUNTED = text("""
UPDATE batch_chunks SET state = 'pending', lease_until = NULL, attempt = attempt - 1
WHERE id = :id AND attempt = :attempt AND state = 'running' AND lease_until > now()
""")


UNLIMITED = 1_000_000
"""A concurrency limit per user that is never reached."""


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
    """Another attempt holds the chunk, or its batch has ended: store no results."""


def claim(
    session: Session,
    *,
    lease_seconds: float,
    max_attempts: int,
    user_chunks: int = UNLIMITED,
    last_user_id: uuid.UUID = NIL,
) -> Claim | None:
    """Claim the next chunk under a lease and count the attempt; None if no chunk is claimable.

    Users are served round robin: the chunk belongs to the next user after `last_user_id`. Users
    with `user_chunks` running chunks are skipped. Within a user, chunks go by priority, then age.
    """
    force_index_scans(session)
    limits = {"lease": lease_seconds, "max_attempts": max_attempts, "user_chunks": user_chunks}
    row = session.execute(_CLAIM, {**limits, "last_user_id": last_user_id}).one_or_none()
    if row is None:
        return None
    if row.status == "pending":
        session.execute(_BEGIN_BATCH, {"id": row.batch_id})
    return Claim(row.id, row.attempt, row.batch_id, row.user_id, row.start, row.texts)


def complete(
    session: Session, claim: Claim, scores: Sequence[Score], model: str, *, store_texts: bool = True
) -> str | None:
    """Store the chunk's results, exactly once; return the batch's final status if it ended.

    Raises `LeaseLost` if another attempt holds the chunk; the transaction must then roll back.
    Without `store_texts` the chunk's texts are deleted.
    """
    total = _fence(session, claim, failed=0, model=model, store_texts=store_texts)
    scored = [
        (score.label, score.confidence, score.low_confidence, text)
        for score, text in zip(scores, claim.texts, strict=True)
    ]
    results = [
        {"position": claim.start + i, "sentiment": s, "confidence": c, "low_confidence": low}
        for i, (s, c, low, _) in enumerate(scored)
    ]
    session.execute(_INSERT_RESULTS, {"batch_id": claim.batch_id, "rows": to_json(results)})
    history = [
        {"id": new_id(), "sentiment": s, "confidence": c, "low_confidence": low}
        | ({"text": t} if store_texts else {"hash": hashlib.sha256(t.encode()).hexdigest()})
        for s, c, low, t in scored
    ]
    parameters = {"user_id": claim.user_id, "model": model, "rows": to_json(history)}
    session.execute(_INSERT_HISTORY, parameters)
    return _end_if_done(session, claim, total)


def fail(session: Session, claim: Claim, error: str, *, store_texts: bool = True) -> str | None:
    """Record every text of the chunk as failed; return the batch's final status if it ended.

    Raises `LeaseLost` as `complete` does.
    """
    failed = len(claim.texts)
    total = _fence(session, claim, failed=failed, model=None, store_texts=store_texts)
    rows = [{"position": claim.start + i, "error": error} for i in range(failed)]
    session.execute(_INSERT_RESULTS, {"batch_id": claim.batch_id, "rows": to_json(rows)})
    return _end_if_done(session, claim, total)


def report_ended(claim: Claim, status: str | None) -> None:
    """Count and log the end of a batch; `status` is None if it goes on. Call after the commit."""
    if status is not None:
        metrics.BATCHES.labels(status).inc()
        structlog.get_logger().info("batch_ended", batch=str(claim.batch_id), status=status)


def requeue_counted(session: Session, claim: Claim) -> None:
    """Requeue a chunk after an error: the attempt counts, and the next one is delayed."""
    session.execute(_REQUEUE_COUNTED, {"id": claim.id, "attempt": claim.attempt})


def requeue_uncounted(session: Session, claim: Claim) -> bool:
    """Requeue a chunk whose texts are not the cause of the failure; return whether we held it.

    The attempt does not count: the next claim has the same number, so this claim must store nothing
    afterwards. If the outcome of its commit is unknown, this waits for that transaction and then
    leaves the chunk done.
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
    result = session.connection().execute(
        _MARK_DONE, {"id": claim.id, "attempt": claim.attempt, **values}
    )
    if result.rowcount != 1:
        raise LeaseLost
    total: int = batch.total
    return total


def _end_if_done(session: Session, claim: Claim, total: int) -> str | None:
    row = session.execute(_COUNT_REMAINING, {"id": claim.batch_id}).one()
    if row.remaining:
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
    """Encode a statement's JSON parameter."""
    return msgspec.json.encode(value).decode()
