"""Query plans: queues are read along their indexes, whatever the tables' statistics."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import event, text

from support.batches import claim, make_user
from support.databases import new_database
from valence_batch_worker.batches import backlog, recovery
from valence_common.db import Database

MANY_USERS = {"users": 1000, "chunks": 5}
MAX_BLOCKS = 1000
"""A claim may read every index page a few times, but not all rows."""


@contextmanager
def explained(database: Database, options: str = "COSTS") -> Iterator[list[list[Any]]]:
    """Collect the plans of statements on chunks, in lines, each explained just before it runs."""
    plans: list[list[Any]] = []

    def explain(_: Any, cursor: Any, statement: str, parameters: Any, *__: Any) -> None:
        if "batch_chunks" in statement:
            cursor.execute(f"EXPLAIN ({options}) {statement}", parameters)
            plans.append([line for (line,) in cursor])

    event.listen(database.engine, "before_cursor_execute", explain)
    yield plans
    event.remove(database.engine, "before_cursor_execute", explain)


def fill(database: Database, *, users: int, chunks: int, analyze: str = "") -> None:
    """Fill the queue at once, with equal shares; the suite's Postgres has no autovacuum."""
    with database.transaction() as session:
        if analyze == "analyzed when empty":
            session.execute(text("ANALYZE batches, batch_chunks"))
        for _ in range(users):
            make_user(session)
        batches = "INSERT INTO batches (id, user_id, total) SELECT gen_random_uuid(), id, :chunks"
        session.execute(text(f"{batches} FROM users"), {"chunks": chunks})
        session.execute(
            text(
                "INSERT INTO batch_chunks (id, batch_id, user_id, start, size, texts) SELECT"
                " gen_random_uuid(), batches.id, user_id, n, 1, json_build_array(repeat('a ', 50))"
                " FROM batches, generate_series(0, :chunks - 1) AS n"
            ),
            {"chunks": chunks},
        )
        if analyze == "analyzed":
            session.execute(text("ANALYZE batches, batch_chunks"))


@pytest.fixture(scope="module", params=["one user", "many users"])
def shape(request: pytest.FixtureRequest) -> dict[str, int]:
    """Large enough that a claim would sort all chunks without forced index scans."""
    return {"users": 1, "chunks": 10_000} if request.param == "one user" else MANY_USERS


@pytest.fixture(scope="module", params=["never analyzed", "analyzed when empty", "analyzed"])
def filled(
    postgres_url: str, shape: dict[str, int], request: pytest.FixtureRequest
) -> Iterator[Database]:
    """A full queue, with statistics of that age; tests commit nothing."""
    with new_database(postgres_url) as url:
        database = Database(SecretStr(url), pool_size=1, timeout=20)
        fill(database, **shape, analyze=request.param)
        yield database
        database.close()


def in_transaction(work: Callable[..., Any], **arguments: Any) -> Callable[[Database], None]:
    """Call `work` in a transaction that is rolled back."""

    def run(database: Database) -> None:
        with database.transaction() as session:
            work(session, **arguments)
            session.rollback()

    return run


@pytest.mark.parametrize(
    ("work", "scan"),
    [
        (in_transaction(claim), "Index Scan using ix_batch_chunks_queue"),
        (
            in_transaction(backlog.count_waiting, max_attempts=3),
            "Index Scan using ix_batch_chunks_queue",
        ),
        (
            lambda database: recovery.resolve_exhausted(database, max_attempts=3),
            "Index Scan Backward using ix_batch_chunks_tried",
        ),
        (in_transaction(recovery.requeue_expired), "Index Scan using ix_batch_chunks_running"),
    ],
    ids=["claim", "waiting", "exhausted", "expired"],
)
def test_queues_are_searched_in_the_order_of_their_index(
    filled: Database, work: Callable[[Database], None], scan: str
) -> None:
    """A sort or full scan would make claims slower as the queue grows."""
    with explained(filled) as plans:
        work(filled)
    [lines] = plans
    plan = "\n".join(lines)
    assert scan in plan
    assert [] == [way for way in ("Sort", "Bitmap", "Seq Scan on batch_chunks") if way in plan]


def blocks(database: Database) -> int:
    """How many blocks one claim reads."""
    with explained(database, "ANALYZE, BUFFERS, FORMAT JSON") as plans:
        in_transaction(claim)(database)
    [[[document]]] = plans
    return int(document["Plan"]["Shared Hit Blocks"] + document["Plan"]["Shared Read Blocks"])


def milliseconds(database: Database, times: int = 50) -> float:
    """The median time of a claim."""
    taken = []
    for _ in range(times):
        with database.transaction() as session:
            started = time.perf_counter()
            claim(session)
            taken.append((time.perf_counter() - started) * 1000)
    return statistics.median(taken)


def test_backlog_is_counted_along_the_indexes(filled: Database) -> None:
    """One index step for each pair of user and priority, up to a limit."""
    with explained(filled) as plans:
        in_transaction(backlog.measure, max_attempts=3)(filled)
    for lines in plans:
        plan = "\n".join(lines)
        assert "Index" in plan
        assert [] == [way for way in ("Sort", "Bitmap", "Seq Scan on batch_chunks") if way in plan]
    started = time.perf_counter()
    in_transaction(backlog.measure, max_attempts=3)(filled)
    print(f"measuring takes {(time.perf_counter() - started) * 1000:.1f} ms")


@pytest.mark.parametrize(
    "filling",
    [{"users": 1, "chunks": 20_000}, MANY_USERS],
    ids=["20,000 chunks of one user", "5 of each of 1,000"],
)
def test_claim_costs_the_same_however_much_waits(
    database: Database, filling: dict[str, int]
) -> None:
    """The number of blocks read does not grow with the queue."""
    fill(database, **filling)
    assert blocks(database) < 100
    print(f"a claim takes {milliseconds(database):.2f} ms")


@pytest.mark.parametrize(
    "values",
    [
        "state = 'done'",
        "available_at = now() + interval '1 hour'",
    ],
    ids=["done", "not yet due"],
)
def test_claim_stays_cheap_behind_dead_index_entries(database: Database, values: str) -> None:
    """A claim skips the entries that a long batch leaves until the next vacuum, page by page."""
    fill(database, users=1, chunks=20_000)
    first = "SELECT id FROM batch_chunks ORDER BY available_at, id LIMIT 19900"
    with database.transaction() as session:
        session.execute(text(f"UPDATE batch_chunks SET {values} WHERE id IN ({first})"))
    read = [blocks(database) for _ in range(3)]
    print(read)
    assert read[-1] < MAX_BLOCKS
    print(f"a claim takes {milliseconds(database):.2f} ms")
