"""Pages, newest first: ids are in the order of time (UUIDv7), and the last one begins the next."""

import uuid
from collections.abc import Sequence
from typing import TypeVar

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from valence_common.models import (
    ApiKey,
    AuditEvent,
    Batch,
    LoginSession,
    User,
    WebhookDelivery,
)

R = TypeVar("R", ApiKey, AuditEvent, Batch, LoginSession, User, WebhookDelivery)


def newest(
    session: Session,
    model: type[R],
    conditions: Sequence[ColumnElement[bool]],
    *,
    limit: int,
    cursor: uuid.UUID | None,
) -> tuple[Sequence[R], uuid.UUID | None]:
    """Up to `limit` rows that were made before `cursor`, and where the page after begins."""
    query = select(model).where(*conditions)
    if cursor is not None:
        query = query.where(model.id < cursor)
    found = session.scalars(query.order_by(model.id.desc()).limit(limit + 1)).all()
    return found[:limit], found[limit - 1].id if len(found) > limit else None
