"""Summaries, compared with numbers computed by hand."""

import asyncio
import uuid

import pytest
from sqlalchemy import insert, text
from sqlalchemy.orm import Session

from support.batches import claim, make_batch, make_user, score
from support.files import store
from valence_batch_worker.batches import chunks
from valence_common.db import Database
from valence_common.models import BatchResult
from valence_inference.batches import summary
from valence_inference.batches.status import TaskNotFound
from valence_inference.batches.summary import Summaries, Summary, Term
from valence_ml import DEFAULT_MODEL, Scorer, load, model_name
from valence_ml.scorer import Contribution, Explanation


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return load(DEFAULT_MODEL)


class Words:
    """A scorer: each word adds its length to the logit; a capitalized one subtracts it."""

    name, version = "words", "1"

    def explain(self, said: str) -> Explanation:
        words = dict.fromkeys(said.split())
        parts = [Contribution(w, 1, len(w) * (-1.0 if w.isupper() else 1.0)) for w in words]
        return Explanation(0.0, 0.0, parts)


class Silent(Words):
    """A scorer that cannot explain."""

    def explain(self, said: str) -> None:
        return None


def sum_up(database: Database, scorer: Scorer, user: uuid.UUID, task: uuid.UUID) -> Summary:
    return asyncio.run(Summaries(database).summarize(scorer, user, task))


def answer(session: Session, task: uuid.UUID, *confidences: tuple[float, str]) -> None:
    """Replace the results of the batch."""
    session.execute(text("DELETE FROM batch_results WHERE batch_id = :id"), {"id": task})
    rows = [
        {
            "batch_id": task,
            "position": n,
            "sentiment": s,
            "confidence": c,
            "low_confidence": c < 0.6,
        }
        for n, (c, s) in enumerate(confidences)
    ]
    session.execute(insert(BatchResult), rows)


def test_numbers_are_those_of_the_rows(database: Database) -> None:
    """Labels, failures, mean, low confidence, and bins without their upper bound, but the last."""
    with database.transaction() as session:
        user = make_user(session)
        task = store(session, user, list("abcdefg"), failed={6}, sizes=[6, 1], model="words@1")
        answer(
            session,
            task,
            (0.5, "positive"),
            (0.54, "negative"),
            (0.75, "positive"),
            (0.76, "positive"),
            (0.95, "negative"),
            (1.0, "positive"),
        )
    found = sum_up(database, Words(), user, task)
    assert {"positive": 4, "negative": 2} == found.labels
    assert (7, 1, 2) == (found.status.done, found.status.failed, found.low_confidence)
    assert pytest.approx(4.5 / 6) == found.mean_confidence
    assert [2, 0, 0, 0, 0, 2, 0, 0, 0, 2] == [each.count for each in found.histogram]
    bounds = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0]
    assert bounds[:-1] == [each.lower for each in found.histogram]
    assert bounds[1:] == [each.upper for each in found.histogram]
    assert ["words@1"] == found.models


def test_terms_are_those_that_added_most(database: Database) -> None:
    """Contributions are summed over the texts; each sentiment by itself, ties by name."""
    texts = ["sun SHADE", "sun tea", "tea SHADE NIGHT", "oak"]
    with database.transaction() as session:
        user = make_user(session)
        task = store(session, user, texts, sizes=[1, 2], model="words@1")
    terms = sum_up(database, Words(), user, task).terms
    assert 4 == terms.sampled
    assert [Term("sun", 6, 2), Term("tea", 6, 2), Term("oak", 3, 1)] == terms.positive
    assert [Term("SHADE", -10, 2), Term("NIGHT", -5, 1)] == terms.negative


def test_there_are_twenty_terms_a_side(database: Database) -> None:
    """The strongest terms are kept."""
    with database.transaction() as session:
        user = make_user(session)
        text = " ".join("x" * n for n in range(1, 31))
        task = store(session, user, [text], model="words@1")
    terms = sum_up(database, Words(), user, task).terms
    assert [float(n) for n in range(30, 10, -1)] == [t.contribution for t in terms.positive]


def test_terms_of_the_default_model_are_its_explanations(
    database: Database, scorer: Scorer
) -> None:
    """The terms are the sums of the model's explanations."""
    texts = ["I love this product", "I love it, what a lovely thing", "awful, I hate it"]
    with database.transaction() as session:
        user = make_user(session)
        task = store(session, user, texts, model=model_name(scorer))
    terms = sum_up(database, scorer, user, task).terms
    parts = [c for said in texts for c in scorer.explain(said).contributions if c.term == "love"]
    [love] = [term for term in terms.positive if term.term == "love"]
    assert (2, pytest.approx(sum(c.value for c in parts))) == (love.texts, love.contribution)
    assert "hate" in {term.term for term in terms.negative}


@pytest.mark.parametrize(("total", "sampled"), [(999, 999), (1_000, 1_000), (2_500, 1_000)])
def test_sample_is_spread_evenly(database: Database, total: int, sampled: int) -> None:
    """Each part of the batch has as many samples, whatever the sizes of the chunks."""
    with database.transaction() as session:
        user = make_user(session)
        said = [f"part{n * 5 // total}" for n in range(total)]
        task = store(session, user, said, sizes=[1, 333, 2], model="words@1")
    terms = sum_up(database, Words(), user, task).terms
    assert sampled == terms.sampled
    texts = [term.texts for term in terms.positive]
    assert max(texts) - min(texts) <= 1


def test_long_texts_are_sampled_less(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the time of a summary is limited."""
    monkeypatch.setattr(summary, "MAX_SAMPLE_CHARACTERS", 100)
    with database.transaction() as session:
        user = make_user(session)
        task = store(session, user, ["x" * 10] * 40, model="words@1")
    assert 8 == sum_up(database, Words(), user, task).terms.sampled


def test_without_terms_there_is_a_reason(database: Database) -> None:
    """Another model, a model that cannot explain, texts that are not stored, nothing scored."""
    with database.transaction() as session:
        user = make_user(session)
        other = store(session, user, ["a"], model="words@0")
        known = store(session, user, ["a"], model="words@1")
        forgotten = store(session, user, ["a"], model="words@1", stored=False)
        failed = store(session, user, ["a"], failed={0}, status="failed")
    for scorer, task, reason in (
        (Words(), other, "another_model"),
        (Silent(), known, "model_cannot_explain"),
        (Words(), forgotten, "texts_not_stored"),
        (Words(), failed, "nothing_scored"),
    ):
        found = sum_up(database, scorer, user, task)
        assert reason == found.terms
    assert (None, {"positive": 0, "negative": 0}) == (found.mean_confidence, found.labels)


def test_of_what_runs_it_tells_what_is_done(database: Database) -> None:
    """Exactly its finished part; batches of other users are not found."""
    with database.transaction() as session:
        batch = make_batch(session, ["sun", "tea", "oak"])
        mine = claim(session)
        chunks.complete(session, mine, score(mine.texts), "words@1")
    found = sum_up(database, Words(), batch.user_id, batch.id)
    assert ("processing", 2) == (found.status.batch.status, found.status.done)
    assert {"positive": 2, "negative": 0} == found.labels
    assert [("sun", 1), ("tea", 1)] == [(t.term, t.texts) for t in found.terms.positive]
    with pytest.raises(TaskNotFound):
        sum_up(database, Words(), uuid.uuid4(), batch.id)
