"""Batches handed in: stored whole or not at all, and once however often they are sent.

A client that names its request (`Idempotency-Key`, draft-ietf-httpapi-idempotency-key-header) may
send it again when the answer was lost: the same name and the same request give the same batch.
"""

import uuid
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from sqlalchemy import delete, func, insert, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from valence_common.audit import record
from valence_common.db import Database, new_id, renew_deadline
from valence_common.models import IDEMPOTENCY_TTL, Batch, IdempotencyKey
from valence_common.problems import Conflict, FieldError, InvalidCredential, Unprocessable
from valence_inference.batches import webhook_secrets
from valence_inference.uploads.upload import Submission

_TRY_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))")

_INSERT_CHUNK = text("""
INSERT INTO batch_chunks (id, batch_id, user_id, priority, start, size, texts, rows)
VALUES (:id, :batch_id, :user_id, :priority, :start, :size, CAST(:texts AS json),
    CAST(:rows AS json))
""")


class InFlight(Conflict):
    """A request of the same name is being accepted at this moment."""

    detail = "A request with this Idempotency-Key is in progress"

    def __init__(self) -> None:
        super().__init__(headers={"Retry-After": "1"})


@dataclass(frozen=True)
class Receipt:
    """A batch that is stored; `replayed` if it was before this request came."""

    batch_id: uuid.UUID
    total: int
    replayed: bool = False


class Accepted(Exception):
    """The request was accepted before, as this batch: there is nothing to store."""

    def __init__(self, receipt: Receipt):
        super().__init__()
        self.receipt = receipt


async def submit(
    database: Database,
    user_id: uuid.UUID,
    submission: Submission,
    *,
    key: str | None,
    reserve_texts: Callable[[int], AbstractAsyncContextManager[None]],
) -> Receipt:
    """Store a batch, or find it stored; `charge` takes its texts from the day's while it is.

    Raises `Unprocessable` for a key that named another request, and `InFlight`.
    """
    try:
        if key is not None:
            await database.run(find_submitted, user_id, key, submission.fingerprint)
        async with reserve_texts(submission.total):
            batch = await database.run(store, user_id, submission, key=key)
    except Accepted as before:
        return before.receipt
    return Receipt(batch.id, batch.total)


def find_submitted(session: Session, user_id: uuid.UUID, key: str, fingerprint: bytes) -> None:
    """Raise `Accepted` if the user's key has named this request, or `Unprocessable` if another."""
    found = session.execute(
        select(Batch.id, Batch.total, IdempotencyKey.fingerprint)
        .join(Batch, Batch.id == IdempotencyKey.batch_id)
        .where(
            IdempotencyKey.user_id == user_id,
            IdempotencyKey.key == key,
            IdempotencyKey.created_at > func.now() - IDEMPOTENCY_TTL,
            Batch.deleted_at.is_(None),
        )
    ).one_or_none()
    if found is None:
        return
    if found.fingerprint != fingerprint:
        message = "The key was used for another request"
        raise Unprocessable([FieldError("header.idempotency-key", "reused", message)])
    raise Accepted(Receipt(found.id, found.total, replayed=True))


def store(
    session: Session, user_id: uuid.UUID, submission: Submission, *, key: str | None = None
) -> Batch:
    """Store a batch with its chunks, and its key; durable once the transaction is.

    Raises `InvalidCredential` when the user is gone, `Unprocessable` when nothing could sign the
    webhook that it asks for, and with a key what `find` raises, and `InFlight`.
    """
    if key is not None:
        _claim_key(session, user_id, key, submission.fingerprint)
    if submission.webhook_url is not None:
        webhook_secrets.require_secret(session, user_id)
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
    try:
        session.flush()
    except IntegrityError as error:
        # The one reference of the row: the user is gone, and the token with them.
        raise InvalidCredential from error
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
        # One statement a chunk: all in one would hold the batch in memory several times over.
        session.execute(_INSERT_CHUNK, values)
        renew_deadline()
    if key is not None:
        named = {"key": key, "fingerprint": submission.fingerprint, "batch_id": batch.id}
        session.execute(insert(IdempotencyKey), named | {"user_id": user_id})
    record(
        session,
        "batch.accepted",
        actor_id=user_id,
        user_id=user_id,
        subject_id=batch.id,
        details={"total": batch.total},
    )
    return batch


def _claim_key(session: Session, user_id: uuid.UUID, key: str, fingerprint: bytes) -> None:
    """Be the one request that may use the key until the transaction ends."""
    if not session.scalar(_TRY_LOCK, {"name": f"valence.idempotency.{user_id}.{key}"}):
        raise InFlight
    find_submitted(session, user_id, key, fingerprint)
    # What `find` does not see is too old to mean anything, or its batch was deleted.
    mine = (IdempotencyKey.user_id == user_id, IdempotencyKey.key == key)
    session.execute(delete(IdempotencyKey).where(*mine))
