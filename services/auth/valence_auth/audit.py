"""Reading the audit log; `valence_common.audit` writes it."""

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement
from sqlalchemy.orm import Session

from valence_auth.admin import require_superuser
from valence_common.models import AuditEvent
from valence_common.postgres import first_id
from valence_common.web import pagination

_CLOCK_SKEW: Final = timedelta(hours=1)  # ids have the services' clocks, times the database's


class AuditFilter(NamedTuple):
    """A filter of audit entries; times are aware, `since` is inclusive and `until` exclusive."""

    actor: uuid.UUID | None = None
    subject: uuid.UUID | None = None
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the filter as SQL conditions; those on ids limit the scan of the index."""
        conditions: list[ColumnElement[bool]] = []
        if self.actor is not None:
            conditions.append(AuditEvent.actor_id == self.actor)
        if self.subject is not None:
            conditions.append(AuditEvent.subject_id == self.subject)
        if self.action is not None:
            conditions.append(AuditEvent.action == self.action)
        if self.since is not None:
            conditions.append(AuditEvent.created_at >= self.since)
            conditions.append(AuditEvent.id >= first_id(self.since, offset=-_CLOCK_SKEW))
        if self.until is not None:
            conditions.append(AuditEvent.created_at < self.until)
            conditions.append(AuditEvent.id <= first_id(self.until, offset=_CLOCK_SKEW))
        return conditions


def page(
    session: Session,
    actor_id: uuid.UUID,
    audit_filter: AuditFilter,
    *,
    limit: int,
    cursor: uuid.UUID | None,
) -> tuple[Sequence[AuditEvent], uuid.UUID | None]:
    """Return a page of audit entries, newest first, and the next cursor."""
    require_superuser(session, actor_id)
    return pagination.newest_first(
        session, AuditEvent, audit_filter.conditions(), limit=limit, cursor=cursor
    )
