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
    AT_ONCE,
    Piece,
    delete_batches,
    delete_rows,
    delete_sessions,
    delete_while,
    rows_of,
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

LOOK_SECONDS = 300

# Of no use an hour after, when the last access token that it is about has expired.
REVOCATIONS_AGE = timedelta(hours=2)

Old = Callable[[Session, datetime, int], int]
"""As a `Piece`, of what is older than a moment."""


class Retention:
    """Looks every few minutes, and goes on for as long as there is something to delete."""

    def __init__(self, settings: Settings, database: Database, told: Callable[[], int]):
        """`told` gives the number of the last event that other systems could read."""
        self._database = database
        self._pieces = pieces(settings, told)
        self._due = time.monotonic()

    def work(self) -> None:
        """Delete for a while: always what users deleted, and what is too old if it is time."""
        delete_while(self._database, DELETED)
        if time.monotonic() < self._due:
            return
        if not delete_while(self._database, self._pieces):
            self._due = time.monotonic() + LOOK_SECONDS


def pieces(settings: Settings, told: Callable[[], int]) -> dict[str, Piece]:
    """What is to be deleted under these settings, by the reason's name; 0 days are for ever.

    Of events those up to the number that `told` gives.
    """
    days: dict[str, tuple[Old, int]] = {
        "history": (_history, settings.retain_history_days),
        "batches": (_batches, settings.retain_batches_days),
        "sessions": (_sessions, settings.retain_sessions_days),
        "usage": (_usage, settings.retain_usage_days),
        "audit": (_audit, settings.retain_audit_days),
        "events": (partial(_events, told), settings.retain_events_days),
    }
    limited = {
        reason: _older(delete, timedelta(days=most))
        for reason, (delete, most) in days.items()
        if most
    }
    spent = {
        "revocations": _older(_revocations, REVOCATIONS_AGE),
        "idempotency": _older(_idempotency_keys, IDEMPOTENCY_TTL),
    }
    return spent | limited


def _older(delete: Old, age: timedelta) -> Piece:
    def piece(session: Session, most: int) -> int:
        now = session.scalars(select(func.now())).one()
        return delete(session, now - age, most)

    return piece


def _first_id(moment: datetime) -> uuid.UUID:
    """No id that was made before that moment is as great: a UUIDv7 begins with its milliseconds."""
    milliseconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    return uuid.UUID(int=milliseconds << 80)


def _history(session: Session, before: datetime, most: int) -> int:
    old = Prediction.created_at < before
    order = (Prediction.created_at, Prediction.id)
    return delete_rows(session, Prediction, old, order=order, most=most)


def _batches(session: Session, before: datetime, most: int) -> int:
    """Those that ended before: when all that is hidden has gone, some more are hidden."""
    gone = _deleted(session, most)
    if not gone and _hide(session, before, min(most, AT_ONCE)):
        gone = _deleted(session, most)
    return gone


def _hide(session: Session, before: datetime, most: int) -> int:
    """One that its owner is at is left for the next time: a retry makes it young again."""
    ended = (Batch.id < _first_id(before), Batch.finished_at < before, Batch.deleted_at.is_(None))
    some = select(Batch.id).where(*ended).order_by(Batch.id).limit(most)
    ids = session.scalars(some.with_for_update(skip_locked=True, key_share=True)).all()
    hidden = update(Batch).where(Batch.id.in_(ids)).values(deleted_at=func.now())
    return rows_of(session.connection().execute(hidden))


def _deleted(session: Session, most: int) -> int:
    """The newest first: what an owner deletes does not wait for all that grew old."""
    gone = select(Batch.id).where(Batch.deleted_at.is_not(None)).order_by(Batch.deleted_at.desc())
    return delete_batches(session, gone, most=most)


def _sessions(session: Session, before: datetime, most: int) -> int:
    """Those that were ended, or ran out, before."""
    over = func.least(LoginSession.ended_at, LoginSession.expires_at) < before
    ended = select(LoginSession.id).where(LoginSession.id < _first_id(before), over)
    return delete_sessions(session, ended.order_by(LoginSession.id), most=most)


def _usage(session: Session, before: datetime, most: int) -> int:
    return delete_rows(session, Usage, Usage.day < before.date(), order=(Usage.day,), most=most)


def _audit(session: Session, before: datetime, most: int) -> int:
    old = (AuditEvent.id < _first_id(before), AuditEvent.created_at < before)
    return delete_rows(session, AuditEvent, *old, order=(AuditEvent.id,), most=most)


def _events(told: Callable[[], int], session: Session, before: datetime, most: int) -> int:
    """Those that were told; the relay trims the stream to what is left."""
    old = (Event.created_at < before, Event.number <= told())
    return delete_rows(session, Event, *old, order=(Event.created_at,), most=most)


def _revocations(session: Session, before: datetime, most: int) -> int:
    old = Revocation.revoked_at < before
    return delete_rows(session, Revocation, old, order=(Revocation.revoked_at,), most=most)


def _idempotency_keys(session: Session, before: datetime, most: int) -> int:
    old = IdempotencyKey.created_at < before
    return delete_rows(session, IdempotencyKey, old, order=(IdempotencyKey.created_at,), most=most)


DELETED: dict[str, Piece] = {"deleted": _deleted}
"""Whatever the settings say."""
