"""Expired batches: not found as soon as their deletion begins."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from support.batches import make_user
from support.files import store
from support.lifecycle import retry
from valence_batch_worker.cleanup import bulk_delete, retention
from valence_common.db import Database
from valence_common.models import Batch, BatchResult
from valence_inference.batches import export, lifecycle
from valence_inference.batches import status as batch_status
from valence_inference.batches.export import ResultStream
from valence_inference.batches.status import TaskNotFound

TEXTS = ["a", "b", "c", "d", "e", "f"]


def ended(session: Session) -> Batch:
    """A batch that ended; its last text failed."""
    sizes, failed = [1] * len(TEXTS), {len(TEXTS) - 1}
    status = "completed_with_errors"
    user = make_user(session)
    return session.get_one(
        Batch, store(session, user, TEXTS, sizes=sizes, failed=failed, status=status)
    )


def delete_step(database: Database, most: int = 2) -> int:
    """Run one step of the deletion of expired batches, a year from now."""
    in_a_year = datetime.now(UTC) + timedelta(days=365)

    def piece(session: Session, most: int) -> int:
        return retention._expire_batches(session, in_a_year, most)

    return bulk_delete.delete_step(database, "batches", piece, limit=most)


def test_a_partly_deleted_batch_is_not_found(database: Database) -> None:
    """A partly deleted batch cannot be seen, read, retried or deleted."""
    with database.transaction() as session:
        batch = ended(session)
    assert delete_step(database)
    with database.transaction() as session:
        assert 0 < session.scalar(select(func.count()).select_from(BatchResult)) < len(TEXTS)
    for look in (
        lambda session: batch_status.get_status(session, batch.user_id, batch.id, max_inline=10),
        lambda session: export.read_page(session, batch.user_id, batch.id, start=0, limit=10),
        lambda session: retry(session, batch, texts=1),
        lambda session: lifecycle.delete(session, batch.user_id, batch.id),
    ):
        with pytest.raises(TaskNotFound), database.transaction() as session:
            look(session)
    with database.transaction() as session:
        nothing = batch_status.read_page(
            session, batch.user_id, batch_status.BatchFilter(), limit=9, cursor=None
        )
        assert ([], None) == nothing
    while delete_step(database):
        pass
    with database.transaction() as session:
        assert None is session.get(Batch, batch.id)


def test_a_download_breaks_off(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A download that ends properly has all rows."""
    monkeypatch.setattr(export, "PAGE_ROWS", 2)
    with database.transaction() as session:
        batch = ended(session)

    async def download() -> None:
        stream = await ResultStream(database, batch.user_id, batch.id, "csv", 0).open()
        assert await anext(stream)
        delete_step(database, most=1)
        with pytest.raises(TaskNotFound):
            await anext(stream)

    asyncio.run(download())


def test_a_concurrent_retry_keeps_the_batch(database: Database) -> None:
    """Retention skips a locked batch; the retry resets its age."""
    with database.transaction() as session:
        batch = ended(session)
    with database.transaction() as session:
        retry(session, batch, texts=1)
        assert 0 == delete_step(database)
    assert 0 == delete_step(database)
    with database.transaction() as session:
        found = batch_status.get_status(session, batch.user_id, batch.id, max_inline=10)
        assert ("processing", len(TEXTS) - 1) == (found.batch.status, found.done)


def test_deleted_batches_go_before_expired_ones(database: Database) -> None:
    """Batches deleted by their owner go first, however many have expired."""
    with database.transaction() as session:
        old = [ended(session) for _ in range(3)]
    assert delete_step(database, most=3)
    with database.transaction() as session:
        mine = ended(session)
    with database.transaction() as session:
        lifecycle.delete(session, mine.user_id, mine.id)
    gone = 0
    while gone < len(TEXTS) + bulk_delete.ROWS_PER_CHUNK * len(TEXTS) + 1:
        gone += bulk_delete.delete_step(
            database, "deleted", retention.DELETED_BATCHES["deleted"], limit=10
        )
    with database.transaction() as session:
        assert {batch.id for batch in old} >= set(session.scalars(select(Batch.id)))
