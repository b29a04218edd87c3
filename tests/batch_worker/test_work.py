"""A worker's turn: what it does with what it finds, and with a model that fails."""

from collections.abc import Sequence

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select

from support.batches import make_batch, score
from valence.local.ports import free_port
from valence_batch_worker import work
from valence_batch_worker.settings import Settings
from valence_batch_worker.work import Worker
from valence_common.db import Database
from valence_common.models import Batch, BatchChunk, BatchResult
from valence_common.problems import Unavailable
from valence_ml import Score


class ScriptedScorer:
    """Says 'positive' to all, and raises for a text that says 'raise'."""

    name, version = "scripted", "1"

    def __init__(self) -> None:
        self.seen: list[list[str]] = []

    def score(self, texts: Sequence[str]) -> list[Score]:
        self.seen.append(list(texts))
        if "raise" in texts:
            raise ValueError("the text itself: raise")
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
    assert worker.take_turn() is False
    with worker.database.transaction() as session:
        assert "completed" == session.get_one(Batch, batch.id).status
        models = session.scalars(select(BatchChunk.model))
        assert {"scripted@1"} == set(models)


def test_turn_that_is_over_asks_for_another(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long queue is worked on turn by turn, so that a shutdown waits for one chunk at most."""
    monkeypatch.setattr(work, "TURN_SECONDS", 0.0)
    assert worker.take_turn() is True


def test_text_that_makes_the_model_raise_delays_only_its_chunk(
    worker: Worker, capsys: pytest.CaptureFixture[str]
) -> None:
    """The chunk goes back, its attempt counted; the others are done; the text is not logged."""
    with worker.database.transaction() as session:
        make_batch(session, ["raise", "b", "c"], chunk_texts=1)
    assert worker.take_turn() is False
    assert [["raise"], ["b"], ["c"]] == worker.scorer.seen
    with worker.database.transaction() as session:
        chunks = session.execute(
            select(BatchChunk.state, BatchChunk.attempt).order_by(BatchChunk.start)
        )
        assert [("pending", 1), ("done", 1), ("done", 1)] == [tuple(chunk) for chunk in chunks]
        assert 2 == session.scalar(select(func.count()).select_from(BatchResult))
    assert "the text itself" not in "".join(capsys.readouterr())


def test_turn_without_a_database_ends_quietly() -> None:
    """The sweeper will ring: a task has nothing better to do than to end."""
    url = SecretStr(f"postgresql+psycopg2://valence:no@127.0.0.1:{free_port()}/valence")
    settings = Settings(database_url=url, redis_url=SecretStr("redis://127.0.0.1:1/0"))
    worker = Worker(settings, Database(url, pool_size=1, timeout=2), ScriptedScorer())
    assert worker.take_turn() is False
    with pytest.raises(Unavailable):
        worker.work_once()
