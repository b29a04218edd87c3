"""A worker's time slice: claimed chunks, a failing model, a failing database."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select, text

from support.batches import claim, make_batch, score
from support.rows import query
from support.waiting import until
from valence.local.ports import free_port
from valence_batch_worker.batches import chunks
from valence_batch_worker.batches import worker as batch_worker
from valence_batch_worker.batches.worker import Worker
from valence_batch_worker.settings import Settings
from valence_common.db import Database
from valence_common.models import Batch, BatchChunk, BatchResult
from valence_common.problems import Unavailable
from valence_ml import Score


class ScriptedScorer:
    """Scores every text as positive; raises for the text `raise`, or `error` if it is set."""

    name, version = "scripted", "1"

    def __init__(self) -> None:
        self.seen: list[list[str]] = []
        self.error: BaseException | None = None

    def score(self, texts: Sequence[str]) -> list[Score]:
        self.seen.append(list(texts))
        if "raise" in texts:
            raise ValueError("the text itself: raise")
        if self.error is not None:
            raise self.error
        return score(texts)


@pytest.fixture
def worker(database: Database, own_database_url: str) -> Worker:
    settings = Settings(
        database_url=SecretStr(own_database_url), redis_url=SecretStr("redis://127.0.0.1:1/0")
    )
    return Worker(settings, database, ScriptedScorer())


def test_time_slice_ends_when_no_chunk_is_left(worker: Worker) -> None:
    """One message is enough for a whole batch."""
    with worker.database.transaction() as session:
        batch = make_batch(session, ["a", "b", "c"], chunk_texts=1)
    assert worker.run_time_slice() is False
    with worker.database.transaction() as session:
        assert "completed" == session.get_one(Batch, batch.id).status
        models = session.scalars(select(BatchChunk.model))
        assert {"scripted@1"} == set(models)


def test_time_slice_that_is_over_asks_for_another(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long queue is processed in time slices, so a shutdown waits for one chunk at most."""
    monkeypatch.setattr(batch_worker, "TIME_SLICE_SECONDS", 0.0)
    assert worker.run_time_slice() is True


def test_text_that_makes_the_model_raise_delays_only_its_chunk(
    worker: Worker, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its chunk is requeued and the attempt counts; other chunks complete; no text is logged."""
    with worker.database.transaction() as session:
        make_batch(session, ["raise", "b", "c"], chunk_texts=1)
    assert worker.run_time_slice() is False
    assert [["raise"], ["b"], ["c"]] == worker.scorer.seen
    with worker.database.transaction() as session:
        chunks = session.execute(
            select(BatchChunk.state, BatchChunk.attempt).order_by(BatchChunk.start)
        )
        assert [("pending", 1), ("done", 1), ("done", 1)] == [tuple(chunk) for chunk in chunks]
        assert 2 == session.scalar(select(func.count()).select_from(BatchResult))
    assert "the text itself" not in "".join(capsys.readouterr())


def states(database: Database) -> list[tuple[str, int]]:
    with database.transaction() as session:
        rows = session.execute(
            select(BatchChunk.state, BatchChunk.attempt).order_by(BatchChunk.start)
        )
        return [(state, attempt) for state, attempt in rows]


def test_attempt_that_postgres_could_not_store_does_not_count(
    worker: Worker, own_database_url: str
) -> None:
    """However often a full disk or a lock prevents storing, no text counts as poisonous."""
    impatient = Database(SecretStr(own_database_url), pool_size=1, timeout=0.3)
    with worker.database.transaction() as session:
        make_batch(session, ["a", "b"], chunk_texts=1)
    for _ in range(worker.settings.max_attempts + 1):
        with worker.database.transaction() as other:
            other.execute(text("LOCK TABLE batch_results"))
            assert replace(worker, database=impatient).run_time_slice() is False
        assert [("pending", 0), ("pending", 0)] == states(worker.database)
    assert worker.run_time_slice() is False
    assert [("done", 1), ("done", 1)] == states(worker.database)
    impatient.close()


def test_terminated_process_requeues_its_chunk(worker: Worker) -> None:
    """Celery raises SystemExit at any point of the code; the attempt does not count."""
    with worker.database.transaction() as session:
        make_batch(session, ["a"])
    worker.scorer.error = SystemExit()
    with pytest.raises(SystemExit):
        worker.run_time_slice()
    assert [("pending", 0)] == states(worker.database)


def test_attempt_longer_than_its_lease_counts(worker: Worker) -> None:
    """Celery ends a task that takes too long in the same way; then the texts are the cause."""
    with worker.database.transaction() as session:
        make_batch(session, ["a"])
    worker.scorer.error = SystemExit()
    late = replace(worker, settings=worker.settings.model_copy(update={"lease_seconds": 1e-6}))
    with pytest.raises(SystemExit):
        late.run_time_slice()
    assert [("running", 1)] == states(worker.database)


def test_chunk_with_an_unconfirmed_commit_is_not_requeued(
    worker: Worker, own_database_url: str
) -> None:
    """Requeueing waits for the transaction that may still store the results."""
    waiting = (
        "SELECT 1 FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    with worker.database.transaction() as session:
        make_batch(session, ["a"])
    with worker.database.transaction() as session:
        claimed = claim(session)
    with ThreadPoolExecutor(1) as pool:
        with worker.database.transaction() as session:
            chunks.complete(session, claimed, score(claimed.texts), "m")
            requeueing = pool.submit(worker._requeue, claimed)
            until(lambda: query(own_database_url, waiting), timeout=5)
        requeueing.result(10)
    assert [("done", 1)] == states(worker.database)


def test_time_slice_without_a_database_ends_quietly() -> None:
    """The task ends without an error, since the sweeper rings again later."""
    url = SecretStr(f"postgresql+psycopg2://valence:no@127.0.0.1:{free_port()}/valence")
    settings = Settings(database_url=url, redis_url=SecretStr("redis://127.0.0.1:1/0"))
    worker = Worker(settings, Database(url, pool_size=1, timeout=2), ScriptedScorer())
    assert worker.run_time_slice() is False
    with pytest.raises(Unavailable):
        worker.work_once()
