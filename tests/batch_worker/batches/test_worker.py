"""A worker's turn: what it does with what it finds, and with a model that fails."""

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
    """Says 'positive' to all, and raises for a text that says 'raise', or what it is told to."""

    name, version = "scripted", "1"

    def __init__(self) -> None:
        self.seen: list[list[str]] = []
        self.ends: BaseException | None = None

    def score(self, texts: Sequence[str]) -> list[Score]:
        self.seen.append(list(texts))
        if "raise" in texts:
            raise ValueError("the text itself: raise")
        if self.ends is not None:
            raise self.ends
        return score(texts)


@pytest.fixture
def worker(database: Database, own_database_url: str) -> Worker:
    settings = Settings(
        database_url=SecretStr(own_database_url), redis_url=SecretStr("redis://127.0.0.1:1/0")
    )
    return Worker(settings, database, ScriptedScorer())


def test_turn_works_until_nothing_is_left(worker: Worker) -> None:
    """One ring is enough for a whole batch."""
    with worker.database.transaction() as session:
        batch = make_batch(session, ["a", "b", "c"], chunk_texts=1)
    assert worker.run_time_slice() is False
    with worker.database.transaction() as session:
        assert "completed" == session.get_one(Batch, batch.id).status
        models = session.scalars(select(BatchChunk.model))
        assert {"scripted@1"} == set(models)


def test_turn_that_is_over_asks_for_another(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long queue is worked on turn by turn, so that a shutdown waits for one chunk at most."""
    monkeypatch.setattr(batch_worker, "TIME_SLICE_SECONDS", 0.0)
    assert worker.run_time_slice() is True


def test_text_that_makes_the_model_raise_delays_only_its_chunk(
    worker: Worker, capsys: pytest.CaptureFixture[str]
) -> None:
    """The chunk goes back, its attempt counted; the others are done; the text is not logged."""
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


def test_what_postgres_could_not_store_is_untried(worker: Worker, own_database_url: str) -> None:
    """However often a full disk or a lock refuses the results, no text is the poisonous one."""
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


def test_process_that_is_ended_gives_its_chunk_back(worker: Worker) -> None:
    """Celery ends it by an exception, wherever it is."""
    with worker.database.transaction() as session:
        make_batch(session, ["a"])
    worker.scorer.ends = SystemExit()
    with pytest.raises(SystemExit):
        worker.run_time_slice()
    assert [("pending", 0)] == states(worker.database)


def test_process_that_hung_for_a_lease_has_used_up_its_attempt(worker: Worker) -> None:
    """Celery ends what takes too long in the same way, and that is the texts' fault."""
    with worker.database.transaction() as session:
        make_batch(session, ["a"])
    worker.scorer.ends = SystemExit()
    late = replace(worker, settings=worker.settings.model_copy(update={"lease_seconds": 1e-6}))
    with pytest.raises(SystemExit):
        late.run_time_slice()
    assert [("running", 1)] == states(worker.database)


def test_results_whose_commit_nobody_heard_of_are_not_given_back(
    worker: Worker, own_database_url: str
) -> None:
    """Who gives back waits for the transaction that may still store them."""
    waits = (
        "SELECT 1 FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    with worker.database.transaction() as session:
        make_batch(session, ["a"])
    with worker.database.transaction() as session:
        mine = claim(session)
    with ThreadPoolExecutor(1) as pool:
        with worker.database.transaction() as session:
            chunks.complete(session, mine, score(mine.texts), "m")
            giving = pool.submit(worker._requeue, mine)
            until(lambda: query(own_database_url, waits), timeout=5)
        giving.result(10)
    assert [("done", 1)] == states(worker.database)


def test_turn_without_a_database_ends_quietly() -> None:
    """The sweeper will ring: a task has nothing better to do than to end."""
    url = SecretStr(f"postgresql+psycopg2://valence:no@127.0.0.1:{free_port()}/valence")
    settings = Settings(database_url=url, redis_url=SecretStr("redis://127.0.0.1:1/0"))
    worker = Worker(settings, Database(url, pool_size=1, timeout=2), ScriptedScorer())
    assert worker.run_time_slice() is False
    with pytest.raises(Unavailable):
        worker.work_once()
