"""The audit log and the event outbox, written in the transaction that they describe.

The audit log is for the operators of this installation and is kept long. Events go to other systems
through the outbox (`models.events`) and are published soon (`docs/events.md`). Neither contains
submitted texts.
"""

import uuid
from collections.abc import Mapping
from typing import Any, Final, Literal

from sqlalchemy import insert
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
"""The actions that are also published, as events of the same name."""


def record(
    session: Session,
    action: str,
    *,
    user_id: uuid.UUID,
    subject_id: uuid.UUID | None = None,
    actor_id: uuid.UUID | Literal["user"] | None = "user",
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write an audit entry, and an event if the action is published.

    `subject_id` is the object of the action and belongs to `user_id`; by default it is the user.
    `actor_id` is by default the user, and None for the system or an operator. The inserts return
    nothing, so they also work for a database role that may not read these tables.
    """
    subject = {"subject_id": user_id if subject_id is None else subject_id}
    actor = user_id if isinstance(actor_id, str) else actor_id
    entry = {"id": new_id(), "actor_id": actor, "action": action, "details": details or {}}
    session.execute(insert(AuditEvent), entry | subject)
    if action in PUBLISHED:
        event = {"id": new_id(), "type": action, "user_id": user_id, "data": details or {}}
        session.execute(insert(Event), event | subject)
