"""The status of batches: counted from rows after every change."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, text

from support.batches import claim, make_batch, make_user, score
from support.files import store
from valence_batch_worker.batches import chunks
from valence_common.db import Database
from valence_common.models import Batch, BatchResult
from valence_inference.batches import lifecycle
from valence_inference.batches import status as batch_status
from valence_inference.batches.status import BatchFilter, Status

MODEL = "test@1"


def status(database: Database, batch: Batch) -> Status:
    with database.transaction() as session:
        return batch_status.get_status(session, batch.user_id, batch.id, max_inline=0)


def accept(database: Database, count: int = 10) -> Batch:
    with database.transaction() as session:
        return make_batch(session, [str(n) for n in range(count)], chunk_texts=1)


def work(database: Database, *, fail: bool = False) -> None:
    with database.transaction() as session:
        mine = claim(session)
        if fail:
            chunks.fail(session, mine, "odd")
        else:
            chunks.complete(session, mine, score(mine.texts), MODEL)


def age(database: Database, batch: Batch, **seconds: float) -> None:
    """Move these times of the batch, and the `done_at` of its chunks, into the past."""
    with database.transaction() as session:
        for column, ago in seconds.items():
            table, key = ("batch_chunks", "batch_id") if column == "done_at" else ("batches", "id")
            done = " AND state = 'done'" if column == "done_at" else ""
            session.execute(
                text(
                    f"UPDATE {table} SET {column} = now() - :ago * interval '1 second'"
                    f" WHERE {key} = :id{done}"
                ),
                {"ago": ago, "id": batch.id},
            )


def test_rate_is_unknown_before_the_first_result(database: Database) -> None:
    """Neither while the batch waits nor while its first chunk is running, and there is no ETA."""
    batch = accept(database)
    assert (None, None) == (status(database, batch).rate, status(database, batch).eta_seconds)
    with database.transaction() as session:
        claim(session)
    found = status(database, batch)
    assert ("processing", None, None) == (found.batch.status, found.rate, found.eta_seconds)


def test_rate_is_of_the_last_minute(database: Database) -> None:
    """Four of ten texts in two seconds leave three seconds; older work does not count."""
    batch = accept(database)
    for _ in range(4):
        work(database)
    age(database, batch, started_at=2, done_at=1)
    found = status(database, batch)
    assert pytest.approx(2, rel=0.3) == found.rate
    assert 3 <= found.eta_seconds <= 5
    age(database, batch, started_at=1_000, done_at=900)
    work(database)
    found = status(database, batch)
    assert pytest.approx(1 / 60) == found.rate
    assert (5, 300) == (found.done, found.eta_seconds)


def test_a_stalled_batch_has_rate_zero(database: Database) -> None:
    """A stalled batch has rate 0 and no ETA."""
    batch = accept(database)
    work(database)
    age(database, batch, started_at=1_000, done_at=900)
    assert (0, None) == (status(database, batch).rate, status(database, batch).eta_seconds)


def test_rate_of_an_ended_batch_is_the_average(database: Database) -> None:
    """Over the whole run; there is no ETA."""
    batch = accept(database)
    for _ in range(10):
        work(database)
    age(database, batch, started_at=900, done_at=850, finished_at=800)
    found = status(database, batch)
    assert (pytest.approx(0.1), None) == (found.rate, found.eta_seconds)


def test_rate_of_a_retry_does_not_count_what_was_done_before(database: Database) -> None:
    """A retry restarts the measurement."""
    batch = accept(database)
    for n in range(10):
        work(database, fail=n >= 6)
    age(database, batch, started_at=30, done_at=20, finished_at=10)
    with database.transaction() as session:
        lifecycle.retry(session, batch.user_id, batch.id, texts=4, max_inline=0)
    assert None is status(database, batch).rate
    work(database)
    age(database, batch, started_at=2)
    found = status(database, batch)
    assert pytest.approx(0.5, rel=0.3) == found.rate
    assert 6 <= found.eta_seconds <= 8


def test_case_116_progress_is_what_is_stored(database: Database) -> None:
    """After each score, failure, retry and cancel, `done` equals the number of results."""
    batch = accept(database)

    def told() -> tuple[str, int, int]:
        found = status(database, batch)
        with database.transaction() as session:
            mine = BatchResult.batch_id == batch.id
            stored = session.scalar(select(func.count()).where(mine))
            errors = session.scalar(
                select(func.count()).where(mine, BatchResult.error.is_not(None))
            )
        assert (stored, errors) == (found.done, found.failed)
        return found.batch.status, found.done, found.failed

    assert ("pending", 0, 0) == told()
    for n in range(10):
        work(database, fail=n % 3 == 0)
        assert n + 1 == told()[1]
    assert ("completed_with_errors", 10, 4) == told()
    with database.transaction() as session:
        lifecycle.retry(session, batch.user_id, batch.id, texts=4, max_inline=0)
    assert ("processing", 6, 0) == told()
    work(database, fail=True)
    work(database)
    assert ("processing", 8, 1) == told()
    with database.transaction() as session:
        lifecycle.cancel(session, batch.user_id, batch.id, max_inline=0)
    assert ("cancelled", 8, 1) == told()


ALL = BatchFilter()


def page(
    database: Database, user: uuid.UUID, only: BatchFilter = ALL, *, limit: int = 10
) -> list[uuid.UUID]:
    """Return the ids of all pages in order."""
    found: list[uuid.UUID] = []
    cursor = None
    while True:
        with database.transaction() as session:
            shown, cursor = batch_status.read_page(session, user, only, limit=limit, cursor=cursor)
        assert len(shown) <= limit
        found += [status.batch.id for status in shown]
        if cursor is None:
            return found


@pytest.mark.parametrize("limit", [1, 2, 5, 6])
def test_pages_have_all_batches_of_a_user_newest_first(database: Database, limit: int) -> None:
    """No gaps and no repeats for any page size; no batches of others, no deleted ones."""
    with database.transaction() as session:
        user = make_user(session)
        made = [store(session, user, ["a", "b"]) for _ in range(5)]
        gone = store(session, user, ["a"])
        store(session, make_user(session), ["a"])
        lifecycle.delete(session, user, gone)
    assert made[::-1] == page(database, user, limit=limit)


def test_pages_count_each_batch(database: Database) -> None:
    """The counts are those of its status."""
    with database.transaction() as session:
        user = make_user(session)
        store(session, user, ["a", "b", "c"], failed={1, 2}, sizes=[1, 1, 1])
        store(session, user, ["a"])
        session.add(Batch(user_id=user, total=7))
    with database.transaction() as session:
        shown, _ = batch_status.read_page(session, user, BatchFilter(), limit=9, cursor=None)
    assert [("pending", 0, 0), ("completed", 1, 0), ("completed", 3, 2)] == [
        (s.batch.status, s.done, s.failed) for s in shown
    ]
    assert [None] * 3 == [s.results for s in shown]


def test_filters_select(database: Database) -> None:
    """By status and by time, `since` inclusive and `until` exclusive."""
    moment = datetime(2026, 5, 1, tzinfo=UTC)
    with database.transaction() as session:
        user = make_user(session)
        states = ("completed", "failed", "cancelled")
        made = [
            store(session, user, ["a"], status=state, created_at=moment + timedelta(days=n))
            for n, state in enumerate(states)
        ]
    for only, expected in (
        (BatchFilter(["failed"]), [1]),
        (BatchFilter(["completed", "cancelled"]), [2, 0]),
        (BatchFilter(["pending"]), []),
        (BatchFilter(since=moment + timedelta(days=1)), [2, 1]),
        (BatchFilter(until=moment + timedelta(days=1)), [0]),
        (BatchFilter(["failed"], moment + timedelta(days=2), None), []),
    ):
        assert [made[n] for n in expected] == page(database, user, only)
