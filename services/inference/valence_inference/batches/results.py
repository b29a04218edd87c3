"""The results of a batch in the order of its texts, with what else each text's row held."""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from valence_common.models import BatchResult

Cells = list[str] | dict[str, Any] | None
"""What else a text's row held: the other cells in order, or the other fields of an object."""

# Bisected batches have chunks of any size, so a text is in the last chunk that starts at or before
# its index. After the first chunk, as many as fit into `:octets`.
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
"""A page ends with the chunk whose texts (and cells) exceed this size."""


@dataclass(frozen=True, slots=True)
class ResultRow:
    """The result for one text; `error` says why there is no `sentiment`."""

    index: int
    text: str | None
    sentiment: str | None
    confidence: float | None
    low_confidence: bool | None
    model: str | None
    error: str | None
    cells: Cells


class ResultPage(NamedTuple):
    """Rows in order, and the index at which the next page starts; None after the last row."""

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
    """Return up to `limit` rows of an existing batch, from index `start` on.

    Returns fewer if the rows are heavy (`MAX_PAGE_BYTES`). Without `cells` only the texts of the
    rows are read; the rest can be many times larger.
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
    answers = session.execute(query).all()
    if not answers:
        return ResultPage([], None)
    page = answers[:limit]
    bounds = {"first": page[0].position, "last": page[-1].position}
    values = {"id": batch_id, "octets": MAX_PAGE_BYTES, "cells": cells, **bounds}
    chunks = session.execute(_CHUNKS, values)
    rows = list(_join(page, chunks.all()))
    next_start = answers[len(rows)].position if len(rows) < len(answers) else None
    return ResultPage(rows, next_start)


def _join(answers: Sequence[Any], chunks: Sequence[Any]) -> Iterator[ResultRow]:
    """Yield each answer with its text, up to the end of the last chunk."""
    remaining = iter(chunks)
    chunk = next(remaining)
    for position, sentiment, confidence, low, error in answers:
        while position >= chunk.start + chunk.size:
            try:
                chunk = next(remaining)
            except StopIteration:
                return
        offset = position - chunk.start
        # Where texts are not stored, a finished chunk has neither texts nor rows.
        value = chunk.texts[offset] if chunk.texts else None
        cells = chunk.rows[offset] if chunk.rows else None
        yield ResultRow(position, value, sentiment, confidence, low, chunk.model, error, cells)
