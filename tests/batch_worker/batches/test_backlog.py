"""The backlog: how many chunks wait and run, and for how long."""

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from support.batches import claim, make_batch
from valence_batch_worker.batches import backlog
from valence_batch_worker.batches.backlog import Backlog


def measure(session: Session) -> Backlog:
    return backlog.measure(session, max_attempts=3)


def age(session: Session, batch_id: object, seconds: int, priority: int = 5) -> None:
    session.execute(
        text(
            "UPDATE batch_chunks SET available_at = now() - :seconds * interval '1 s',"
            " priority = :priority WHERE batch_id = :id"
        ),
        {"seconds": seconds, "priority": priority, "id": batch_id},
    )


def test_empty_backlog_is_all_zeros(session: Session) -> None:
    """Without chunks there is nothing to count."""
    assert Backlog(waiting=0, running=0, oldest_seconds=0) == measure(session)


def test_waiting_and_running_chunks_are_counted(session: Session) -> None:
    """A chunk is waiting, running or done."""
    make_batch(session, [str(n) for n in range(5)], chunk_texts=1)
    for _ in range(2):
        claim(session)
    session.execute(
        text(
            "UPDATE batch_chunks SET state = 'done', lease_until = NULL WHERE id ="
            " (SELECT id FROM batch_chunks WHERE state = 'running' LIMIT 1)"
        )
    )
    assert Backlog(waiting=3, running=1, oldest_seconds=0) == measure(session)


def test_counts_have_a_limit(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long queue does not make the query slow."""
    monkeypatch.setattr(backlog, "MAX_CHUNKS", 4)
    make_batch(session, [str(n) for n in range(10)], chunk_texts=1)
    assert 9 == backlog.count_waiting(session, max_attempts=3, limit=9)
    for _ in range(3):
        claim(session)
    assert 3 == measure(session).running
    assert 5 == backlog.count_waiting(session, max_attempts=3, limit=5)


@pytest.mark.parametrize("oldest", range(3))
def test_oldest_is_found_in_any_users_queue_at_any_priority(session: Session, oldest: int) -> None:
    """Also behind the front of a queue: the metric must show a starving chunk."""
    for n, priority in enumerate((1, 9, 5)):
        batch = make_batch(session, ["a", "b"], chunk_texts=1)
        age(session, batch.id, 100 if n == oldest else 10 + n, priority)
        other = make_batch(session, ["c"])
        session.execute(
            text("UPDATE batch_chunks SET user_id = :user_id WHERE batch_id = :id"),
            {"user_id": batch.user_id, "id": other.id},
        )
        age(session, other.id, 5, 5)
    assert 100 == measure(session).oldest_seconds


def test_unclaimable_chunks_are_not_counted(session: Session) -> None:
    """Chunks of ended batches, exhausted chunks and delayed ones."""
    for change in (
        "attempt = 3",
        "available_at = now() + interval '1 second'",
        "batch_id = batch_id",
    ):
        batch = make_batch(session, ["a"])
        age(session, batch.id, 100)
        statement = text(f"UPDATE batch_chunks SET {change} WHERE batch_id = :id")
        session.execute(statement, {"id": batch.id})
    batch.status = "cancelled"
    session.flush()
    assert Backlog(waiting=0, running=0, oldest_seconds=0) == measure(session)
