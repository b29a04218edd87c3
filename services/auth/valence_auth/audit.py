"""The audit log, read: who did what to which thing, when. Each act writes its own line of it."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement
from sqlalchemy.orm import Session

from valence_auth.admin import check
from valence_common.models import AuditEvent
from valence_common.web import pagination

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SKEW_MS: Final = 3600_000  # ids are made by the services' clocks, times by the database's
_LAST_MS: Final = (1 << 48) - 1


class Filter(NamedTuple):
    """Which events; times are aware, `since` is included and `until` is not."""

    actor: uuid.UUID | None = None
    subject: uuid.UUID | None = None
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """The filter as SQL; an id's time narrows what is read to the index's part."""
        conditions: list[ColumnElement[bool]] = []
        if self.actor is not None:
            conditions.append(AuditEvent.actor_id == self.actor)
        if self.subject is not None:
            conditions.append(AuditEvent.subject_id == self.subject)
        if self.action is not None:
            conditions.append(AuditEvent.action == self.action)
        if self.since is not None:
            conditions.append(AuditEvent.created_at >= self.since)
            conditions.append(AuditEvent.id >= _id_at(self.since, -_SKEW_MS))
        if self.until is not None:
            conditions.append(AuditEvent.created_at < self.until)
            conditions.append(AuditEvent.id <= _id_at(self.until, _SKEW_MS))
        return conditions


def page(
    session: Session, actor_id: uuid.UUID, only: Filter, *, limit: int, cursor: uuid.UUID | None
) -> tuple[Sequence[AuditEvent], uuid.UUID | None]:
    """Up to `limit` events, newest first, and where the page after begins."""
    check(session, actor_id)
    return pagination.newest_first(
        session, AuditEvent, only.conditions(), limit=limit, cursor=cursor
    )


def _id_at(moment: datetime, more_ms: int) -> uuid.UUID:
    """The least UUIDv7 of a time, moved by some milliseconds."""
    ms = (moment - _EPOCH) // timedelta(milliseconds=1) + more_ms
    return uuid.UUID(int=min(max(ms, 0), _LAST_MS) << 80)
