"""The audit log and the outbox."""

import re
import uuid
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from valence_common.audit import PUBLISHED, record
from valence_common.models import AuditEvent, Event

SERVICES = Path(__file__).parents[2] / "services"


def test_one_module_writes_both_tables() -> None:
    """No other code inserts rows of either table, so no event can be forgotten."""
    writing = re.compile(r"insert\((AuditEvent|Event)\)|(?<!class )\b(AuditEvent|add\(Event)\(")
    writers = [p.name for p in SERVICES.rglob("*.py") if writing.search(p.read_text("utf-8"))]
    assert ["audit.py"] == writers


def test_published_actions_have_an_event(session: Session) -> None:
    """An action on the list has an event with the same name and details; others have none."""
    somebody, thing = uuid.uuid4(), uuid.uuid4()
    for action in ("key.created", "session.opened"):
        details = {"a": 1}
        record(session, action, actor_id=None, user_id=somebody, subject_id=thing, details=details)
    audited = select(AuditEvent.action, AuditEvent.details).where(AuditEvent.subject_id == thing)
    assert [("key.created", {"a": 1}), ("session.opened", {"a": 1})] == [
        tuple(row) for row in session.execute(audited.order_by(AuditEvent.id))
    ]
    [event] = session.scalars(select(Event).where(Event.subject_id == thing))
    assert ("key.created", somebody, {"a": 1}) == (event.type, event.user_id, event.data)
    assert event.number is None


def test_names_fit_their_columns() -> None:
    """An action that is too long would fail where it first happens."""
    assert max(map(len, PUBLISHED)) <= 64
