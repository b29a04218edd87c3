"""Recovery: each lost chunk is requeued once, with any number of sweepers."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from support.batches import claim, make_batch, score
from valence_batch_worker import metrics
from valence_batch_worker.batches import chunks, recovery
from valence_batch_worker.batches.sweeper import MAX_RINGS, Sweeper
from valence_batch_worker.settings import Settings
from valence_common.db import Database
from valence_common.models import AuditEvent, BatchChunk, BatchResult


class RecordingDoorbell:
    """Records its calls."""

    def __init__(self) -> None:
        self.rung: list[tuple[int, int | None]] = []

    def ring(self, times: int, *, max_queued: int | None = None) -> bool:
        self.rung.append((times, max_queued))
        return True


@pytest.fixture
def doorbell() -> RecordingDoorbell:
    return RecordingDoorbell()


@pytest.fixture
def sweeper(database: Database, own_database_url: str, doorbell: RecordingDoorbell) -> Sweeper:
    settings = Settings(
        database_url=SecretStr(own_database_url),
        redis_url=SecretStr("redis://127.0.0.1:1/0"),
        sweep_seconds=1e6,  # longer than a day: what is due daily may not depend on it
    )
    return Sweeper(settings, database, doorbell)


def test_only_expired_leases_are_requeued(session: Session) -> None:
    """A valid lease stays with its worker; the expired attempt stays counted."""
    make_batch(session, ["a", "b"], chunk_texts=1)
    expired, held = claim(session, lease_seconds=-1), claim(session, lease_seconds=1)
    assert 1 == recovery.requeue_expired(session)
    assert 0 == recovery.requeue_expired(session)
    states = session.execute(select(BatchChunk.id, BatchChunk.state, BatchChunk.attempt))
    assert {(expired.id, "pending", 1), (held.id, "running", 1)} == {tuple(s) for s in states}


def test_exhausted_chunk_is_bisected_under_new_ids(database: Database) -> None:
    """The late worker's fencing token is void; the texts keep their positions."""
    with database.transaction() as session:
        make_batch(session, ["a", "b", "c"], chunk_texts=3)
    with database.transaction() as session:
        late = claim(session, lease_seconds=-1, max_attempts=1)
        recovery.requeue_expired(session)
    assert 1 == recovery.resolve_exhausted(database, max_attempts=1)
    with pytest.raises(chunks.LeaseLost), database.transaction() as session:
        chunks.complete(session, late, score(late.texts), "test@1")
    with database.transaction() as session:
        halves = [claim(session, max_attempts=1) for _ in range(2)]
    assert [(0, ["a"]), (1, ["b", "c"])] == sorted((half.start, half.texts) for half in halves)


def test_text_that_no_attempt_could_score_fails_alone(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    """A chunk of one text fails, and its batch ends, counted and logged like any other."""
    before = metrics.BATCHES.labels("failed")._value.get()
    with database.transaction() as session:
        batch = make_batch(session, ["a"])
    with database.transaction() as session:
        claim(session, lease_seconds=-1, max_attempts=1)
        recovery.requeue_expired(session)
    assert 1 == recovery.resolve_exhausted(database, max_attempts=1)
    with database.transaction() as session:
        rows = session.execute(select(BatchResult.position, BatchResult.error))
        assert [(0, recovery.POISON_ERROR)] == [tuple(row) for row in rows]
        ended = select(AuditEvent.action).where(AuditEvent.subject_id == batch.id)
        assert {"batch.accepted", "batch.failed"} == set(session.scalars(ended))
    assert before + 1 == metrics.BATCHES.labels("failed")._value.get()
    assert "batch_ended" in "".join(capsys.readouterr())


@pytest.mark.parametrize("poison", [{0}, {499}, {250, 251}, set()])
def test_poison_is_found_by_bisection_and_the_rest_finishes(
    database: Database, poison: set[int]
) -> None:
    """Only the poisonous texts fail, after a logarithmic number of attempts."""
    texts = [f"poison {n}" if n in poison else str(n) for n in range(500)]
    with database.transaction() as session:
        make_batch(session, texts, chunk_texts=500)
    attempts, ended = 0, None
    while ended is None:
        with database.transaction() as session:
            claimed = chunks.claim(session, lease_seconds=-1, max_attempts=3)
            attempts += 1
        if claimed is None:
            recovery.resolve_exhausted(database, max_attempts=3)
            with database.transaction() as session:
                ended = session.scalar(
                    text("SELECT status FROM batches WHERE finished_at IS NOT NULL")
                )
        elif any(text.startswith("poison") for text in claimed.texts):
            with database.transaction() as session:
                recovery.requeue_expired(session)  # its worker died
        else:
            with database.transaction() as session:
                ended = chunks.complete(session, claimed, score(claimed.texts), "test@1")
    assert ("completed_with_errors" if poison else "completed") == ended
    assert attempts <= 3 + 40 * len(poison)
    with database.transaction() as session:
        failed = session.scalars(select(BatchResult.position).where(BatchResult.error.is_not(None)))
        assert poison == set(failed)
        assert 500 == session.scalar(select(func.count()).select_from(BatchResult))


def test_text_fails_only_after_all_attempts_alone(database: Database) -> None:
    """A text is not failed for a neighbour in its chunk."""
    with database.transaction() as session:
        make_batch(session, ["a", "b"])
    for attempts in (3, 3, 3):
        for _ in range(attempts):
            with database.transaction() as session:
                claim(session, lease_seconds=-1)
                recovery.requeue_expired(session)
        recovery.resolve_exhausted(database, max_attempts=3)
    with database.transaction() as session:
        errors = session.scalar(select(func.count()).where(BatchResult.error.is_not(None)))
        assert 2 == errors


def test_case_111_concurrent_sweepers_requeue_each_lease_once(database: Database) -> None:
    """Four sweepers over 2,000 expired leases: no deadlock, no lease counted twice, none left."""
    with database.transaction() as session:
        make_batch(session, [str(n) for n in range(2000)], chunk_texts=1)
        session.execute(
            text(
                "UPDATE batch_chunks SET state = 'running', attempt = 1,"
                " lease_until = now() - interval '1 second'"
            )
        )
    start = threading.Barrier(4)

    def sweep(_: int) -> int:
        start.wait()
        recovered = 0
        for _ in range(100):
            with database.transaction() as session:
                taken = recovery.requeue_expired(session)
            recovered += taken
            if not taken:
                break
        return recovered

    with ThreadPoolExecutor(4) as pool:
        recovered = list(pool.map(sweep, range(4)))
    with database.transaction() as session:
        recovered.append(recovery.requeue_expired(session))  # what the last two left to each other
        states = session.execute(select(BatchChunk.state, BatchChunk.attempt))
        assert {("pending", 1)} == {tuple(state) for state in states}
    assert 2000 == sum(recovered)


def test_concurrent_sweepers_bisect_each_chunk_once(database: Database) -> None:
    """Four sweepers over exhausted chunks: every text is in exactly one half."""
    texts = [str(n) for n in range(120)]
    with database.transaction() as session:
        make_batch(session, texts, chunk_texts=3)
        session.execute(text("UPDATE batch_chunks SET attempt = 3"))
    start = threading.Barrier(4)

    def resolve(_: int) -> int:
        start.wait()
        return recovery.resolve_exhausted(database, max_attempts=3)

    with ThreadPoolExecutor(4) as pool:
        assert 40 == sum(pool.map(resolve, range(4)))
    with database.transaction() as session:
        held = [t for part in session.scalars(select(BatchChunk.texts)) for t in part]
    assert sorted(texts) == sorted(held)


def test_sweep_rings_for_waiting_chunks_within_its_limit(
    sweeper: Sweeper, doorbell: RecordingDoorbell, database: Database
) -> None:
    """The sweeper rings for waiting chunks, and stays silent without any."""
    sweeper.sweep()
    assert [] == doorbell.rung
    with database.transaction() as session:
        make_batch(session, [str(n) for n in range(100)], chunk_texts=1)
    sweeper.sweep()
    assert [(MAX_RINGS, MAX_RINGS)] == doorbell.rung


def test_sweep_makes_partitions_ahead(sweeper: Sweeper, database: Database) -> None:
    """The history's partitions exist before their month; the sweeper makes them once a day."""
    months = text("SELECT count(*) FROM pg_inherits WHERE inhparent = 'predictions'::regclass")
    with database.transaction() as session:
        before = session.scalar(months)
        newest = session.scalar(
            text("SELECT max(relname) FROM pg_class WHERE relname ~ '^predictions_[0-9_]{7}$'")
        )
        session.execute(text(f"DROP TABLE {newest}"))
    sweeper.sweep()
    with database.transaction() as session:
        assert before == session.scalar(months)
        session.execute(text(f"DROP TABLE {newest}"))
    sweeper.sweep()
    with database.transaction() as session:
        assert before - 1 == session.scalar(months)
