"""Summaries of batches: counts, a histogram of confidence, and the most influential terms."""

import asyncio
import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import text
from sqlalchemy.orm import Session

from valence_common.concurrency import ConcurrencyLimit, TimedSemaphore
from valence_common.db import Database
from valence_inference.batches import status as batch_status
from valence_ml import Scorer, model_name

BINS: Final = 10
MAX_SAMPLE_TEXTS: Final = 1_000
MAX_SAMPLE_CHARACTERS: Final = 1_000_000  # explaining them takes a second or two
MAX_TERMS: Final = 20
MAX_WAITING: Final = 100
RETRY_SECONDS: Final = 2

Reason = Literal["nothing_scored", "another_model", "texts_not_stored", "model_cannot_explain"]
"""Why a summary has no terms."""

_ANSWERS = text("""
SELECT sentiment, width_bucket(confidence, 0.5, 1, :bins) AS bin, count(*) AS texts,
    sum(confidence) AS confidence, count(*) FILTER (WHERE low_confidence) AS low
FROM batch_results WHERE batch_id = :id AND sentiment IS NOT NULL GROUP BY sentiment, bin
""")

_MODELS = text("""
SELECT DISTINCT model FROM batch_chunks
WHERE batch_id = :id AND state = 'done' AND model IS NOT NULL ORDER BY model
""")

# `:sample` of the `:total` texts, evenly spaced.
_SAMPLE = text("""
SELECT element.value FROM batch_chunks AS chunk,
    json_array_elements_text(chunk.texts) WITH ORDINALITY AS element (value, n),
    LATERAL (SELECT chunk.start + element.n - 1 AS index) AS here
WHERE chunk.batch_id = :id AND chunk.state = 'done' AND chunk.model = :model
    AND (index + 1) * :sample / :total > index * :sample / :total
""")


@dataclass(frozen=True)
class Bin:
    """A bin of the histogram, `lower` included; only the last bin includes its `upper`."""

    lower: float
    upper: float
    count: int


class Term(NamedTuple):
    """A term, the sum of its contributions to the logit of `positive`, and its number of texts."""

    term: str
    contribution: float
    texts: int


class Terms(NamedTuple):
    """The most influential terms for each sentiment, in `sampled` texts."""

    sampled: int
    positive: list[Term]
    negative: list[Term]


@dataclass(frozen=True)
class Summary:
    """A snapshot of a batch, or of its finished part; `mean_confidence` is None without answers."""

    status: batch_status.Status
    labels: dict[str, int]
    low_confidence: int
    mean_confidence: float | None
    histogram: list[Bin]
    models: list[str]
    terms: Terms | Reason


class Summaries:
    """Summarizes batches, one at a time in a process, because each summary reads a whole batch.

    A user can have one summary running or waiting, so that no user holds up the others.
    """

    def __init__(self, database: Database):
        self._database = database
        self._users = ConcurrencyLimit(max_total=MAX_WAITING, retry_after=RETRY_SECONDS)
        self._semaphore = TimedSemaphore("summary", timeout=database.timeout)

    async def summarize(self, scorer: Scorer, user_id: uuid.UUID, task_id: uuid.UUID) -> Summary:
        """Summarize a user's batch.

        Raises `TaskNotFound`, `TooManyRequests` while another summary of the user is running or
        waiting, or `Unavailable` if no slot becomes free in time.
        """
        with self._users.slot(user_id):
            async with self._semaphore.slot():
                fields, texts = await self._database.run(
                    _read, user_id, task_id, model_name(scorer)
                )
                terms = await asyncio.to_thread(_explain, scorer, texts, fields["models"])
        return Summary(**fields, terms=terms)


def _read(
    session: Session, user_id: uuid.UUID, task_id: uuid.UUID, model: str
) -> tuple[dict[str, Any], list[str]]:
    """Return the fields of the summary but the terms, and a sample of texts scored by `model`.

    All of it is read in the snapshot that `get_status` opens.
    """
    status = batch_status.get_status(session, user_id, task_id, max_inline=0)
    labels, low, total = {"positive": 0, "negative": 0}, 0, 0.0
    bins = [0] * BINS
    for row in session.execute(_ANSWERS, {"id": task_id, "bins": BINS}):
        labels[row.sentiment] += row.texts
        low, total = low + row.low, total + row.confidence
        # `width_bucket` puts a confidence of exactly 1 past the last bin; it belongs to the last.
        bins[min(max(row.bin, 1), BINS) - 1] += row.texts
    answers = sum(labels.values())
    fields = {
        "status": status,
        "labels": labels,
        "low_confidence": low,
        "mean_confidence": total / answers if answers else None,
        "histogram": [Bin(_bound(n), _bound(n + 1), count) for n, count in enumerate(bins)],
        "models": session.scalars(_MODELS, {"id": task_id}).all(),
    }
    sample = {"sample": min(MAX_SAMPLE_TEXTS, status.batch.total), "total": status.batch.total}
    texts = session.scalars(_SAMPLE, {"id": task_id, "model": model, **sample}).all()
    return fields, list(texts)


def _bound(n: int) -> float:
    return round(0.5 + n * 0.5 / BINS, 2)


def _explain(scorer: Scorer, texts: Sequence[str], models: Sequence[str]) -> Terms | Reason:
    if not models:
        return "nothing_scored"
    if model_name(scorer) not in models:
        return "another_model"
    if not texts:
        return "texts_not_stored"
    characters = sum(map(len, texts))
    sample = texts[:: characters // MAX_SAMPLE_CHARACTERS + 1]
    contributions: defaultdict[str, float] = defaultdict(float)
    counts: defaultdict[str, int] = defaultdict(int)
    for value in sample:
        explanation = scorer.explain(value)
        if explanation is None:
            return "model_cannot_explain"
        for part in explanation.contributions:
            contributions[part.term] += part.value
            counts[part.term] += 1
    order = sorted(contributions, key=lambda term: (-abs(contributions[term]), term))
    positive, negative = (
        [Term(t, contributions[t], counts[t]) for t in order if contributions[t] * sign > 0]
        for sign in (1, -1)
    )
    return Terms(len(sample), positive[:MAX_TERMS], negative[:MAX_TERMS])
