"""Retention: delete rows that are too old, no longer needed, or whose batch its owner deleted.

A batch is hidden first, when its owner deletes it or it expires. Its rows are deleted in steps
after that, so no client reads or retries an incomplete batch.
"""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from valence_batch_worker.cleanup.bulk_delete import (
    MAX_PARENTS,
    DeleteStep,
    delete_batches,
    delete_for,
    delete_rows,
    delete_sessions,
    rowcount,
)
from valence_batch_worker.settings import Settings
from valence_common.db import Database
from valence_common.models import (
    IDEMPOTENCY_TTL,
    AuditEvent,
    Batch,
    Event,
    IdempotencyKey,
    LoginSession,
    Prediction,
    Revocation,
    Usage,
)
from valence_common.postgres import first_id

POLL_SECONDS = 300

REVOCATION_TTL = timedelta(hours=2)
"""A revocation is useless after an hour, once the last access token it concerns has expired."""

AgedDelete = Callable[[Session, datetime, int], int]
"""A `DeleteStep` for rows older than a moment."""


class Retention:
    """Deletes expired rows every `POLL_SECONDS`, and continuously while some remain."""

    def __init__(self, settings: Settings, database: Database, last_published: Callable[[], int]):
        """`last_published` returns the number of the last event in the Redis Stream."""
        self._database = database
        self._steps = delete_steps(settings, last_published)
        self._due = time.monotonic()

    def work(self) -> None:
        """Delete for a while: hidden batches always, expired rows when they are due."""
        delete_for(self._database, DELETED_BATCHES)
        if time.monotonic() < self._due:
            return
        if not delete_for(self._database, self._steps):
            self._due = time.monotonic() + POLL_SECONDS


def delete_steps(settings: Settings, last_published: Callable[[], int]) -> dict[str, DeleteStep]:
    """Return the steps under these settings, by reason; a retention of 0 days keeps rows for ever.

    Events after the number that `last_published` returns are kept.
    """
    days: dict[str, tuple[AgedDelete, int]] = {
        "history": (_delete_history, settings.retain_history_days),
        "batches": (_expire_batches, settings.retain_batches_days),
        "sessions": (_delete_sessions, settings.retain_sessions_days),
        "usage": (_delete_usage, settings.retain_usage_days),
        "audit": (_delete_audit, settings.retain_audit_days),
        "events": (partial(_delete_events, last_published), settings.retain_events_days),
    }
    configured = {
        reason: _older_than(delete, timedelta(days=retained))
        for reason, (delete, retained) in days.items()
        if retained
    }
    always = {
        "revocations": _older_than(_delete_revocations, REVOCATION_TTL),
        "idempotency": _older_than(_delete_idempotency_keys, IDEMPOTENCY_TTL),
    }
    return always | configured


def _older_than(delete: AgedDelete, age: timedelta) -> DeleteStep:
    def step(session: Session, limit: int) -> int:
        now = session.scalars(select(func.now())).one()
        return delete(session, now - age, limit)

    return step


def _delete_history(session: Session, before: datetime, limit: int) -> int:
    old = Prediction.created_at < before
    order = (Prediction.created_at, Prediction.id)
    return delete_rows(session, Prediction, old, order=order, limit=limit)


def _expire_batches(session: Session, before: datetime, limit: int) -> int:
    """Delete batches that ended before; hide some more once no hidden ones remain."""
    deleted = _delete_hidden(session, limit)
    if not deleted and _hide_expired(session, before, min(limit, MAX_PARENTS)):
        deleted = _delete_hidden(session, limit)
    return deleted


def _hide_expired(session: Session, before: datetime, limit: int) -> int:
    """Hide expired batches; skip locked ones, since a concurrent retry resets their age."""
    ended = (
        Batch.id < first_id(before),
        Batch.finished_at < before,
        Batch.deleted_at.is_(None),
    )
    some = select(Batch.id).where(*ended).order_by(Batch.id).limit(limit)
    ids = session.scalars(some.with_for_update(skip_locked=True, key_share=True)).all()
    hidden = update(Batch).where(Batch.id.in_(ids)).values(deleted_at=func.now())
    return rowcount(session.connection().execute(hidden))


def _delete_hidden(session: Session, limit: int) -> int:
    """Delete hidden batches, newest first: an owner's deletion does not wait for expired ones."""
    hidden = select(Batch.id).where(Batch.deleted_at.is_not(None)).order_by(Batch.deleted_at.desc())
    return delete_batches(session, hidden, limit=limit)


def _delete_sessions(session: Session, before: datetime, limit: int) -> int:
    """Delete login sessions that were ended or expired before."""
    ended = func.least(LoginSession.ended_at, LoginSession.expires_at) < before
    session_ids = select(LoginSession.id).where(LoginSession.id < first_id(before), ended)
    return delete_sessions(session, session_ids.order_by(LoginSession.id), limit=limit)


def _delete_usage(session: Session, before: datetime, limit: int) -> int:
    return delete_rows(session, Usage, Usage.day < before.date(), order=(Usage.day,), limit=limit)


def _delete_audit(session: Session, before: datetime, limit: int) -> int:
    old = (AuditEvent.id < first_id(before), AuditEvent.created_at < before)
    return delete_rows(session, AuditEvent, *old, order=(AuditEvent.id,), limit=limit)


def _delete_events(
    last_published: Callable[[], int], session: Session, before: datetime, limit: int
) -> int:
    """Delete published events; the relay trims the stream accordingly."""
    old = (Event.created_at < before, Event.number <= last_published())
    return delete_rows(session, Event, *old, order=(Event.created_at,), limit=limit)


def _delete_revocations(session: Session, before: datetime, limit: int) -> int:
    old = Revocation.revoked_at < before
    return delete_rows(session, Revocation, old, order=(Revocation.revoked_at,), limit=limit)


def _delete_idempotency_keys(session: Session, before: datetime, limit: int) -> int:
    old = IdempotencyKey.created_at < before
    return delete_rows(
        session, IdempotencyKey, old, order=(IdempotencyKey.created_at,), limit=limit
    )


DELETED_BATCHES: dict[str, DeleteStep] = {"deleted": _delete_hidden}
"""The step for batches that their owners deleted, whatever the settings."""
