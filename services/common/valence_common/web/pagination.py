"""Pages of what is found by its id, as clients ask for them and as they are read: newest first.

Ids are in the order of time (UUIDv7), and the last one of a page begins the next.
"""

import uuid
from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field
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


class PageQuery(BaseModel):
    """Which page."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    limit: int = Field(default=20, ge=1, le=100, description="Most items of the page.")
    cursor: uuid.UUID | None = Field(
        default=None, description="The `next_cursor` of the page before."
    )


def newest_first(
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
