"""Query plans: reads of batches use indexes, whatever statistics Postgres has."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import event, select, text
from sqlalchemy.orm import Session

from support.batches import make_user
from support.databases import new_database
from valence_common import postgres
from valence_common.db import Database
from valence_common.models import Batch
from valence_inference.batches import lifecycle, results, summary
from valence_inference.batches import status as batch_status

BATCHES, CHUNKS, SIZE = 60, 100, 10

FILL = (
    """INSERT INTO batches (id, user_id, total, status, started_at, finished_at)
    SELECT gen_random_uuid(), :user, :chunks * :size, 'completed_with_errors', now(), now()
    FROM generate_series(1, :batches)""",
    """INSERT INTO batch_chunks
        (id, batch_id, user_id, start, size, texts, state, model, failed, done_at)
    SELECT gen_random_uuid(), batches.id, user_id, n * :size, :size,
        (SELECT json_agg('word ' || i) FROM generate_series(1, :size) AS i), 'done', 'm@1',
        CASE WHEN n % 10 = 0 THEN :size ELSE 0 END, now()
    FROM batches, generate_series(0, :chunks - 1) AS n""",
    """INSERT INTO batch_results (batch_id, position, sentiment, confidence, low_confidence)
    SELECT batches.id, n, 'positive', 0.75, false
    FROM batches, generate_series(0, :chunks * :size - 1) AS n""",
)
TABLES = ("batches", "batch_chunks", "batch_results")


@contextmanager
def explained(database: Database) -> Iterator[list[str]]:
    """Collect the plan of each statement on the tables just before it runs."""
    seen: list[str] = []

    def explain(_: Any, cursor: Any, statement: str, parameters: Any, *__: Any) -> None:
        if any(name in statement for name in TABLES) and "INSERT INTO events" not in statement:
            cursor.execute(f"EXPLAIN {statement}", parameters)
            seen.append("\n".join(line for (line,) in cursor))

    event.listen(database.engine, "before_cursor_execute", explain)
    yield seen
    event.remove(database.engine, "before_cursor_execute", explain)


@pytest.fixture(scope="module", params=["never analyzed", "analyzed when empty", "analyzed"])
def filled(
    postgres_url: str, request: pytest.FixtureRequest
) -> Iterator[tuple[Database, uuid.UUID]]:
    """Many ended batches of one user, in tables with these statistics; tests commit nothing."""
    with new_database(postgres_url) as url:
        database = Database(SecretStr(url), pool_size=1, timeout=20)
        with database.transaction() as session:
            if request.param == "analyzed when empty":
                session.execute(text(f"ANALYZE {', '.join(TABLES)}"))
            user = make_user(session)
            counts = {"batches": BATCHES, "chunks": CHUNKS, "size": SIZE}
            for statement in FILL:
                session.execute(text(statement), {"user": user, **counts})
            if request.param == "analyzed":
                session.execute(text(f"ANALYZE {', '.join(TABLES)}"))
        yield database, user
        database.close()


def status(session: Session, user: uuid.UUID, task: uuid.UUID) -> None:
    batch_status.get_status(session, user, task, max_inline=0)


def pages(session: Session, user: uuid.UUID, task: uuid.UUID) -> None:
    shown, _ = batch_status.read_page(
        session, user, batch_status.BatchFilter(), limit=20, cursor=task
    )
    assert len(shown) <= 20


def read(session: Session, user: uuid.UUID, task: uuid.UUID) -> None:
    batch_status.find(session, user, task)
    found = results.read_page(session, task, start=505, limit=100)
    assert (100, 605) == (len(found.rows), found.next_start)
    assert "word 6" == found.rows[0].text


def sum_up(session: Session, user: uuid.UUID, task: uuid.UUID) -> None:
    found, texts = summary._read(session, user, task, "m@1")
    assert CHUNKS * SIZE == found["labels"]["positive"] == len(texts)


def retry(session: Session, user: uuid.UUID, task: uuid.UUID) -> None:
    failed = lifecycle.count_retriable(session, user, task)
    assert CHUNKS * SIZE // 10 == failed
    lifecycle.retry(session, user, task, texts=failed, max_inline=0)


def cancel(session: Session, user: uuid.UUID, task: uuid.UUID) -> None:
    postgres.force_index_scans(session)
    reopen = "UPDATE batches SET status = 'processing', finished_at = NULL WHERE id = :id"
    session.execute(text(reopen), {"id": task})
    pending = "UPDATE batch_chunks SET state = 'pending' WHERE batch_id = :id AND failed > 0"
    session.execute(text(pending), {"id": task})
    found = lifecycle.cancel(session, user, task, max_inline=0)
    assert CHUNKS * SIZE * 9 // 10 == found.done


@pytest.mark.parametrize("work", [status, pages, read, sum_up, retry, cancel])
def test_batches_are_read_along_indexes(
    filled: tuple[Database, uuid.UUID], work: Callable[[Session, uuid.UUID, uuid.UUID], None]
) -> None:
    """Every table is read by an index; a sequential scan would grow with every batch."""
    database, user = filled
    with database.transaction() as session:
        task = session.scalars(select(Batch.id).limit(1)).one()
    with explained(database) as seen, database.transaction() as session:
        work(session, user, task)
        session.rollback()
    assert seen
    wrong = ("Seq Scan on batch", "Bitmap", "Hash Join", "Merge Join")
    assert [] == [plan for plan in seen if any(way in plan for way in wrong)]
    for plan in seen:
        for line in plan.splitlines():
            assert "using" in line or "Scan on batch" not in line, plan
