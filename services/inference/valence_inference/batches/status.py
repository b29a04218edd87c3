"""Batches as their owner sees them: how far they are, and what came of their rows."""

import math
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, select, text
from sqlalchemy.orm import Session

from valence_common.models import TERMINAL, Batch
from valence_common.problems import NotFound
from valence_common.web import pagination
from valence_inference.batches import results
from valence_inference.batches.results import ResultRow
from valence_inference.reading import force_index_scans, repeatable_read

RATE_SECONDS = 60
"""The time over which a running batch's rate is taken: long against a chunk, short for people."""

# What a batch has done since it began, or was begun again by a retry; of one that runs, lately.
_PROGRESS = text("""
SELECT batch.id,
    coalesce(sum(chunk.size) FILTER (WHERE chunk.state = 'done'), 0) AS done,
    coalesce(sum(chunk.failed) FILTER (WHERE chunk.state = 'done'), 0) AS failed,
    coalesce(sum(chunk.size) FILTER (WHERE chunk.done_at >= batch.started_at), 0) AS of_this_run,
    coalesce(sum(chunk.size) FILTER (WHERE chunk.done_at >= since), 0) AS lately,
    extract(epoch FROM coalesce(batch.finished_at, now()) - since) AS seconds
FROM (
    SELECT id, started_at, finished_at, CASE WHEN finished_at IS NOT NULL THEN started_at
        ELSE greatest(started_at, now() - :window * interval '1 s') END AS since
    FROM batches WHERE id = ANY(:ids)
) AS batch LEFT JOIN batch_chunks AS chunk ON chunk.batch_id = batch.id
GROUP BY batch.id, since, batch.finished_at
""")


class TaskNotFound(NotFound):
    """No batch of that id belongs to the user, or it was deleted."""

    detail = "Task not found"


class Progress(NamedTuple):
    """How far a batch is, counted from its chunks; `rate` is in texts per second."""

    done: int
    failed: int
    rate: float | None


@dataclass(frozen=True)
class Status:
    """One batch as of one moment; `done` and `failed` are counted from its chunks.

    `rate` is in texts per second and None until it is known.
    """

    batch: Batch
    done: int
    failed: int
    results: list[ResultRow] | None = None
    rate: float | None = None

    @property
    def eta_seconds(self) -> int | None:
        """The time that is left at that rate; None where nobody can tell, or there is none."""
        if self.batch.status in TERMINAL:
            return None
        return eta_seconds(self.batch.total - self.done, self.rate)


def eta_seconds(remaining: int, rate: float | None) -> int | None:
    """The time that so many texts take at that rate; None where nobody can tell."""
    return math.ceil(remaining / rate) if rate else None


class BatchFilter(NamedTuple):
    """Which of a user's batches; times are aware, `since` is included and `until` is not."""

    statuses: Collection[str] = ()
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self, user_id: uuid.UUID) -> list[ColumnElement[bool]]:
        """The filter as SQL."""
        conditions = [Batch.user_id == user_id, Batch.deleted_at.is_(None)]
        if self.statuses:
            conditions.append(Batch.status.in_(self.statuses))
        if self.since is not None:
            conditions.append(Batch.created_at >= self.since)
        if self.until is not None:
            conditions.append(Batch.created_at < self.until)
        return conditions


def find(session: Session, user_id: uuid.UUID, task_id: uuid.UUID, *, lock: bool = False) -> Batch:
    """A user's batch, raising `TaskNotFound`; locked, no chunk of it is completed meanwhile.

    NO KEY: rows that only refer to the batch may be written. What follows in the transaction is
    searched along indexes.
    """
    force_index_scans(session)
    mine = select(Batch).where(
        Batch.id == task_id, Batch.user_id == user_id, Batch.deleted_at.is_(None)
    )
    batch = session.scalars(mine.with_for_update(key_share=True) if lock else mine).one_or_none()
    if batch is None:
        raise TaskNotFound
    return batch


def get_status(
    session: Session, user_id: uuid.UUID, task_id: uuid.UUID, *, max_inline: int
) -> Status:
    """The state of a user's batch, with results if it has ended and is small."""
    repeatable_read(session)
    return compute_status(session, find(session, user_id, task_id), max_inline=max_inline)


def compute_status(session: Session, batch: Batch, *, max_inline: int) -> Status:
    """The state of a batch, of which nobody may write anything before the transaction ends."""
    how_far = read_progress(session, [batch.id])[batch.id]
    small = batch.status in TERMINAL and batch.total <= max_inline
    found = results.read_page(session, batch.id, limit=batch.total, cells=False) if small else None
    # All of them or none: who sees only the first ones may take them for all.
    rows = found.rows if found is not None and found.next_start is None else None
    return Status(batch, how_far.done, how_far.failed, rows, how_far.rate)


def read_page(
    session: Session,
    user_id: uuid.UUID,
    filter_: BatchFilter,
    *,
    limit: int,
    cursor: uuid.UUID | None,
) -> tuple[list[Status], uuid.UUID | None]:
    """Up to `limit` of a user's batches made before `cursor`, newest first, and the next cursor."""
    repeatable_read(session)
    force_index_scans(session)
    shown, following = pagination.newest_first(
        session, Batch, filter_.conditions(user_id), limit=limit, cursor=cursor
    )
    how_far = read_progress(session, [batch.id for batch in shown])
    items = [Status(b, p.done, p.failed, None, p.rate) for b in shown for p in [how_far[b.id]]]
    return items, following


def read_progress(session: Session, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, Progress]:
    """How far these batches are, in the snapshot in which they were found."""
    rows = session.execute(_PROGRESS, {"ids": list(ids), "window": RATE_SECONDS})
    return {
        row.id: Progress(
            row.done,
            row.failed,
            row.lately / float(row.seconds) if row.of_this_run and row.seconds else None,
        )
        for row in rows
    }
