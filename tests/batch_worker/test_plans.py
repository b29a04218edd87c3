"""Plans: queues are searched along their indexes, whatever Postgres knows of the tables."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event, text

from support.batches import claim, make_user
from valence_batch_worker import sweeping
from valence_common.db import Database

BATCHES, CHUNKS = 50, 200
"""Without the rules that are tested here, a claim from so many sorts all of them."""


@contextmanager
def explained(database: Database) -> Iterator[list[str]]:
    """The plans of what is run against chunks, each as of the moment before."""
    plans: list[str] = []

    def explain(_: Any, cursor: Any, statement: str, parameters: Any, *__: Any) -> None:
        if "batch_chunks" in statement:
            cursor.execute(f"EXPLAIN {statement}", parameters)
            plans.append("\n".join(line for (line,) in cursor))

    event.listen(database.engine, "before_cursor_execute", explain)
    yield plans
    event.remove(database.engine, "before_cursor_execute", explain)


@pytest.fixture(params=["never analyzed", "analyzed when empty", "analyzed"])
def filled(database: Database, request: pytest.FixtureRequest) -> Database:
    """A queue that filled at once, and tables of which Postgres knows this much."""
    with database.transaction() as session:
        for table in ("batches", "batch_chunks"):
            session.execute(text(f"ALTER TABLE {table} SET (autovacuum_enabled = off)"))
        if request.param == "analyzed when empty":
            session.execute(text("ANALYZE batches, batch_chunks"))
        session.execute(
            text(
                "INSERT INTO batches (id, user_id, total) SELECT gen_random_uuid(), :user, :chunks"
                " FROM generate_series(1, :batches)"
            ),
            {"user": make_user(session), "batches": BATCHES, "chunks": CHUNKS},
        )
        session.execute(
            text(
                "INSERT INTO batch_chunks (id, batch_id, start, size, texts) SELECT"
                " gen_random_uuid(), batches.id, n, 1, json_build_array(repeat('word ', 20))"
                " FROM batches, generate_series(0, :chunks - 1) AS n"
            ),
            {"chunks": CHUNKS},
        )
        if request.param == "analyzed":
            session.execute(text("ANALYZE batches, batch_chunks"))
    return database


def in_transaction(work: Callable[..., Any], **arguments: Any) -> Callable[[Database], None]:
    def run(database: Database) -> None:
        with database.transaction() as session:
            work(session, **arguments)

    return run


@pytest.mark.parametrize(
    ("work", "scan"),
    [
        (in_transaction(claim), "Index Scan using ix_batch_chunks_queue"),
        (
            in_transaction(sweeping.waiting, max_attempts=3, most=16),
            "Index Scan using ix_batch_chunks_queue",
        ),
        (
            lambda database: sweeping.settle_exhausted(database, max_attempts=3),
            "Index Scan Backward using ix_batch_chunks_tried",
        ),
        (in_transaction(sweeping.expire), "Index Scan using ix_batch_chunks_running"),
    ],
    ids=["claim", "waiting", "exhausted", "expire"],
)
def test_queues_are_searched_in_the_order_of_their_index(
    filled: Database, work: Callable[[Database], None], scan: str
) -> None:
    """No sort and no scan of all that waits, or the cost of a claim grows with the queue."""
    with explained(filled) as plans:
        work(filled)
    [plan] = plans
    assert scan in plan
    assert [] == [way for way in ("Sort", "Bitmap", "Seq Scan on batch_chunks") if way in plan]
