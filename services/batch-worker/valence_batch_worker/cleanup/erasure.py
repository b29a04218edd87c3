"""Erasure: all that belongs to an erased account is deleted, at last what is left of itself.

The auth service has taken its names, and nobody can act for it (`valence_auth.erasure`). From then
on no chunk of its batches is claimed or completed; what was written meanwhile is found here, since
the account's row goes last and takes with it whatever refers to it.
"""

import uuid

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from valence_batch_worker.cleanup.bulk_delete import (
    delete_batches,
    delete_rows,
    delete_sessions,
    delete_while,
    rows_of,
)
from valence_common.audit import record
from valence_common.db import Database
from valence_common.models import (
    ApiKey,
    AuditEvent,
    Batch,
    Identity,
    LoginSession,
    Prediction,
    Usage,
    User,
)


def erase(database: Database) -> None:
    """Erase for a while, the account that has waited longest first."""
    delete_while(database, {"erasure": erase_piece})


def erase_piece(session: Session, most: int) -> int:
    """Delete up to `most` rows of one erased account; returns how many."""
    waiting = select(User.id).where(User.erased_at.is_not(None))
    user_id = session.scalars(waiting.order_by(User.erased_at).limit(1)).one_or_none()
    if user_id is None:
        return 0
    gone = 0
    for part in (_batches, _history, _usage, _sessions, _keys, _identities, _traces):
        gone += part(session, user_id, most - gone)
        if gone >= most:
            return gone
    return gone + _finish(session, user_id)


def _batches(session: Session, user_id: uuid.UUID, most: int) -> int:
    return delete_batches(session, select(Batch.id).where(Batch.user_id == user_id), most=most)


def _history(session: Session, user_id: uuid.UUID, most: int) -> int:
    order = (Prediction.created_at, Prediction.id)
    return delete_rows(session, Prediction, Prediction.user_id == user_id, order=order, most=most)


def _usage(session: Session, user_id: uuid.UUID, most: int) -> int:
    return delete_rows(session, Usage, Usage.user_id == user_id, most=most)


def _sessions(session: Session, user_id: uuid.UUID, most: int) -> int:
    which = select(LoginSession.id).where(LoginSession.user_id == user_id)
    return delete_sessions(session, which, most=most)


def _keys(session: Session, user_id: uuid.UUID, most: int) -> int:
    return delete_rows(session, ApiKey, ApiKey.user_id == user_id, most=most)


def _identities(session: Session, user_id: uuid.UUID, most: int) -> int:
    return delete_rows(session, Identity, Identity.user_id == user_id, most=most)


def _traces(session: Session, user_id: uuid.UUID, most: int) -> int:
    """What it did stays in the audit log, without who did it."""
    some = select(AuditEvent.id).where(AuditEvent.actor_id == user_id).limit(most)
    statement = update(AuditEvent).where(AuditEvent.id.in_(some)).values(actor_id=None)
    return rows_of(session.connection().execute(statement))


def _finish(session: Session, user_id: uuid.UUID) -> int:
    """Delete the account unless a batch is in use this moment; what else came late goes with it."""
    busy = select(Batch.id).where(Batch.user_id == user_id).exists()
    gone = rows_of(session.connection().execute(delete(User).where(User.id == user_id, ~busy)))
    if gone:
        action = "account.erasure_finished"
        record(session, action, actor_id=None, user_id=user_id, subject_id=user_id)
    return gone
