"""Chunks: claimed under a lease, completed once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from support.batches import claim, make_batch, score
from valence_batch_worker.batches import chunks
from valence_common.db import Database
from valence_common.models import (
    TERMINAL,
    AuditEvent,
    Batch,
    BatchChunk,
    BatchResult,
    Prediction,
)

MODEL = "test@1"


def complete(session: Session, claimed: chunks.Claim) -> str | None:
    return chunks.complete(session, claimed, score(claimed.texts), MODEL)


def ends(session: Session, batch: Batch) -> list[str]:
    query = select(AuditEvent.action).where(
        AuditEvent.subject_id == batch.id, AuditEvent.action != "batch.accepted"
    )
    return list(session.scalars(query))


def expire_and_claim(session: Session, claimed: chunks.Claim) -> chunks.Claim:
    """Expire the lease and claim the chunk for another worker."""
    session.execute(
        text("UPDATE batch_chunks SET state = 'pending', lease_until = NULL WHERE id = :id"),
        {"id": claimed.id},
    )
    return claim(session)


def test_claim_takes_chunks_in_the_order_of_their_acceptance(session: Session) -> None:
    """First come, first served, from the first text to the last."""
    first = make_batch(session, ["a", "b", "c"])
    second = make_batch(session, ["d"])
    claimed = [claim(session) for _ in range(3)]
    assert [(first.id, ["a", "b"]), (first.id, ["c"]), (second.id, ["d"])] == [
        (chunk.batch_id, chunk.texts) for chunk in claimed
    ]
    assert [0, 2, 0] == [chunk.start for chunk in claimed]


def test_claim_without_chunks_is_none(session: Session) -> None:
    """No work is not an error."""
    assert chunks.claim(session, lease_seconds=30, max_attempts=3) is None


def test_claim_counts_the_attempt_before_the_work(session: Session) -> None:
    """The attempt of a process that dies is counted."""
    make_batch(session, ["a"])
    claimed = claim(session)
    assert 1 == claimed.attempt == session.scalar(select(BatchChunk.attempt))
    assert 2 == expire_and_claim(session, claimed).attempt


def test_claim_begins_the_batch_once(session: Session) -> None:
    """The first claim makes a pending batch a processing one."""
    batch = make_batch(session, ["a", "b", "c"])
    claim(session)
    session.refresh(batch)
    started_at = batch.started_at
    assert ("processing", True) == (batch.status, started_at is not None)
    claim(session)
    session.refresh(batch)
    assert started_at == batch.started_at


def test_lease_ends_by_the_clock_of_the_database(session: Session) -> None:
    """Workers' clocks do not decide who holds a chunk."""
    make_batch(session, ["a"])
    claim(session, lease_seconds=30)
    left = session.scalar(select(func.extract("epoch", BatchChunk.lease_until - func.now())))
    assert 30 == left


@pytest.mark.parametrize("status", TERMINAL)
def test_claim_leaves_ended_batches_alone(session: Session, status: str) -> None:
    """No worker processes a cancelled or finished batch."""
    batch = make_batch(session, ["a"])
    batch.status = status
    session.flush()
    assert chunks.claim(session, lease_seconds=30, max_attempts=3) is None


@pytest.mark.parametrize(
    "change",
    [
        "attempt = 3",
        "available_at = now() + interval '1 second'",
        "state = 'running', lease_until = now() - interval '1 second'",
        "state = 'done'",
    ],
    ids=["exhausted", "not yet available", "held, even past its lease", "done"],
)
def test_claim_skips_unclaimable_chunks(session: Session, change: str) -> None:
    """Claimable chunks are pending, due and have attempts left; the sweeper expires leases."""
    make_batch(session, ["a"])
    session.execute(text(f"UPDATE batch_chunks SET {change}"))
    assert chunks.claim(session, lease_seconds=30, max_attempts=3) is None


def test_complete_stores_results_and_history_and_ends_the_batch(session: Session) -> None:
    """The commit of the last chunk ends the batch, with one audit entry."""
    batch = make_batch(session, ["a", "b", "c"])
    first, last = claim(session), claim(session)
    assert (None, "completed") == (complete(session, last), complete(session, first))
    session.refresh(batch)
    assert ("completed", True) == (batch.status, batch.finished_at is not None)
    results = session.execute(
        select(BatchResult.position, BatchResult.sentiment, BatchResult.confidence).order_by(
            BatchResult.position
        )
    )
    assert [(n, "positive", 0.75) for n in range(3)] == [tuple(row) for row in results]
    history = session.execute(select(Prediction.user_id, Prediction.text, Prediction.model))
    assert {(batch.user_id, t, MODEL) for t in "abc"} == {tuple(row) for row in history}
    assert ["batch.completed"] == ends(session, batch)


def test_stale_attempt_stores_nothing(session: Session) -> None:
    """Neither before nor after the newer attempt completes."""
    batch = make_batch(session, ["a", "b"])
    stale = claim(session)
    current = expire_and_claim(session, stale)
    for _ in range(2):
        with pytest.raises(chunks.LeaseLost), session.begin_nested():
            complete(session, stale)
        with pytest.raises(chunks.LeaseLost), session.begin_nested():
            chunks.fail(session, stale, "error")
        chunks.requeue_counted(session, stale)
        if session.scalar(select(BatchChunk.state)) == "running":
            assert 0 == session.scalar(select(func.count()).select_from(BatchResult))
            assert "completed" == complete(session, current)
    assert 2 == session.scalar(select(func.count()).select_from(BatchResult))
    assert 2 == session.scalar(select(func.count()).select_from(Prediction))
    assert ["batch.completed"] == ends(session, batch)


def test_late_attempt_without_a_newer_claim_completes(session: Session) -> None:
    """An expired lease costs a worker the chunk only once another worker claims it."""
    make_batch(session, ["a"])
    claimed = claim(session)
    session.execute(text("UPDATE batch_chunks SET state = 'pending', lease_until = NULL"))
    assert "completed" == complete(session, claimed)
    assert chunks.claim(session, lease_seconds=30, max_attempts=3) is None


def test_completing_twice_raises_lease_lost(session: Session) -> None:
    """A worker may retry a commit of unknown outcome: nothing is stored twice."""
    make_batch(session, ["a", "b", "c"])
    claimed = claim(session)
    complete(session, claimed)
    with pytest.raises(chunks.LeaseLost), session.begin_nested():
        complete(session, claimed)
    assert 2 == session.scalar(select(func.count()).select_from(Prediction))


def test_cancelled_batch_takes_no_results(session: Session) -> None:
    """Results of a chunk whose batch ended meanwhile are not stored."""
    batch = make_batch(session, ["a"])
    claimed = claim(session)
    batch.status = "cancelled"
    session.flush()
    with pytest.raises(chunks.LeaseLost), session.begin_nested():
        complete(session, claimed)
    assert 0 == session.scalar(select(func.count()).select_from(BatchResult))


@pytest.mark.parametrize(
    ("lost", "status"), [(0, "completed"), (1, "completed_with_errors"), (2, "failed")]
)
def test_last_chunk_decides_how_the_batch_ended(session: Session, lost: int, status: str) -> None:
    """The status is `failed` only if every row failed."""
    batch = make_batch(session, ["a", "b"], chunk_texts=1)
    for n in range(2):
        claimed = claim(session)
        ended = chunks.fail(session, claimed, "odd") if n < lost else complete(session, claimed)
    assert status == ended
    assert [f"batch.{status}"] == ends(session, batch)
    errors = session.scalars(select(BatchResult.error).order_by(BatchResult.position))
    assert ["odd"] * lost + [None] * (2 - lost) == list(errors)


def test_requeued_chunk_is_delayed_a_second_per_attempt(session: Session) -> None:
    """A chunk that always fails must not keep a worker from other chunks."""
    make_batch(session, ["a"])
    claimed = claim(session)
    chunks.requeue_counted(session, claimed)
    chunk = session.execute(
        select(
            BatchChunk.state,
            BatchChunk.attempt,
            func.extract("epoch", BatchChunk.available_at - func.now()),
        )
    ).one()
    assert ("pending", 1, 1) == tuple(chunk)


def test_concurrent_claims_take_different_chunks(database: Database) -> None:
    """Eight workers claim all chunks, each chunk once, and never wait for each other."""
    with database.transaction() as session:
        batch = make_batch(session, [str(n) for n in range(80)], chunk_texts=1)
    start = threading.Barrier(8)

    def work(_: int) -> list[str]:
        start.wait()
        taken = []
        while True:
            with database.transaction() as session:
                claimed = chunks.claim(session, lease_seconds=30, max_attempts=3)
            if claimed is None:
                return taken
            taken += claimed.texts

    with ThreadPoolExecutor(8) as pool:
        taken = [text for part in pool.map(work, range(8)) for text in part]
    assert sorted(str(n) for n in range(80)) == sorted(taken)
    with database.transaction() as session:
        assert {1} == set(session.scalars(select(BatchChunk.attempt)))
        assert "processing" == session.get_one(Batch, batch.id).status


def test_concurrent_completions_end_the_batch_once(database: Database) -> None:
    """Eight workers complete the last eight chunks together: one of them ends the batch."""
    with database.transaction() as session:
        batch = make_batch(session, [str(n) for n in range(8)], chunk_texts=1)
    with database.transaction() as session:
        claims = [claim(session) for _ in range(8)]
    start = threading.Barrier(8)

    def finish(claimed: chunks.Claim) -> str | None:
        start.wait()
        with database.transaction() as session:
            return complete(session, claimed)

    with ThreadPoolExecutor(8) as pool:
        ended = list(pool.map(finish, claims))
    assert ["completed"] == [status for status in ended if status]
    with database.transaction() as session:
        assert ["batch.completed"] == ends(session, batch)


def test_case_108_attempts_at_the_same_chunk_at_once_store_it_once(database: Database) -> None:
    """Of a late worker, its successor and a sweeper that gives up, exactly one wins."""
    for _ in range(10):
        with database.transaction() as session:
            batch = make_batch(session, ["a", "b"])
        with database.transaction() as session:
            late = claim(session)
            current = expire_and_claim(session, late)
        start = threading.Barrier(3)

        def race(store, *, start=start) -> bool:
            start.wait()
            try:
                with database.transaction() as session:
                    store(session)
            except chunks.LeaseLost:
                return False
            return True

        stores = (
            lambda session, claimed=late: complete(session, claimed),
            lambda session, claimed=current: complete(session, claimed),
            lambda session, claimed=current: chunks.fail(session, claimed, "odd"),
        )
        with ThreadPoolExecutor(3) as pool:
            assert 1 == sum(pool.map(race, stores))
        with database.transaction() as session:
            assert 1 == len(ends(session, batch))
            assert 2 == session.scalar(select(func.count()).where(BatchResult.batch_id == batch.id))
