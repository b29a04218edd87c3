"""Erasure: no row of an erased account remains, whatever runs; other accounts keep theirs."""

import threading
import uuid
from typing import Any

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.orm import Session

from support.batches import claim, make_batch, make_user, score
from support.owned_rows import count_rows, owned
from valence_batch_worker.batches import backlog, chunks
from valence_batch_worker.cleanup import bulk_delete, erasure
from valence_common.db import Database, new_id
from valence_common.models import (
    ApiKey,
    AuditEvent,
    Base,
    Batch,
    BatchChunk,
    IdempotencyKey,
    Identity,
    LoginSession,
    Prediction,
    RefreshToken,
    Usage,
    User,
    WebhookAttempt,
    WebhookDelivery,
    WebhookSecret,
)

ERASE = text("UPDATE users SET erased_at = now(), is_active = false WHERE id = :id")


def test_tables_without_a_user_are_known() -> None:
    """`count_rows` cannot count the two tables of messages to other processes and systems."""
    assert ["events", "revocations"] == sorted(n for n in Base.metadata.tables if not owned(n))


LATE = {
    "id": str(new_id()),
    "text": "late",
    "sentiment": "positive",
    "confidence": 1,
    "low_confidence": False,
}


def fill(session: Session) -> uuid.UUID:
    """A user with a row in every table, and a batch half done."""
    batch = make_batch(session, ["a", "b", "c", "d"])
    user = batch.user_id
    login = LoginSession(id=new_id(), user_id=user, expires_at=text("now()"), scopes=[])
    session.add(login)
    session.flush()
    session.add_all(
        [
            RefreshToken(session_id=login.id, token_hash=login.id.bytes, expires_at=text("now()")),
            ApiKey(user_id=user, name="key", secret_hash=b"", scopes=[]),
            Identity(user_id=user, issuer="https://example.com", subject=str(user)),
            Usage(user_id=user, day=text("current_date"), route="analyze", requests=1, texts=1),
            IdempotencyKey(user_id=user, key="key", fingerprint=b"", batch_id=batch.id),
            WebhookSecret(user_id=user, secret="whsec_"),
        ]
    )
    delivery = WebhookDelivery(id=new_id(), batch_id=batch.id, user_id=user, event="batch.failed")
    session.add(delivery)
    session.flush()
    attempt = WebhookAttempt(number=1, started_at=text("now()"), seconds=1, status_code=500)
    attempt.delivery_id = delivery.id
    session.add(attempt)
    claimed = claim(session)
    assert batch.id == claimed.batch_id
    chunks.complete(session, claimed, score(claimed.texts), "m")
    session.execute(text("UPDATE batch_chunks SET available_at = 'infinity'"))
    return user


def mark_erased(database: Database, user_id: uuid.UUID) -> None:
    with database.transaction() as session:
        session.execute(ERASE, {"id": user_id})


def erase_all(database: Database, limit: int = bulk_delete.MAX_ROWS) -> int:
    """Erase until no rows remain; returns the number of steps."""
    count = 0
    while bulk_delete.delete_step(database, "erasure", erasure.erase_step, limit=limit):
        count += 1
    return count


@pytest.mark.parametrize("limit", [1, 3, 5000])
def test_no_row_of_an_erased_account_remains(
    database: Database, own_database_url: str, limit: int
) -> None:
    """In any table, however small the steps; another account keeps every row."""
    with database.transaction() as session:
        other, user = fill(session), fill(session)
    before = count_rows(own_database_url, other)
    assert count_rows(own_database_url, user) == before
    assert all(before.values())
    mark_erased(database, user)
    assert (erase_all(database, limit) == 1) == (limit == 5000)
    assert {0} == set(count_rows(own_database_url, user).values())
    assert before == count_rows(own_database_url, other)
    with database.transaction() as session:
        is_subject = AuditEvent.subject_id == user
        events = select(AuditEvent.action, AuditEvent.actor_id, AuditEvent.details).where(
            is_subject
        )
        assert [("account.erasure_finished", None, {})] == [
            tuple(event) for event in session.execute(events)
        ]


def test_disabled_account_stays(database: Database, own_database_url: str) -> None:
    """Only `erased_at` marks an account."""
    with database.transaction() as session:
        user = fill(session)
        session.execute(text("UPDATE users SET is_active = false"))
    before = count_rows(own_database_url, user)
    assert 0 == erase_all(database)
    assert before == count_rows(own_database_url, user)


def test_large_account_is_deleted_in_limited_steps(database: Database) -> None:
    """No transaction deletes more than its limit."""
    with database.transaction() as session:
        user = make_user(session)
        session.execute(
            text(
                "INSERT INTO predictions (id, user_id, text, sentiment, confidence, low_confidence,"
                " model, created_at) SELECT gen_random_uuid(), :user, 'x', 'positive', 1, false,"
                " 'm', now() - n * interval '1 minute' FROM generate_series(1, 2500) AS n"
            ),
            {"user": user},
        )
        session.execute(ERASE, {"id": user})
    deleted = []
    while rows := bulk_delete.delete_step(database, "erasure", erasure.erase_step, limit=1000):
        deleted.append(rows)
    assert [1000, 1000, 501] == deleted


def test_chunks_of_an_erased_account_are_not_claimed(session: Session) -> None:
    """Nor counted in the backlog."""
    batch = make_batch(session, ["a", "b"])
    session.execute(ERASE, {"id": batch.user_id})
    assert chunks.claim(session, lease_seconds=1, max_attempts=3) is None
    assert 0 == backlog.count_waiting(session, max_attempts=3)


def test_results_of_an_account_erased_meanwhile_are_not_stored(session: Session) -> None:
    """The worker holds the chunk, and can neither complete nor fail it."""
    batch = make_batch(session, ["a", "b"])
    claimed = claim(session)
    session.execute(ERASE, {"id": batch.user_id})
    for attempt in (
        lambda: chunks.complete(session, claimed, score(claimed.texts), "m"),
        lambda: chunks.fail(session, claimed, "no"),
    ):
        with pytest.raises(chunks.LeaseLost):
            attempt()
    assert [] == list(session.scalars(select(Prediction.id)))


def test_locked_chunk_keeps_its_batch_until_it_is_unlocked(
    database: Database, own_database_url: str
) -> None:
    """A claim holds its chunk and may lock the batch; erasure waits for neither."""
    with database.transaction() as session:
        batch = make_batch(session, ["a", "b", "c", "d"])
        session.execute(ERASE, {"id": batch.user_id})
    with database.transaction() as claiming:
        query = select(BatchChunk.id).limit(1).with_for_update()
        held = claiming.scalars(query).one()
        assert 1 == erase_all(database)
        with database.transaction() as session:
            assert [held] == list(session.scalars(select(BatchChunk.id)))
            assert 1 == len(session.scalars(select(Batch.id)).all())
            assert session.get(User, batch.user_id) is not None
    assert 1 == erase_all(database)
    assert {0} == set(count_rows(own_database_url, batch.user_id).values())


def test_rows_stored_during_the_erasure_are_deleted(
    database: Database, own_database_url: str
) -> None:
    """The worker sees the owner, the owner is erased, then the worker commits."""
    with database.transaction() as session:
        batch = make_batch(session, ["a", "b"])
        claimed = claim(session)
    with database.transaction() as completing:
        chunks._fence(completing, claimed, failed=0, model="m", store_texts=True)
        mark_erased(database, batch.user_id)
        erase_all(database)
        remaining = count_rows(own_database_url, batch.user_id)
        assert (1, 1) == (remaining["users"], remaining["batches"])  # locked
        values = {"user_id": batch.user_id, "model": "m", "rows": chunks.to_json([LATE])}
        completing.execute(chunks._INSERT_HISTORY, values)
    erase_all(database)
    assert {0} == set(count_rows(own_database_url, batch.user_id).values())


def test_concurrent_workers_do_not_collide(database: Database) -> None:
    """A worker that finds another one erasing does nothing."""
    with database.transaction() as session:
        users = [fill(session) for _ in range(3)]
        for user in users:
            session.execute(ERASE, {"id": user})
    threads = [threading.Thread(target=erase_all, args=(database, 4)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    erase_all(database)
    with database.transaction() as session:
        assert [] == list(session.scalars(select(User.id)))
        finished = AuditEvent.action == "account.erasure_finished"
        events = session.scalars(select(AuditEvent.subject_id).where(finished)).all()
    assert sorted(users) == sorted(filter(None, events))


def test_rows_are_deleted_by_index(database: Database) -> None:
    """Whatever the statistics, no growing table is scanned."""
    plans: list[str] = []

    def explain(_: Any, cursor: Any, statement: str, parameters: Any, *__: Any) -> None:
        if statement.startswith(("DELETE", "UPDATE")):
            cursor.execute(f"EXPLAIN {statement}", parameters)
            plans.extend(line for (line,) in cursor)

    with database.transaction() as session:
        user = fill(session)
        session.execute(ERASE, {"id": user})
    event.listen(database.engine, "before_cursor_execute", explain)
    try:
        erase_all(database)
    finally:
        event.remove(database.engine, "before_cursor_execute", explain)
    assert plans
    assert [] == [line for line in plans if "Seq Scan" in line]
