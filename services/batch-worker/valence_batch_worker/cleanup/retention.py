"""Retention: what is older than the settings allow, or of no use any more, or deleted by its owner.

Nobody sees a batch from the moment on in which its owner deletes it, or its time is over; only then
do its rows go, in pieces: nobody reads, or tries again, a batch of which a part is gone.
"""

import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
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

POLL_SECONDS = 300

# Of no use an hour after, when the last access token that it is about has expired.
REVOCATION_TTL = timedelta(hours=2)

AgedDelete = Callable[[Session, datetime, int], int]
"""As a `Piece`, of what is older than a moment."""


class Retention:
    """Looks every few minutes, and goes on for as long as there is something to delete."""

    def __init__(self, settings: Settings, database: Database, last_published: Callable[[], int]):
        """`told` gives the number of the last event that other systems could read."""
        self._database = database
        self._steps = delete_steps(settings, last_published)
        self._due = time.monotonic()

    def work(self) -> None:
        """Delete for a while: always what users deleted, and what is too old if it is time."""
        delete_for(self._database, DELETED_BATCHES)
        if time.monotonic() < self._due:
            return
        if not delete_for(self._database, self._steps):
            self._due = time.monotonic() + POLL_SECONDS


def delete_steps(settings: Settings, last_published: Callable[[], int]) -> dict[str, DeleteStep]:
    """What is to be deleted under these settings, by the reason's name; 0 days are for ever.

    Of events those up to the number that `told` gives.
    """
    days: dict[str, tuple[AgedDelete, int]] = {
        "history": (_delete_history, settings.retain_history_days),
        "batches": (_expire_batches, settings.retain_batches_days),
        "sessions": (_delete_sessions, settings.retain_sessions_days),
        "usage": (_delete_usage, settings.retain_usage_days),
        "audit": (_delete_audit, settings.retain_audit_days),
        "events": (partial(_delete_events, last_published), settings.retain_events_days),
    }
    limited = {
        reason: _older_than(delete, timedelta(days=most))
        for reason, (delete, most) in days.items()
        if most
    }
    spent = {
        "revocations": _older_than(_delete_revocations, REVOCATION_TTL),
        "idempotency": _older_than(_delete_idempotency_keys, IDEMPOTENCY_TTL),
    }
    return spent | limited


def _older_than(delete: AgedDelete, age: timedelta) -> DeleteStep:
    def piece(session: Session, most: int) -> int:
        now = session.scalars(select(func.now())).one()
        return delete(session, now - age, most)

    return piece


def _first_id_at(moment: datetime) -> uuid.UUID:
    """No id that was made before that moment is as great: a UUIDv7 begins with its milliseconds."""
    milliseconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    return uuid.UUID(int=milliseconds << 80)


def _delete_history(session: Session, before: datetime, limit: int) -> int:
    old = Prediction.created_at < before
    order = (Prediction.created_at, Prediction.id)
    return delete_rows(session, Prediction, old, order=order, limit=limit)


def _expire_batches(session: Session, before: datetime, limit: int) -> int:
    """Those that ended before: when all that is hidden has gone, some more are hidden."""
    gone = _delete_hidden(session, limit)
    if not gone and _hide_expired(session, before, min(limit, MAX_PARENTS)):
        gone = _delete_hidden(session, limit)
    return gone


def _hide_expired(session: Session, before: datetime, limit: int) -> int:
    """One that its owner is at is left for the next time: a retry makes it young again."""
    ended = (
        Batch.id < _first_id_at(before),
        Batch.finished_at < before,
        Batch.deleted_at.is_(None),
    )
    some = select(Batch.id).where(*ended).order_by(Batch.id).limit(limit)
    ids = session.scalars(some.with_for_update(skip_locked=True, key_share=True)).all()
    hidden = update(Batch).where(Batch.id.in_(ids)).values(deleted_at=func.now())
    return rowcount(session.connection().execute(hidden))


def _delete_hidden(session: Session, limit: int) -> int:
    """The newest first: what an owner deletes does not wait for all that grew old."""
    gone = select(Batch.id).where(Batch.deleted_at.is_not(None)).order_by(Batch.deleted_at.desc())
    return delete_batches(session, gone, limit=limit)


def _delete_sessions(session: Session, before: datetime, limit: int) -> int:
    """Those that were ended, or ran out, before."""
    over = func.least(LoginSession.ended_at, LoginSession.expires_at) < before
    ended = select(LoginSession.id).where(LoginSession.id < _first_id_at(before), over)
    return delete_sessions(session, ended.order_by(LoginSession.id), limit=limit)


def _delete_usage(session: Session, before: datetime, limit: int) -> int:
    return delete_rows(session, Usage, Usage.day < before.date(), order=(Usage.day,), limit=limit)


def _delete_audit(session: Session, before: datetime, limit: int) -> int:
    old = (AuditEvent.id < _first_id_at(before), AuditEvent.created_at < before)
    return delete_rows(session, AuditEvent, *old, order=(AuditEvent.id,), limit=limit)


def _delete_events(
    last_published: Callable[[], int], session: Session, before: datetime, limit: int
) -> int:
    """Those that were told; the relay trims the stream to what is left."""
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
"""Whatever the settings say."""
