"""Submission of batches: stored completely or not at all, and once for each idempotency key.

A client that names its request (`Idempotency-Key`, draft-ietf-httpapi-idempotency-key-header) can
repeat it when it did not receive the answer: the same key and the same request give the same batch.
"""

import uuid
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from sqlalchemy import delete, func, insert, select, text
from sqlalchemy.orm import Session

from valence_common.audit import record
from valence_common.db import Database, new_id, renew_deadline
from valence_common.models import IDEMPOTENCY_TTL, Batch, IdempotencyKey
from valence_common.postgres import require_user, try_lock
from valence_common.problems import Conflict, FieldError, Unprocessable
from valence_inference.batches import webhook_secrets
from valence_inference.batches.submission import Submission

_INSERT_CHUNK = text("""
INSERT INTO batch_chunks (id, batch_id, user_id, priority, start, size, texts, rows)
VALUES (:id, :batch_id, :user_id, :priority, :start, :size, CAST(:texts AS json),
    CAST(:rows AS json))
""")

ReserveTexts = Callable[[int], AbstractAsyncContextManager[Callable[[], Awaitable[None]]]]
"""Takes texts from the daily quota; the block is given a function that returns them."""


class InFlight(Conflict):
    """A concurrent request with the same key is being stored."""

    detail = "A request with this Idempotency-Key is in progress"

    def __init__(self) -> None:
        super().__init__(headers={"Retry-After": "1"})


@dataclass(frozen=True)
class Submitted:
    """A batch that this request stored."""

    batch_id: uuid.UUID
    total: int


@dataclass(frozen=True)
class AlreadySubmitted:
    """A batch that an earlier request with the same key stored."""

    batch_id: uuid.UUID
    total: int


async def submit(
    database: Database,
    user_id: uuid.UUID,
    submission: Submission,
    *,
    key: str | None,
    reserve_texts: ReserveTexts,
) -> Submitted | AlreadySubmitted:
    """Store a batch, unless an earlier request with the same key has stored it.

    Raises what `store` and `reserve_texts` raise.
    """
    if key is not None:
        earlier = await database.run(find_submitted, user_id, key, submission.fingerprint)
        if earlier is not None:
            return earlier
    async with reserve_texts(submission.total) as refund:
        outcome = await database.run(store, user_id, submission, key=key)
        if isinstance(outcome, AlreadySubmitted):
            await refund()
        return outcome


def find_submitted(
    session: Session, user_id: uuid.UUID, key: str, fingerprint: bytes
) -> AlreadySubmitted | None:
    """Return the batch that an earlier request with this key stored, or None.

    Raises `Unprocessable` if the key was used for a different request.
    """
    row = session.execute(
        select(Batch.id, Batch.total, IdempotencyKey.fingerprint)
        .join(Batch, Batch.id == IdempotencyKey.batch_id)
        .where(
            IdempotencyKey.user_id == user_id,
            IdempotencyKey.key == key,
            IdempotencyKey.created_at > func.now() - IDEMPOTENCY_TTL,
            Batch.deleted_at.is_(None),
        )
    ).one_or_none()
    if row is None:
        return None
    if row.fingerprint != fingerprint:
        message = "The key was used for a different request"
        raise Unprocessable([FieldError("header.idempotency-key", "reused", message)])
    return AlreadySubmitted(row.id, row.total)


def store(
    session: Session, user_id: uuid.UUID, submission: Submission, *, key: str | None = None
) -> Submitted | AlreadySubmitted:
    """Insert a batch with its chunks and its key; it is durable once the transaction commits.

    Raises `InvalidCredential` if the user was deleted, and `Unprocessable` if the batch has a
    webhook and the user has no secret to sign it. With a key it also raises `InFlight` and what
    `find_submitted` raises.
    """
    if key is not None:
        _lock_key(session, user_id, key)
        earlier = find_submitted(session, user_id, key, submission.fingerprint)
        if earlier is not None:
            return earlier
    if submission.webhook_url is not None:
        webhook_secrets.require_secret(session, user_id)
    batch = _insert_batch(session, user_id, submission)
    for chunk in submission.chunks:
        values = {
            "id": new_id(),
            "batch_id": batch.id,
            "user_id": user_id,
            "priority": submission.priority,
            "start": chunk.start,
            "size": chunk.size,
            "texts": chunk.texts.decode(),
            "rows": None if chunk.rows is None else chunk.rows.decode(),
        }
        # A single statement for all chunks would hold several copies of the batch in memory.
        session.execute(_INSERT_CHUNK, values)
        renew_deadline()
    if key is not None:
        _store_key(session, user_id, key, submission.fingerprint, batch.id)
    details = {"total": batch.total}
    record(session, "batch.accepted", user_id=user_id, subject_id=batch.id, details=details)
    return Submitted(batch.id, batch.total)


def _insert_batch(session: Session, user_id: uuid.UUID, submission: Submission) -> Batch:
    batch = Batch(
        id=new_id(),
        user_id=user_id,
        total=submission.total,
        status="pending",
        priority=submission.priority,
        format=submission.format,
        columns=submission.columns,
        text_column=submission.text_column,
        webhook_url=submission.webhook_url,
    )
    session.add(batch)
    with require_user():
        session.flush()
    return batch


def _lock_key(session: Session, user_id: uuid.UUID, key: str) -> None:
    """Let one transaction at a time use a key; raise `InFlight` for the others."""
    if not try_lock(session, f"valence.idempotency.{user_id}.{key}"):
        raise InFlight


def _store_key(
    session: Session, user_id: uuid.UUID, key: str, fingerprint: bytes, batch_id: uuid.UUID
) -> None:
    # An existing row is expired, or its batch was deleted.
    existing = (IdempotencyKey.user_id == user_id, IdempotencyKey.key == key)
    session.execute(delete(IdempotencyKey).where(*existing))
    row = {"key": key, "fingerprint": fingerprint, "batch_id": batch_id, "user_id": user_id}
    session.execute(insert(IdempotencyKey), row)
