"""Cancel and retry concurrently with workers and other requests."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from pydantic import SecretStr
from sqlalchemy import func, select, text

from support.batches import claim, make_batch
from support.lifecycle import actions, cancel, complete
from support.rows import query
from support.waiting import until
from valence_batch_worker.batches import chunks, recovery
from valence_common.db import Database
from valence_common.models import (
    Batch,
    BatchChunk,
    BatchResult,
)
from valence_common.problems import Conflict
from valence_inference.batches import lifecycle
from valence_inference.batches.lifecycle import AlreadyEnded

WAITS = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


def test_cancelled_while_a_sweeper_cuts_a_chunk(database: Database, own_database_url: str) -> None:
    """The halves, which the cancel did not see at first, are deleted as well."""
    with database.transaction() as session:
        batch = make_batch(session, ["a", "b", "c", "d"], chunk_texts=4)
        mine = claim(session)
    with database.transaction() as session:
        session.execute(
            text(
                "UPDATE batch_chunks SET state = 'pending', lease_until = NULL, attempt = 3,"
                " user_id = :user"
            ),
            {"user": batch.user_id},
        )

    def cancel_alone() -> int:
        with database.transaction() as session:
            return cancel(session, batch).done

    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as cutting:
            session = cutting
            held = session.scalars(select(BatchChunk.id).with_for_update()).one()
            assert mine.id == held
            recovery._bisect(session, mine, 5, None, max_attempts=3)
            cancelling = pool.submit(cancel_alone)
            until(lambda: query(own_database_url, WAITS), timeout=20, what="cancel to wait")
        assert 0 == cancelling.result(20)
    with database.transaction() as session:
        assert [] == session.scalars(select(BatchChunk.id)).all()


def test_cancelled_among_workers_at_full_speed(database: Database, own_database_url: str) -> None:
    """Eight threads claim and complete chunks; no deadlock, and the status never changes again."""
    # The workers' threads take all connections of theirs.
    web = Database(SecretStr(own_database_url), pool_size=1, timeout=20)
    for _ in range(5):
        with database.transaction() as session:
            batch = make_batch(session, [str(n) for n in range(400)], chunk_texts=1)
        start = threading.Barrier(8)
        outcomes: list[bool] = []

        def work(*, start=start, outcomes=outcomes) -> None:
            start.wait()
            while True:
                with database.transaction() as session:
                    mine = chunks.claim(session, lease_seconds=30, max_attempts=3)
                if mine is None:
                    return
                try:
                    with database.transaction() as session:
                        complete(session, mine)
                except chunks.LeaseLost:
                    outcomes.append(False)
                else:
                    outcomes.append(True)

        with ThreadPoolExecutor(8) as pool:
            working = [pool.submit(work) for _ in range(8)]
            until(lambda outcomes=outcomes: len(outcomes) >= 40, timeout=30, interval=0.005)
            with web.transaction() as session:
                status = cancel(session, batch)
            for future in working:
                future.result(30)
        assert outcomes.count(False) <= 8
        with database.transaction() as session:
            assert "cancelled" == session.get_one(Batch, batch.id).status
            assert ["batch.accepted", "batch.cancelled"] == actions(session, batch)
            stored = select(func.count()).where(BatchResult.batch_id == batch.id)
            assert status.done == outcomes.count(True) == session.scalar(stored)
            left = select(BatchChunk.id).where(BatchChunk.state != "done")
            assert [] == session.scalars(left).all()
    web.close()


def test_case_113_cancel_while_the_last_chunk_commits(
    database: Database, own_database_url: str
) -> None:
    """The first to lock the batch decides; the other finds that it has ended."""

    def in_own(work) -> str:
        try:
            with database.transaction() as session:
                work(session)
        except (chunks.LeaseLost, AlreadyEnded) as error:
            return type(error).__name__
        return "stored"

    for completes_first in (True, False):
        with database.transaction() as session:
            batch = make_batch(session, ["a", "b"])
            mine = claim(session)
        works = [partial(complete, mine=mine), partial(cancel, batch=batch)]
        first, second = works if completes_first else works[::-1]
        with ThreadPoolExecutor(1) as pool:
            with database.transaction() as session:
                first(session)
                waiting = pool.submit(in_own, second)
                until(lambda: query(own_database_url, WAITS), timeout=20, what="the second to wait")
            assert ("AlreadyEnded" if completes_first else "LeaseLost") == waiting.result(20)
        with database.transaction() as session:
            ended = "batch.completed" if completes_first else "batch.cancelled"
            assert ["batch.accepted", ended] == actions(session, batch)
            stored = select(func.count()).where(BatchResult.batch_id == batch.id)
            assert (2 if completes_first else 0) == session.scalar(stored)


def test_retries_at_once_begin_once(database: Database) -> None:
    """One of four succeeds; the others get a conflict."""
    with database.transaction() as session:
        batch = make_batch(session, ["a", "b"], chunk_texts=1)
        for _ in range(2):
            chunks.fail(session, claim(session), "odd")
    start = threading.Barrier(4)

    def race(_: int) -> bool:
        start.wait()
        try:
            with database.transaction() as session:
                lifecycle.retry(session, batch.user_id, batch.id, texts=2, max_inline=0)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert [False, False, False, True] == sorted(pool.map(race, range(4)))
    with database.transaction() as session:
        waiting = select(func.count()).where(BatchChunk.state == "pending")
        assert 2 == session.scalar(waiting)
