"""Batches as their owner sees them: accepted whole or not at all, then followed by their rows."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from valence_common.db import new_id, renew_deadline
from valence_common.models import ENDED, Batch, BatchChunk, BatchResult
from valence_common.problems import InvalidCredential, NotFound
from valence_common.records import record
from valence_inference.webhooks import require_secret


class TaskNotFound(NotFound):
    """No batch of that id belongs to the user."""

    detail = "Task not found"


@dataclass(frozen=True)
class Status:
    """One batch as of one moment; `done` and `failed` are counted from its chunks."""

    batch: Batch
    done: int
    failed: int
    results: list[dict[str, Any]] | None


def accept(
    session: Session,
    user_id: uuid.UUID,
    texts: Sequence[str],
    *,
    chunk_texts: int,
    webhook_url: str | None = None,
) -> Batch:
    """Store a batch and its texts in chunks; durable once the transaction is."""
    batch = Batch(id=new_id(), user_id=user_id, total=len(texts), status="pending")
    if webhook_url is not None:
        require_secret(session, user_id)
        batch.webhook_url = webhook_url
    session.add(batch)
    try:
        session.flush()
    except IntegrityError as error:
        # The one reference of the row: the user is gone, and the token with them.
        raise InvalidCredential from error
    for start in range(0, len(texts), chunk_texts):
        part = texts[start : start + chunk_texts]
        chunk = {
            "id": new_id(),
            "batch_id": batch.id,
            "user_id": user_id,
            "start": start,
            "size": len(part),
        }
        # One statement a chunk: all in one would hold the batch in memory several times over.
        session.execute(insert(BatchChunk), chunk | {"texts": part})
        renew_deadline()
    record(
        session,
        "batch.accepted",
        actor_id=user_id,
        user_id=user_id,
        subject_id=batch.id,
        details={"total": batch.total},
    )
    return batch


def status(session: Session, user_id: uuid.UUID, task_id: uuid.UUID, *, inline: int) -> Status:
    """The state of a user's batch, with results if it has ended and is small."""
    # One snapshot for all the queries: counts and rows must agree.
    session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
    batch = session.get(Batch, task_id)
    if batch is None or batch.user_id != user_id:
        raise TaskNotFound
    done, failed = _progress(session, task_id)
    small = batch.status in ENDED and batch.total <= inline
    return Status(batch, done, failed, _results(session, task_id) if small else None)


def _progress(session: Session, task_id: uuid.UUID) -> tuple[int, int]:
    finished = BatchChunk.state == "done"
    done, failed = session.execute(
        select(
            func.coalesce(func.sum(BatchChunk.size).filter(finished), 0),
            func.coalesce(func.sum(BatchChunk.failed).filter(finished), 0),
        ).where(BatchChunk.batch_id == task_id)
    ).one()
    return done, failed


def _results(session: Session, task_id: uuid.UUID) -> list[dict[str, Any]]:
    chunks = session.scalars(select(BatchChunk).where(BatchChunk.batch_id == task_id))
    # Where texts are not stored, a chunk that is done has none.
    texts: dict[int, tuple[str | None, str | None]] = {
        chunk.start + i: (chunk.texts[i] if chunk.texts else None, chunk.model)
        for chunk in chunks
        for i in range(chunk.size)
    }
    rows = session.scalars(
        select(BatchResult).where(BatchResult.batch_id == task_id).order_by(BatchResult.position)
    )
    return [
        {
            "index": row.position,
            "text": texts[row.position][0],
            "sentiment": row.sentiment,
            "confidence": row.confidence,
            "low_confidence": row.low_confidence,
            "model": texts[row.position][1],
            "error": row.error,
        }
        for row in rows
    ]
