"""Reading the audit log: filters, order, pages."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from support.users import make
from valence_auth import audit
from valence_common.db import new_id
from valence_common.models import AuditEvent, User

HOUR = timedelta(hours=1)


@pytest.fixture
def admin(session: Session) -> User:
    """The reader."""
    return make(session, is_superuser=True)


@pytest.fixture
def user(session: Session) -> User:
    """Another user."""
    return make(session)


def _event(session: Session, **columns: Any) -> AuditEvent:
    event = AuditEvent(**({"action": "test.done"} | columns))
    session.add(event)
    session.flush()
    return event


def test_audit_filters(session: Session, admin: User, user: User) -> None:
    """By actor, subject, action and time; newest first."""
    now = session.execute(select(func.now())).scalar_one()
    subject = new_id()
    one = _event(session, actor_id=admin.id, subject_id=subject)
    two = _event(session, actor_id=user.id, subject_id=subject)
    three = _event(session, actor_id=admin.id, subject_id=subject, action="test.other")

    def found(**only: Any) -> list[uuid.UUID]:
        events, _ = audit.page(
            session, admin.id, audit.AuditFilter(subject=subject, **only), limit=10, cursor=None
        )
        return [event.id for event in events]

    assert [three.id, two.id, one.id] == found()
    assert [three.id, one.id] == found(actor=admin.id)
    assert [three.id] == found(action="test.other")
    assert [] == found(action="test")
    assert 3 == len(found(since=now, until=now + HOUR))
    assert [] == found(until=now)
    assert [] == found(since=now + HOUR)
    year = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, tzinfo=UTC)
    assert 3 == len(found(since=year[0], until=year[1]))
    assert [] == found(until=year[0]) == found(since=year[1])


def test_audit_times_are_the_databases(session: Session, admin: User) -> None:
    """An entry is found by its time, although the clock of its id was minutes off."""
    subject = new_id()
    slow = uuid.UUID(int=(int(datetime.now(UTC).timestamp() * 1000) - 20 * 60_000) << 80)
    event = _event(session, id=slow, subject_id=subject)
    for only in (
        {"since": event.created_at - timedelta(minutes=1)},
        {"until": event.created_at + timedelta(minutes=1)},
    ):
        only_it = audit.AuditFilter(subject=subject, **only)
        found, _ = audit.page(session, admin.id, only_it, limit=10, cursor=None)
        assert [slow] == [event.id for event in found]


def test_audit_pages(session: Session, admin: User) -> None:
    """Each entry once, and a last page."""
    subject = new_id()
    events = [_event(session, subject_id=subject).id for _ in range(5)]
    only, seen, cursor = audit.AuditFilter(subject=subject), [], None
    for _ in range(3):
        found, cursor = audit.page(session, admin.id, only, limit=2, cursor=cursor)
        seen += [event.id for event in found]
    assert (events[::-1], None) == (seen, cursor)
