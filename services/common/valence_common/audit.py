"""What happened, written in the transaction in which it did: the audit log, and news for others.

The audit log is for the operators of this installation and stays long; events go to other systems
through the outbox (`models.events`) and are told soon (`docs/events.md`). Neither holds content.
"""

import uuid
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import insert, text
from sqlalchemy.orm import Session

from valence_common.db import new_id
from valence_common.models import AuditEvent, Event

PUBLISHED: Final = frozenset(
    {
        "batch.accepted",
        "batch.completed",
        "batch.completed_with_errors",
        "batch.failed",
        "batch.cancelled",
        "batch.retried",
        "batch.deleted",
        "account.registered",
        "account.erased",
        "account.erasure_finished",
        "user.disabled",
        "user.enabled",
        "user.promoted",
        "user.demoted",
        "password.changed",
        "key.created",
        "key.rotated",
        "key.revoked",
    }
)
"""The actions that other systems hear of, as events of the same name."""

# The claim that should have begun it may have found it locked.
_END = text("""
UPDATE batches SET status = :status, finished_at = now(), started_at =
    CASE WHEN :status = 'cancelled' THEN started_at ELSE coalesce(started_at, now()) END
WHERE id = :id
""")

_DELIVER = text("""
INSERT INTO webhook_deliveries (id, batch_id, user_id, event, done, failed, started_at, ended_at)
SELECT :delivery_id, id, user_id, :event, counts.done, counts.failed, started_at, finished_at
FROM batches, LATERAL (
    SELECT coalesce(sum(size), 0) AS done, coalesce(sum(failed), 0) AS failed
    FROM batch_chunks WHERE batch_id = :id AND state = 'done'
) AS counts WHERE id = :id AND webhook_url IS NOT NULL
""")


def record(
    session: Session,
    action: str,
    *,
    actor_id: uuid.UUID | None,
    user_id: uuid.UUID,
    subject_id: uuid.UUID,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write that `actor_id` did it to `subject_id`, which belongs to `user_id`.

    Plain inserts: a role that may not read what it writes needs nothing back.
    """
    about = {"subject_id": subject_id}
    audit = {"id": new_id(), "actor_id": actor_id, "action": action, "details": details or {}}
    session.execute(insert(AuditEvent), audit | about)
    if action in PUBLISHED:
        event = {"id": new_id(), "type": action, "user_id": user_id, "data": details or {}}
        session.execute(insert(Event), event | about)


def end_batch(
    session: Session,
    batch_id: uuid.UUID,
    *,
    user_id: uuid.UUID,
    status: str,
    details: Mapping[str, Any],
) -> None:
    """Give a batch that the caller has locked its last state, and tell everybody."""
    session.execute(_END, {"id": batch_id, "status": status})
    action = f"batch.{status}"
    record(session, action, actor_id=user_id, user_id=user_id, subject_id=batch_id, details=details)
    session.execute(_DELIVER, {"id": batch_id, "delivery_id": new_id(), "event": action})
