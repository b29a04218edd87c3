"""Summaries: a batch's answers in a few numbers, and the terms that decided most of them."""

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
MAX_SAMPLE_CHARACTERS: Final = 1_000_000  # explained in a second or two
MAX_TERMS: Final = 20
MAX_WAITING: Final = 100
RETRY_SECONDS: Final = 2

Reason = Literal["nothing_scored", "another_model", "texts_not_stored", "model_cannot_explain"]
"""Why there are no terms."""

_ANSWERS = text("""
SELECT sentiment, width_bucket(confidence, 0.5, 1, :bins) AS bin, count(*) AS texts,
    sum(confidence) AS confidence, count(*) FILTER (WHERE low_confidence) AS low
FROM batch_results WHERE batch_id = :id AND sentiment IS NOT NULL GROUP BY sentiment, bin
""")

_MODELS = text("""
SELECT DISTINCT model FROM batch_chunks
WHERE batch_id = :id AND state = 'done' AND model IS NOT NULL ORDER BY model
""")

# Of `:total` places `:sample`, as far from each other as may be.
_SAMPLE = text("""
SELECT element.said FROM batch_chunks AS chunk,
    json_array_elements_text(chunk.texts) WITH ORDINALITY AS element (said, n),
    LATERAL (SELECT chunk.start + element.n - 1 AS place) AS here
WHERE chunk.batch_id = :id AND chunk.state = 'done' AND chunk.model = :model
    AND (place + 1) * :sample / :total > place * :sample / :total
""")


@dataclass(frozen=True)
class Bin:
    """How many answers are as sure as this; `to` belongs to the next one, but to the last."""

    lower: float
    upper: float
    count: int


class Term(NamedTuple):
    """What a term added to the logits of the texts that it stands in."""

    term: str
    contribution: float
    texts: int


class Terms(NamedTuple):
    """The terms that spoke most for each side, in `sampled` texts."""

    sampled: int
    positive: list[Term]
    negative: list[Term]


@dataclass(frozen=True)
class Summary:
    """A batch, or what is done of it, as of one moment; confidences are None without answers."""

    status: batch_status.Status
    labels: dict[str, int]
    low_confidence: int
    mean_confidence: float | None
    histogram: list[Bin]
    models: list[str]
    terms: Terms | Reason


class Summaries:
    """Sums batches up, one at a time in a process: each reads all of a batch.

    Of one user one waits: no more of them keep the others from their turn.
    """

    def __init__(self, database: Database):
        self._database = database
        self._users = ConcurrencyLimit(max_total=MAX_WAITING, retry_after=RETRY_SECONDS)
        self._line = TimedSemaphore("summary", timeout=database.timeout)

    async def summarize(self, scorer: Scorer, user_id: uuid.UUID, task_id: uuid.UUID) -> Summary:
        """Sum a user's batch up; raises `TaskNotFound`, `TooManyRequests` while one of theirs is
        under way, or `Unavailable` when no turn comes.
        """
        with self._users.slot(user_id):
            async with self._line.slot():
                found, texts = await self._database.run(_read, user_id, task_id, model_name(scorer))
                terms = await asyncio.to_thread(_explain, scorer, texts, found["models"])
        return Summary(**found, terms=terms)


def _read(
    session: Session, user_id: uuid.UUID, task_id: uuid.UUID, model: str
) -> tuple[dict[str, Any], list[str]]:
    """All but the terms, and the texts to find these in: those that this model has scored.

    All in the snapshot that `status` takes.
    """
    status = batch_status.get_status(session, user_id, task_id, max_inline=0)
    labels, low, total = {"positive": 0, "negative": 0}, 0, 0.0
    bins = [0] * BINS
    for row in session.execute(_ANSWERS, {"id": task_id, "bins": BINS}):
        labels[row.sentiment] += row.texts
        low, total = low + row.low, total + row.confidence
        # A confidence of exactly 1 is beyond the last bin's end, and the last bin's.
        bins[min(max(row.bin, 1), BINS) - 1] += row.texts
    answers = sum(labels.values())
    found = {
        "status": status,
        "labels": labels,
        "low_confidence": low,
        "mean_confidence": total / answers if answers else None,
        "histogram": [Bin(_bound(n), _bound(n + 1), count) for n, count in enumerate(bins)],
        "models": session.scalars(_MODELS, {"id": task_id}).all(),
    }
    places = {"sample": min(MAX_SAMPLE_TEXTS, status.batch.total), "total": status.batch.total}
    texts = session.scalars(_SAMPLE, {"id": task_id, "model": model, **places}).all()
    return found, list(texts)


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
    some = texts[:: characters // MAX_SAMPLE_CHARACTERS + 1]
    added: defaultdict[str, float] = defaultdict(float)
    seen: defaultdict[str, int] = defaultdict(int)
    for said in some:
        explanation = scorer.explain(said)
        if explanation is None:
            return "model_cannot_explain"
        for part in explanation.contributions:
            added[part.term] += part.value
            seen[part.term] += 1
    order = sorted(added, key=lambda term: (-abs(added[term]), term))
    for_each = (
        [Term(t, added[t], seen[t]) for t in order if added[t] * sign > 0][:MAX_TERMS]
        for sign in (1, -1)
    )
    return Terms(len(some), *for_each)
