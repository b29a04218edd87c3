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


def complete(session: Session, mine: chunks.Claim) -> str | None:
    return chunks.complete(session, mine, score(mine.texts), MODEL)


def ends(session: Session, batch: Batch) -> list[str]:
    query = select(AuditEvent.action).where(
        AuditEvent.subject_id == batch.id, AuditEvent.action != "batch.accepted"
    )
    return list(session.scalars(query))


def overtake(session: Session, mine: chunks.Claim) -> chunks.Claim:
    """Let the lease run out, and another worker claim the chunk."""
    session.execute(
        text("UPDATE batch_chunks SET state = 'pending', lease_until = NULL WHERE id = :id"),
        {"id": mine.id},
    )
    return claim(session)


def test_claim_takes_chunks_in_the_order_of_their_acceptance(session: Session) -> None:
    """Who came first is served first, from the first text to the last."""
    first = make_batch(session, ["a", "b", "c"])
    second = make_batch(session, ["d"])
    claimed = [claim(session) for _ in range(3)]
    assert [(first.id, ["a", "b"]), (first.id, ["c"]), (second.id, ["d"])] == [
        (mine.batch_id, mine.texts) for mine in claimed
    ]
    assert [0, 2, 0] == [mine.start for mine in claimed]


def test_claim_finds_nothing_where_there_is_nothing(session: Session) -> None:
    """No work is an answer, not an error."""
    assert chunks.claim(session, lease_seconds=30, max_attempts=3) is None


def test_claim_counts_the_attempt_before_the_work(session: Session) -> None:
    """A process that dies at its work has been counted."""
    make_batch(session, ["a"])
    mine = claim(session)
    assert 1 == mine.attempt == session.scalar(select(BatchChunk.attempt))
    assert 2 == overtake(session, mine).attempt


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
    """No worker's own clock decides who holds a chunk."""
    make_batch(session, ["a"])
    claim(session, lease_seconds=30)
    left = session.scalar(select(func.extract("epoch", BatchChunk.lease_until - func.now())))
    assert 30 == left


@pytest.mark.parametrize("status", TERMINAL)
def test_claim_leaves_ended_batches_alone(session: Session, status: str) -> None:
    """Nothing of a cancelled or finished batch is worked on any more."""
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
def test_claim_leaves_alone_what_is_not_its_turn(session: Session, change: str) -> None:
    """Only what is pending, due and has attempts left; expired leases are swept first."""
    make_batch(session, ["a"])
    session.execute(text(f"UPDATE batch_chunks SET {change}"))
    assert chunks.claim(session, lease_seconds=30, max_attempts=3) is None


def test_complete_stores_results_and_history_and_ends_the_batch(session: Session) -> None:
    """The last chunk's commit is the batch's end, with one line in the audit."""
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
    """Whoever was overtaken loses, before the other is done and after."""
    batch = make_batch(session, ["a", "b"])
    stale = claim(session)
    current = overtake(session, stale)
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


def test_late_attempt_that_nobody_overtook_still_counts(session: Session) -> None:
    """A lease that ran out takes the chunk from a worker only when another claims it."""
    make_batch(session, ["a"])
    mine = claim(session)
    session.execute(text("UPDATE batch_chunks SET state = 'pending', lease_until = NULL"))
    assert "completed" == complete(session, mine)
    assert chunks.claim(session, lease_seconds=30, max_attempts=3) is None


def test_completing_twice_is_lost_the_second_time(session: Session) -> None:
    """A commit whose answer did not arrive may be tried again: it stores nothing twice."""
    make_batch(session, ["a", "b", "c"])
    mine = claim(session)
    complete(session, mine)
    with pytest.raises(chunks.LeaseLost), session.begin_nested():
        complete(session, mine)
    assert 2 == session.scalar(select(func.count()).select_from(Prediction))


def test_cancelled_batch_takes_no_results(session: Session) -> None:
    """What was being scored when its batch ended is not stored."""
    batch = make_batch(session, ["a"])
    mine = claim(session)
    batch.status = "cancelled"
    session.flush()
    with pytest.raises(chunks.LeaseLost), session.begin_nested():
        complete(session, mine)
    assert 0 == session.scalar(select(func.count()).select_from(BatchResult))


@pytest.mark.parametrize(
    ("lost", "status"), [(0, "completed"), (1, "completed_with_errors"), (2, "failed")]
)
def test_last_chunk_decides_how_the_batch_ended(session: Session, lost: int, status: str) -> None:
    """`failed` is said only when every row failed."""
    batch = make_batch(session, ["a", "b"], chunk_texts=1)
    for n in range(2):
        mine = claim(session)
        ended = chunks.fail(session, mine, "odd") if n < lost else complete(session, mine)
    assert status == ended
    assert [f"batch.{status}"] == ends(session, batch)
    errors = session.scalars(select(BatchResult.error).order_by(BatchResult.position))
    assert ["odd"] * lost + [None] * (2 - lost) == list(errors)


def test_released_chunk_waits_a_second_for_each_attempt(session: Session) -> None:
    """A chunk that fails at once must not keep a worker busy with nothing else."""
    make_batch(session, ["a"])
    mine = claim(session)
    chunks.requeue_counted(session, mine)
    chunk = session.execute(
        select(
            BatchChunk.state,
            BatchChunk.attempt,
            func.extract("epoch", BatchChunk.available_at - func.now()),
        )
    ).one()
    assert ("pending", 1, 1) == tuple(chunk)


def test_claims_at_once_take_different_chunks(database: Database) -> None:
    """Eight workers claim all chunks; none gets one that another has, none waits for another."""
    with database.transaction() as session:
        batch = make_batch(session, [str(n) for n in range(80)], chunk_texts=1)
    start = threading.Barrier(8)

    def work(_: int) -> list[str]:
        start.wait()
        taken = []
        while True:
            with database.transaction() as session:
                mine = chunks.claim(session, lease_seconds=30, max_attempts=3)
            if mine is None:
                return taken
            taken += mine.texts

    with ThreadPoolExecutor(8) as pool:
        taken = [text for part in pool.map(work, range(8)) for text in part]
    assert sorted(str(n) for n in range(80)) == sorted(taken)
    with database.transaction() as session:
        assert {1} == set(session.scalars(select(BatchChunk.attempt)))
        assert "processing" == session.get_one(Batch, batch.id).status


def test_completions_at_once_end_the_batch_once(database: Database) -> None:
    """Eight workers finish the last eight chunks together: one of them ends the batch."""
    with database.transaction() as session:
        batch = make_batch(session, [str(n) for n in range(8)], chunk_texts=1)
    with database.transaction() as session:
        claims = [claim(session) for _ in range(8)]
    start = threading.Barrier(8)

    def finish(mine: chunks.Claim) -> str | None:
        start.wait()
        with database.transaction() as session:
            return complete(session, mine)

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
            current = overtake(session, late)
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
            lambda session, mine=late: complete(session, mine),
            lambda session, mine=current: complete(session, mine),
            lambda session, mine=current: chunks.fail(session, mine, "odd"),
        )
        with ThreadPoolExecutor(3) as pool:
            assert 1 == sum(pool.map(race, stores))
        with database.transaction() as session:
            assert 1 == len(ends(session, batch))
            assert 2 == session.scalar(select(func.count()).where(BatchResult.batch_id == batch.id))
