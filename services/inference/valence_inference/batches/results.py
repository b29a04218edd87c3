"""Results: what came of each text of a batch, in their order, beside what else stood in its row."""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from valence_common.models import BatchResult

Cells = list[str] | dict[str, Any] | None
"""What else stood in a text's row: the other cells in their order, or an object's other fields."""

# A bisected batch has chunks of any size, so a text is looked for in the last chunk that begins at
# or before it. Of what comes after the first one, as much as fits in `:octets`.
_CHUNKS = text("""
SELECT start, size, model, texts, CASE WHEN :cells THEN rows END AS rows FROM (
    SELECT start, size, model, texts, rows, coalesce(sum(
        octet_length(CAST(texts AS text))
        + coalesce(CASE WHEN :cells THEN octet_length(CAST(rows AS text)) END, 0)
    ) OVER (ORDER BY start ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
    FROM batch_chunks WHERE batch_id = :id AND start <= :last AND start >= coalesce((
        SELECT max(start) FROM batch_chunks WHERE batch_id = :id AND start <= :first
    ), 0)
) AS near WHERE before < :octets ORDER BY start
""")

MAX_PAGE_BYTES = 1024 * 1024
"""Rows that are read at once end with the chunk that goes over this size of texts."""


@dataclass(frozen=True, slots=True)
class ResultRow:
    """The answer for one text; without `sentiment`, `error` says why."""

    index: int
    text: str | None
    sentiment: str | None
    confidence: float | None
    low_confidence: bool | None
    model: str | None
    error: str | None
    cells: Cells


class ResultPage(NamedTuple):
    """Rows in their order, and the place where the next ones begin; None after the last."""

    rows: list[ResultRow]
    next_start: int | None


def read_page(
    session: Session,
    batch_id: uuid.UUID,
    *,
    start: int = 0,
    limit: int,
    cells: bool = True,
) -> ResultPage:
    """Up to `most` rows of a batch that was found, from place `start` on.

    Fewer where they are heavy (`PAGE_OCTETS`). Without `cells` nothing is read of them but their
    texts: of the rest there may be far more.
    """
    query = (
        select(
            BatchResult.position,
            BatchResult.sentiment,
            BatchResult.confidence,
            BatchResult.low_confidence,
            BatchResult.error,
        )
        .where(BatchResult.batch_id == batch_id, BatchResult.position >= start)
        .order_by(BatchResult.position)
        .limit(limit + 1)
    )
    found = session.execute(query).all()
    if not found:
        return ResultPage([], None)
    answers = found[:limit]
    reach = {"first": answers[0].position, "last": answers[-1].position}
    values = {"id": batch_id, "octets": MAX_PAGE_BYTES, "cells": cells, **reach}
    chunks = session.execute(_CHUNKS, values)
    rows = list(_joined(answers, chunks.all()))
    return ResultPage(rows, found[len(rows)].position if len(rows) < len(found) else None)


def _joined(answers: Sequence[Any], chunks: Sequence[Any]) -> Iterator[ResultRow]:
    """The answers up to the last chunk's end, each with its text."""
    following = iter(chunks)
    chunk = next(following)
    for position, sentiment, confidence, low, error in answers:
        while position >= chunk.start + chunk.size:
            try:
                chunk = next(following)
            except StopIteration:
                return
        place = position - chunk.start
        # Where texts are not stored, a chunk that is done has neither.
        said = chunk.texts[place] if chunk.texts else None
        cells = chunk.rows[place] if chunk.rows else None
        yield ResultRow(position, said, sentiment, confidence, low, chunk.model, error, cells)
