"""Erasure: delete all rows of an erased account, and the account's own row last.

The auth service has removed the account's names and credentials (`valence_auth.erasure`). From then
on no worker claims or completes its chunks. Rows that were written meanwhile go with the account's
row, by the cascade of their foreign keys.
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
    """Erase accounts for `bulk_delete.MAX_SECONDS`, the one marked first before the others."""
    delete_for(database, {"erasure": erase_step})


def erase_step(session: Session, limit: int) -> int:
    """Delete up to `limit` rows of one erased account; return how many."""
    waiting = select(User.id).where(User.erased_at.is_not(None))
    user_id = session.scalars(waiting.order_by(User.erased_at).limit(1)).one_or_none()
    if user_id is None:
        return 0
    deleted = 0
    for delete_part in (
        _delete_batches,
        _delete_history,
        _delete_usage,
        _delete_sessions,
        _delete_api_keys,
        _delete_identities,
        _anonymize_audit,
    ):
        deleted += delete_part(session, user_id, limit - deleted)
        if deleted >= limit:
            return deleted
    return deleted + _delete_user(session, user_id)


def _delete_batches(session: Session, user_id: uuid.UUID, limit: int) -> int:
    return delete_batches(session, select(Batch.id).where(Batch.user_id == user_id), limit=limit)


def _delete_history(session: Session, user_id: uuid.UUID, limit: int) -> int:
    order = (Prediction.created_at, Prediction.id)
    return delete_rows(session, Prediction, Prediction.user_id == user_id, order=order, limit=limit)


def _delete_usage(session: Session, user_id: uuid.UUID, limit: int) -> int:
    return delete_rows(session, Usage, Usage.user_id == user_id, limit=limit)


def _delete_sessions(session: Session, user_id: uuid.UUID, limit: int) -> int:
    session_ids = select(LoginSession.id).where(LoginSession.user_id == user_id)
    return delete_sessions(session, session_ids, limit=limit)


def _delete_api_keys(session: Session, user_id: uuid.UUID, limit: int) -> int:
    return delete_rows(session, ApiKey, ApiKey.user_id == user_id, limit=limit)


def _delete_identities(session: Session, user_id: uuid.UUID, limit: int) -> int:
    return delete_rows(session, Identity, Identity.user_id == user_id, limit=limit)


def _anonymize_audit(session: Session, user_id: uuid.UUID, limit: int) -> int:
    """Keep the account's entries in the audit log, without the actor."""
    some = select(AuditEvent.id).where(AuditEvent.actor_id == user_id).limit(limit)
    statement = update(AuditEvent).where(AuditEvent.id.in_(some)).values(actor_id=None)
    return rowcount(session.connection().execute(statement))


def _delete_user(session: Session, user_id: uuid.UUID) -> int:
    """Delete the account unless a batch remains; late rows go with it by cascade."""
    has_batch = select(Batch.id).where(Batch.user_id == user_id).exists()
    statement = delete(User).where(User.id == user_id, ~has_batch)
    deleted = rowcount(session.connection().execute(statement))
    if deleted:
        action = "account.erasure_finished"
        record(session, action, actor_id=None, user_id=user_id, subject_id=user_id)
    return deleted
