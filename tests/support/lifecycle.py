"""Batches completed, cancelled and retried by the services' own code, and what was said of it."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from support.batches import score
from valence_batch_worker.batches import chunks
from valence_common.models import AuditEvent, Batch, Event
from valence_inference.batches import lifecycle, status

MODEL = "test@1"


def complete(session: Session, mine: chunks.Claim) -> str | None:
    return chunks.complete(session, mine, score(mine.texts), MODEL)


def cancel(session: Session, batch: Batch) -> status.Status:
    return lifecycle.cancel(session, batch.user_id, batch.id, max_inline=0)


def retry(session: Session, batch: Batch, texts: int) -> status.Status:
    return lifecycle.retry(session, batch.user_id, batch.id, texts=texts, max_inline=0)


def actions(session: Session, batch: Batch) -> list[str]:
    """What the audit log says of a batch; other systems are told the same."""
    query = select(AuditEvent.action).where(AuditEvent.subject_id == batch.id)
    said = list(session.scalars(query.order_by(AuditEvent.id)))
    told = select(Event.type).where(Event.subject_id == batch.id).order_by(Event.id)
    assert said == list(session.scalars(told))
    return said
