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
    delete_for,
    delete_rows,
    delete_sessions,
    rowcount,
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
    delete_for(database, {"erasure": erase_step})


def erase_step(session: Session, limit: int) -> int:
    """Delete up to `most` rows of one erased account; returns how many."""
    waiting = select(User.id).where(User.erased_at.is_not(None))
    user_id = session.scalars(waiting.order_by(User.erased_at).limit(1)).one_or_none()
    if user_id is None:
        return 0
    gone = 0
    for part in (
        _delete_batches,
        _delete_history,
        _delete_usage,
        _delete_sessions,
        _delete_api_keys,
        _delete_identities,
        _anonymize_audit,
    ):
        gone += part(session, user_id, limit - gone)
        if gone >= limit:
            return gone
    return gone + _delete_user(session, user_id)


def _delete_batches(session: Session, user_id: uuid.UUID, limit: int) -> int:
    return delete_batches(session, select(Batch.id).where(Batch.user_id == user_id), limit=limit)


def _delete_history(session: Session, user_id: uuid.UUID, limit: int) -> int:
    order = (Prediction.created_at, Prediction.id)
    return delete_rows(session, Prediction, Prediction.user_id == user_id, order=order, limit=limit)


def _delete_usage(session: Session, user_id: uuid.UUID, limit: int) -> int:
    return delete_rows(session, Usage, Usage.user_id == user_id, limit=limit)


def _delete_sessions(session: Session, user_id: uuid.UUID, limit: int) -> int:
    which = select(LoginSession.id).where(LoginSession.user_id == user_id)
    return delete_sessions(session, which, limit=limit)


def _delete_api_keys(session: Session, user_id: uuid.UUID, limit: int) -> int:
    return delete_rows(session, ApiKey, ApiKey.user_id == user_id, limit=limit)


def _delete_identities(session: Session, user_id: uuid.UUID, limit: int) -> int:
    return delete_rows(session, Identity, Identity.user_id == user_id, limit=limit)


def _anonymize_audit(session: Session, user_id: uuid.UUID, limit: int) -> int:
    """What it did stays in the audit log, without who did it."""
    some = select(AuditEvent.id).where(AuditEvent.actor_id == user_id).limit(limit)
    statement = update(AuditEvent).where(AuditEvent.id.in_(some)).values(actor_id=None)
    return rowcount(session.connection().execute(statement))


def _delete_user(session: Session, user_id: uuid.UUID) -> int:
    """Delete the account unless a batch is in use this moment; what else came late goes with it."""
    busy = select(Batch.id).where(Batch.user_id == user_id).exists()
    gone = rowcount(session.connection().execute(delete(User).where(User.id == user_id, ~busy)))
    if gone:
        action = "account.erasure_finished"
        record(session, action, actor_id=None, user_id=user_id, subject_id=user_id)
    return gone
