"""Retention: expired rows are deleted in steps; by default users keep all that they see."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import event, select, text
from sqlalchemy.orm import Session

from support.batches import claim, make_batch, make_user, score
from valence_batch_worker import metrics
from valence_batch_worker.batches import chunks
from valence_batch_worker.cleanup import bulk_delete, retention
from valence_batch_worker.cleanup.retention import Retention
from valence_batch_worker.settings import Settings
from valence_common import revocations
from valence_common.db import Database
from valence_common.models import Batch, BatchChunk, BatchResult, LoginSession, Prediction

# The id that `new_id` would have made at that moment.
ID_OF = """CAST(lpad(to_hex(CAST(extract(epoch FROM {at}) * 1000 AS bigint)), 12, '0')
    || '7000' || '8000' || lpad(to_hex(CAST(random() * 1e14 AS bigint)), 12, '0') AS uuid)"""

FILL = {
    "history": """
        INSERT INTO predictions (id, user_id, created_at, text, sentiment, confidence,
            low_confidence, model)
        SELECT {id}, :user, at, 'x', 'positive', 1, false, 'm' FROM times""",
    "batches": """
        INSERT INTO batches (id, user_id, total, status, created_at, finished_at)
        SELECT {id}, :user, 1, 'completed', at, at FROM times""",
    "sessions": """
        INSERT INTO sessions (id, user_id, created_at, expires_at, scopes)
        SELECT {id}, :user, at, at, '{{}}' FROM times""",
    "usage": """
        INSERT INTO usage (user_id, day, key_id, route, requests, texts)
        SELECT :user, at, {id}, 'analyze', 1, 1 FROM times""",
    "audit": """
        INSERT INTO audit_events (id, created_at, action)
        SELECT {id}, at, 'x' FROM times""",
    "events": """
        INSERT INTO events (id, created_at, type, number)
        SELECT {id}, at, 'x', nextval('event_numbers') FROM times""",
    "revocations": """
        INSERT INTO revocations (id, subject_id, revoked_at)
        SELECT {id}, {id}, at FROM times""",
    "idempotency": """
        , made AS (
            INSERT INTO batches (id, user_id, total, created_at)
            SELECT {id}, :user, 1, at FROM times RETURNING *)
        INSERT INTO idempotency_keys (user_id, key, fingerprint, batch_id, created_at)
        SELECT user_id, id, '', id, created_at FROM made""",
}
TABLES = {"history": "predictions", "audit": "audit_events", "idempotency": "idempotency_keys"}
AGES = {
    "revocations": ("2 hours 1 minute", "1 hour 59 minutes"),
    "idempotency": ("24 hours 1 minute", "23 hours 59 minutes"),
}


def settings(url: str, **days: int) -> Settings:
    return Settings(
        database_url=SecretStr(url), redis_url=SecretStr("redis://127.0.0.1:1/0"), **days
    )


def all_published() -> int:
    """Every numbered event is in the stream."""
    return 1_000_000


def single_step(url: str, reason: str, days: int) -> dict[str, bulk_delete.DeleteStep]:
    """The step of one reason, under that retention."""
    setting = {} if reason in AGES else {f"retain_{reason}_days": days}
    return {reason: retention.delete_steps(settings(url, **setting), all_published)[reason]}


def fill(session: Session, reason: str, *ages: str, copies: int = 1) -> None:
    """Rows of these ages, as intervals of Postgres."""
    times = (
        "WITH times AS (SELECT now() - age AS at FROM unnest(CAST(:ages AS interval[])) AS age,"
        " generate_series(1, :copies)) "
    )
    statement = times + FILL[reason].format(id=ID_OF.format(at="at"))
    values = {"ages": list(ages), "copies": copies}
    if reason not in {"audit", "events", "revocations"}:
        values["user"] = make_user(session)
    session.execute(text(statement), values)


def count(session: Session, reason: str) -> int:
    table = TABLES.get(reason, reason)
    return session.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()


@pytest.mark.parametrize("reason", sorted(FILL))
def test_expired_rows_are_deleted_and_others_kept(
    database: Database, own_database_url: str, reason: str
) -> None:
    """For each reason, by the age on the database's clock; daily counts by the day."""
    old, young = AGES.get(reason, ("11 days 1 minute", "9 days 23 hours"))
    with database.transaction() as session:
        fill(session, reason, old, young, copies=3)
    before = _counted(reason)
    bulk_delete.delete_for(database, single_step(own_database_url, reason, 10))
    with database.transaction() as session:
        assert 3 == count(session, reason)
    assert before + 3 == _counted(reason)
    assert not bulk_delete.delete_step(
        database, reason, single_step(own_database_url, reason, 10)[reason]
    )


def _counted(reason: str) -> float:
    return metrics.ROWS_DELETED.labels(reason)._value.get()


@pytest.mark.parametrize("reason", sorted(FILL))
def test_rows_are_deleted_in_limited_steps_by_index(
    database: Database, own_database_url: str, reason: str
) -> None:
    """A transaction deletes no more than its limit, and scans no table."""
    with database.transaction() as session:
        fill(session, reason, "3 days", copies=25)
    plans: list[str] = []

    def explain(_: Any, cursor: Any, statement: str, parameters: Any, *__: Any) -> None:
        if statement.startswith("DELETE"):
            cursor.execute(f"EXPLAIN {statement}", parameters)
            plans.extend(line for (line,) in cursor)

    step = single_step(own_database_url, reason, 1)[reason]
    deleted = [bulk_delete.delete_step(database, reason, step, limit=10) for _ in range(2)]
    event.listen(database.engine, "before_cursor_execute", explain)
    try:
        deleted += [bulk_delete.delete_step(database, reason, step, limit=10) for _ in range(2)]
    finally:
        event.remove(database.engine, "before_cursor_execute", explain)
    assert [10, 10, 5, 0] == deleted
    assert plans
    assert [] == [line for line in plans if "Seq Scan" in line]


def test_default_retention_keeps_what_users_see(database: Database, own_database_url: str) -> None:
    """History and batches are kept for ever; what only administrators see, for a year."""
    with database.transaction() as session:
        for reason in FILL:
            fill(session, reason, "399 days", "500 days")
    Retention(settings(own_database_url), database, all_published).work()
    with database.transaction() as session:
        remaining = {reason: count(session, reason) for reason in FILL}
    # The batches of the idempotency keys have not ended.
    expected = {"history": 2, "batches": 2 + 2, "sessions": 0, "usage": 1, "audit": 1}
    expected |= {"events": 0, "revocations": 0, "idempotency": 0}
    assert expected == remaining


def test_retention_of_zero_days_is_for_ever(database: Database, own_database_url: str) -> None:
    """For every setting."""
    names = ("history", "batches", "sessions", "usage", "audit", "events")
    never = settings(own_database_url, **{f"retain_{name}_days": 0 for name in names})
    assert ["revocations", "idempotency"] == list(retention.delete_steps(never, all_published))


def test_unpublished_event_stays(database: Database, own_database_url: str) -> None:
    """No event is lost while Redis is away for longer than the retention."""
    with database.transaction() as session:
        fill(session, "events", "30 days", copies=3)
        session.execute(text("UPDATE events SET number = NULL"))
    Retention(settings(own_database_url), database, all_published).work()
    with database.transaction() as session:
        assert 3 == count(session, "events")


def test_only_ended_batches_are_deleted_with_their_rows(database: Database) -> None:
    """A pending batch stays however old it is, and so does the history."""
    with database.transaction() as session:
        waiting = make_batch(session, ["w"])
        session.execute(text("UPDATE batch_chunks SET available_at = 'infinity'"))
        make_batch(session, ["a", "b", "c"])
        for _ in range(2):
            claimed = claim(session)
            chunks.complete(session, claimed, score(claimed.texts), "m")
    with database.transaction() as session:
        in_a_year = datetime.now(UTC) + timedelta(days=365)
        assert 3 + 2 * bulk_delete.ROWS_PER_CHUNK + 1 == retention._expire_batches(
            session, in_a_year, 100
        )
        assert [waiting.id] == list(session.scalars(select(Batch.id)))
        assert [waiting.id] == list(session.scalars(select(BatchChunk.batch_id)))
        assert [] == list(session.scalars(select(BatchResult.position)))
        assert 3 == len(session.scalars(select(Prediction.id)).all())


def test_active_session_stays(database: Database, own_database_url: str) -> None:
    """The end of a session counts, not its start; its tokens are deleted with it."""
    with database.transaction() as session:
        fill(session, "sessions", "100 days", copies=3)
        alive, ended, expired = session.scalars(select(LoginSession.id)).all()
        session.execute(
            text("UPDATE sessions SET expires_at = now() + interval '1 day' WHERE id <> :id"),
            {"id": expired},
        )
        session.execute(
            text("UPDATE sessions SET ended_at = now() - interval '31 days' WHERE id = :id"),
            {"id": ended},
        )
        session.execute(
            text(
                "INSERT INTO refresh_tokens (id, session_id, token_hash, expires_at) SELECT"
                " gen_random_uuid(), id, sha256(CAST(gen_random_uuid()::text AS bytea)), now()"
                " FROM sessions, generate_series(1, 7)"
            )
        )
    Retention(settings(own_database_url), database, all_published).work()
    with database.transaction() as session:
        assert [alive] == list(session.scalars(select(LoginSession.id)))
        assert 7 == session.execute(text("SELECT count(*) FROM refresh_tokens")).scalar_one()


def test_revocations_outlive_their_last_reader() -> None:
    """A revoked access token must not become valid again."""
    assert revocations.HORIZON + timedelta(minutes=30) < retention.REVOCATION_TTL


def test_retention_continues_while_rows_remain_and_then_pauses(
    database: Database, own_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call continues a backlog; after that the next one is due in minutes."""
    monkeypatch.setattr(bulk_delete, "MAX_SECONDS", 0.0)
    retention_job = Retention(settings(own_database_url), database, all_published)
    retention_job.work()
    monkeypatch.setattr(bulk_delete, "MAX_SECONDS", 10.0)
    with database.transaction() as session:
        fill(session, "audit", "500 days")
    retention_job.work()
    with database.transaction() as session:
        assert 0 == count(session, "audit")
        fill(session, "audit", "500 days")
    retention_job.work()
    with database.transaction() as session:
        assert 1 == count(session, "audit")
