"""Retention: what is too old goes, in pieces; the rest stays, by default all that users see."""

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

# An id of a moment, as `new_id` would have made it then.
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


def everything() -> int:
    """All that has a number was told."""
    return 1_000_000


def only(url: str, reason: str, days: int) -> dict[str, bulk_delete.DeleteStep]:
    """The one piece of a kind whose rows are kept for so long."""
    setting = {} if reason in AGES else {f"retain_{reason}_days": days}
    return {reason: retention.delete_steps(settings(url, **setting), everything)[reason]}


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
def test_what_is_too_old_goes_and_the_rest_stays(
    database: Database, own_database_url: str, reason: str
) -> None:
    """Of each kind, by its age in the database's time; what a day decides, to the day."""
    old, young = AGES.get(reason, ("11 days 1 minute", "9 days 23 hours"))
    with database.transaction() as session:
        fill(session, reason, old, young, copies=3)
    before = _counted(reason)
    bulk_delete.delete_for(database, only(own_database_url, reason, 10))
    with database.transaction() as session:
        assert 3 == count(session, reason)
    assert before + 3 == _counted(reason)
    assert not bulk_delete.delete_step(database, reason, only(own_database_url, reason, 10)[reason])


def _counted(reason: str) -> float:
    return metrics.ROWS_DELETED.labels(reason)._value.get()


@pytest.mark.parametrize("reason", sorted(FILL))
def test_it_goes_in_pieces_along_an_index(
    database: Database, own_database_url: str, reason: str
) -> None:
    """A transaction deletes its share and no more, and reads no table from end to end."""
    with database.transaction() as session:
        fill(session, reason, "3 days", copies=25)
    plans: list[str] = []

    def explain(_: Any, cursor: Any, statement: str, parameters: Any, *__: Any) -> None:
        if statement.startswith("DELETE"):
            cursor.execute(f"EXPLAIN {statement}", parameters)
            plans.extend(line for (line,) in cursor)

    piece = only(own_database_url, reason, 1)[reason]
    gone = [bulk_delete.delete_step(database, reason, piece, limit=10) for _ in range(2)]
    event.listen(database.engine, "before_cursor_execute", explain)
    try:
        gone += [bulk_delete.delete_step(database, reason, piece, limit=10) for _ in range(2)]
    finally:
        event.remove(database.engine, "before_cursor_execute", explain)
    assert [10, 10, 5, 0] == gone
    assert plans
    assert [] == [line for line in plans if "Seq Scan" in line]


def test_by_default_nothing_that_a_user_sees_goes(
    database: Database, own_database_url: str
) -> None:
    """History and batches are for ever; what only administrators see is kept for a year."""
    with database.transaction() as session:
        for reason in FILL:
            fill(session, reason, "399 days", "500 days")
    Retention(settings(own_database_url), database, everything).work()
    with database.transaction() as session:
        left = {reason: count(session, reason) for reason in FILL}
    # Those that the keys were for have not ended.
    expected = {"history": 2, "batches": 2 + 2, "sessions": 0, "usage": 1, "audit": 1}
    expected |= {"events": 0, "revocations": 0, "idempotency": 0}
    assert expected == left


def test_zero_days_are_for_ever(database: Database, own_database_url: str) -> None:
    """Of all that can be set."""
    names = ("history", "batches", "sessions", "usage", "audit", "events")
    never = settings(own_database_url, **{f"retain_{name}_days": 0 for name in names})
    assert ["revocations", "idempotency"] == list(retention.delete_steps(never, everything))


def test_an_event_that_nobody_heard_stays(database: Database, own_database_url: str) -> None:
    """While Redis is away for longer than events are kept, none is lost."""
    with database.transaction() as session:
        fill(session, "events", "30 days", copies=3)
        session.execute(text("UPDATE events SET number = NULL"))
    Retention(settings(own_database_url), database, everything).work()
    with database.transaction() as session:
        assert 3 == count(session, "events")


def test_only_batches_that_ended_go_with_all_of_theirs(database: Database) -> None:
    """One that still waits stays however old it is, and so does the history."""
    with database.transaction() as session:
        waiting = make_batch(session, ["w"])
        session.execute(text("UPDATE batch_chunks SET available_at = 'infinity'"))
        make_batch(session, ["a", "b", "c"])
        for _ in range(2):
            mine = claim(session)
            chunks.complete(session, mine, score(mine.texts), "m")
    with database.transaction() as session:
        in_a_year = datetime.now(UTC) + timedelta(days=365)
        assert 3 + 2 * bulk_delete.ROWS_PER_CHUNK + 1 == retention._expire_batches(
            session, in_a_year, 100
        )
        assert [waiting.id] == list(session.scalars(select(Batch.id)))
        assert [waiting.id] == list(session.scalars(select(BatchChunk.batch_id)))
        assert [] == list(session.scalars(select(BatchResult.position)))
        assert 3 == len(session.scalars(select(Prediction.id)).all())


def test_a_session_that_may_go_on_stays(database: Database, own_database_url: str) -> None:
    """Old is one that ended, not one that began, long ago; its tokens go with it."""
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
    Retention(settings(own_database_url), database, everything).work()
    with database.transaction() as session:
        assert [alive] == list(session.scalars(select(LoginSession.id)))
        assert 7 == session.execute(text("SELECT count(*) FROM refresh_tokens")).scalar_one()


def test_revocations_are_kept_for_as_long_as_they_are_read() -> None:
    """An access token that was revoked must not come to life again."""
    assert revocations.HORIZON + timedelta(minutes=30) < retention.REVOCATION_TTL


def test_it_goes_on_while_there_is_more_and_then_rests(
    database: Database, own_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backlog is worked on at every call; after that nobody looks for some minutes."""
    monkeypatch.setattr(bulk_delete, "MAX_SECONDS", 0.0)
    keeper = Retention(settings(own_database_url), database, everything)
    keeper.work()
    monkeypatch.setattr(bulk_delete, "MAX_SECONDS", 10.0)
    with database.transaction() as session:
        fill(session, "audit", "500 days")
    keeper.work()
    with database.transaction() as session:
        assert 0 == count(session, "audit")
        fill(session, "audit", "500 days")
    keeper.work()
    with database.transaction() as session:
        assert 1 == count(session, "audit")
