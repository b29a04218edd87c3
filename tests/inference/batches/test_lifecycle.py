"""Cancel, retry and delete, each against chunks that a worker holds."""

import uuid
from functools import partial

import pytest
from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Session

from support.batches import claim, make_batch, make_user
from support.lifecycle import actions, cancel, complete, retry
from valence_batch_worker.batches import chunks
from valence_batch_worker.cleanup import bulk_delete, retention
from valence_common.db import Database
from valence_common.models import (
    AuditEvent,
    Batch,
    BatchChunk,
    BatchResult,
    Prediction,
    WebhookDelivery,
)
from valence_inference.batches import lifecycle
from valence_inference.batches import status as batch_status
from valence_inference.batches.lifecycle import AlreadyEnded, NothingToRetry, TextsNotStored
from valence_inference.batches.status import TaskNotFound


def half_failed(session: Session, count: int = 4) -> Batch:
    """A batch that ended; every second text failed."""
    batch = make_batch(session, [str(n) for n in range(count)], chunk_texts=1)
    for n in range(count):
        mine = claim(session)
        chunks.fail(session, mine, "odd") if n % 2 else complete(session, mine)
    session.refresh(batch)
    assert "completed_with_errors" == batch.status
    return batch


def test_cancelled_before_any_work(session: Session) -> None:
    """No chunks are left, nothing was done, and `started_at` is null."""
    batch = make_batch(session, ["a", "b", "c"])
    status = cancel(session, batch)
    assert ("cancelled", 0, 0, None) == (
        status.batch.status,
        status.done,
        status.failed,
        status.batch.started_at,
    )
    assert status.batch.finished_at is not None
    assert [] == session.scalars(select(BatchChunk.id)).all()
    assert ["batch.accepted", "batch.cancelled"] == actions(session, batch)


def test_cancelled_midway_keeps_what_was_done(session: Session) -> None:
    """One chunk done, one failed, one running, one waiting: the end has exact counts."""
    batch = make_batch(session, ["a", "b", "c", "d", "e"], chunk_texts=1)
    complete(session, claim(session))
    chunks.fail(session, claim(session), "odd")
    held = claim(session)
    status = cancel(session, batch)
    assert (2, 1) == (status.done, status.failed)
    details = session.scalars(
        select(AuditEvent.details).where(AuditEvent.action == "batch.cancelled")
    )
    assert [{"total": 5, "done": 2, "failed": 1}] == details.all()
    for attempt in (complete, partial(chunks.fail, error="odd")):
        with pytest.raises(chunks.LeaseLost), session.begin_nested():
            attempt(session, held)
    chunks.requeue_counted(session, held)
    assert chunks.claim(session, lease_seconds=1, max_attempts=3) is None
    rows = lifecycle.cancel(session, batch.user_id, batch.id, max_inline=5).results
    assert [(0, "a", "positive"), (1, "b", None)] == [(r.index, r.text, r.sentiment) for r in rows]


def test_cancelling_again_changes_nothing(session: Session) -> None:
    """The same answer, and no second end."""
    batch = make_batch(session, ["a", "b"])
    first, second = cancel(session, batch), cancel(session, batch)
    assert first.batch.finished_at == second.batch.finished_at
    assert ["batch.accepted", "batch.cancelled"] == actions(session, batch)


def test_an_ended_batch_cannot_be_cancelled(session: Session) -> None:
    """The batch keeps its status."""
    batch = half_failed(session)
    with pytest.raises(AlreadyEnded):
        cancel(session, batch)
    session.refresh(batch)
    assert "completed_with_errors" == batch.status


@pytest.mark.parametrize("verb", ["cancel", "retry", "delete", "count_retriable"])
def test_others_batches_are_not_found(session: Session, verb: str) -> None:
    """Batches of others, deleted ones and unknown ids alike."""
    mine, deleted = half_failed(session), half_failed(session)
    lifecycle.delete(session, deleted.user_id, deleted.id)
    more = {"cancel": {"max_inline": 0}, "retry": {"texts": 2, "max_inline": 0}}.get(verb, {})
    for user, batch in (
        (make_user(session), mine.id),
        (deleted.user_id, deleted.id),
        (mine.user_id, uuid.uuid4()),
    ):
        with pytest.raises(TaskNotFound):
            getattr(lifecycle, verb)(session, user, batch, **more)


def test_retry_tries_only_what_failed(session: Session) -> None:
    """Under new ids and with all attempts; then the batch ends again, with another event."""
    batch = half_failed(session)
    session.execute(text("UPDATE batches SET webhook_url = 'https://example.com/'"))
    before = set(session.scalars(select(BatchChunk.id).where(BatchChunk.failed > 0)))
    assert 2 == lifecycle.count_retriable(session, batch.user_id, batch.id)
    status = retry(session, batch, 2)
    assert ("processing", 2, 0, None) == (
        status.batch.status,
        status.done,
        status.failed,
        status.batch.finished_at,
    )
    waiting = session.execute(
        select(BatchChunk.id, BatchChunk.attempt, BatchChunk.start, BatchChunk.texts)
        .where(BatchChunk.state == "pending")
        .order_by(BatchChunk.start)
    ).all()
    assert before.isdisjoint(chunk.id for chunk in waiting)
    assert [(0, 1, ["1"]), (0, 3, ["3"])] == [tuple(chunk[1:]) for chunk in waiting]
    assert [0, 2] == list(session.scalars(select(BatchResult.position)))
    complete(session, claim(session))
    assert "completed" == complete(session, claim(session))
    assert [
        "batch.accepted",
        "batch.completed_with_errors",
        "batch.retried",
        "batch.completed",
    ] == actions(session, batch)
    assert ["batch.completed"] == list(session.scalars(select(WebhookDelivery.event)))
    texts = session.scalars(select(Prediction.text).where(Prediction.user_id == batch.user_id))
    assert ["0", "1", "2", "3"] == sorted(texts)
    with pytest.raises(NothingToRetry):
        lifecycle.count_retriable(session, batch.user_id, batch.id)


def test_retry_keeps_the_row_and_the_priority(session: Session) -> None:
    """A retried chunk keeps its rows and its priority."""
    batch = half_failed(session, 2)
    session.execute(text("UPDATE batches SET priority = 2"))
    session.execute(text("UPDATE batch_chunks SET rows = '[[\"x\"]]'"))
    session.expire_all()
    retry(session, batch, 1)
    kept = select(BatchChunk.rows, BatchChunk.priority).where(BatchChunk.state == "pending")
    assert [([["x"]], 2)] == [tuple(row) for row in session.execute(kept)]


def test_retry_of_many_chunks_takes_several_statements(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them, in one transaction."""
    monkeypatch.setattr(lifecycle, "MAX_CHUNKS_PER_STATEMENT", 3)
    batch = half_failed(session, 20)
    status = retry(session, batch, 10)
    assert (10, 0) == (status.done, status.failed)
    assert list(range(0, 20, 2)) == sorted(session.scalars(select(BatchResult.position)))


@pytest.mark.parametrize("status", ["pending", "processing", "completed", "cancelled"])
def test_only_a_batch_with_errors_can_be_retried(session: Session, status: str) -> None:
    """A running, completed or cancelled batch has nothing to retry."""
    batch = half_failed(session)
    batch.status = status
    session.flush()
    with pytest.raises(NothingToRetry):
        retry(session, batch, 2)


def test_texts_that_are_not_stored_cannot_be_retried(session: Session) -> None:
    """The error says so, and nothing changes."""
    batch = make_batch(session, ["a"])
    chunks.fail(session, claim(session), "odd", store_texts=False)
    session.refresh(batch)
    with pytest.raises(TextsNotStored):
        retry(session, batch, 1)
    assert "failed" == batch.status


@pytest.mark.parametrize("live", [True, False])
def test_a_deleted_batch_is_hidden_at_once_and_deleted_soon(
    database: Database, *, live: bool
) -> None:
    """A deleted batch is hidden at once and deleted soon; its history stays."""
    with database.transaction() as session:
        other = half_failed(session)
    with database.transaction() as session:
        batch = make_batch(session, ["a", "b", "c"])
        while mine := chunks.claim(session, lease_seconds=30, max_attempts=3):
            complete(session, mine)
            if live:
                break
    with database.transaction() as session:
        lifecycle.delete(session, batch.user_id, batch.id)
    with database.transaction() as session:
        ended = "batch.cancelled" if live else "batch.completed"
        assert ["batch.accepted", ended, "batch.deleted"] == actions(session, batch)
        with pytest.raises(TaskNotFound):
            batch_status.find(session, batch.user_id, batch.id)
    with database.transaction() as session:
        shown, _ = batch_status.read_page(
            session, batch.user_id, batch_status.BatchFilter(), limit=9, cursor=None
        )
        assert [] == shown
    while bulk_delete.delete_step(
        database, "deleted", retention.DELETED_BATCHES["deleted"], limit=2
    ):
        pass
    with database.transaction() as session:
        assert [other.id] == list(session.scalars(select(Batch.id)))
        assert {other.id} == set(session.scalars(select(BatchChunk.batch_id)))
        assert {other.id} == set(session.scalars(select(BatchResult.batch_id)))
        history = select(func.count()).where(Prediction.user_id == batch.user_id)
        assert (2 if live else 3) == session.scalar(history)
        session.execute(delete(Batch))
