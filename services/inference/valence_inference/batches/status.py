"""The status of batches: progress, rate, remaining time, and the results of small ones."""

import math
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, select, text
from sqlalchemy.orm import Session

from valence_common.models import TERMINAL, Batch
from valence_common.postgres import force_index_scans, repeatable_read
from valence_common.problems import NotFound
from valence_common.web import pagination
from valence_inference.batches import results
from valence_inference.batches.results import ResultRow

RATE_SECONDS = 60
"""The window of a running batch's rate: much longer than a chunk takes, short for a reader."""

# `of_this_run`: texts scored since the batch started, or was last retried. `lately`: those within
# the window, which for a batch that has ended is the whole run.
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
    """The user has no batch with that id, or it was deleted."""

    detail = "Task not found"


class Progress(NamedTuple):
    """The progress of a batch, counted from its chunks; `rate` is in texts per second."""

    done: int
    failed: int
    rate: float | None


@dataclass(frozen=True)
class Status:
    """A snapshot of one batch; `done` and `failed` are counted from its chunks.

    `rate` is in texts per second, and None until it is known. `results` is None unless the batch
    has ended and its results are few and light.
    """

    batch: Batch
    done: int
    failed: int
    results: list[ResultRow] | None = None
    rate: float | None = None

    @property
    def eta_seconds(self) -> int | None:
        """The remaining time at the current rate; None if it is unknown or the batch has ended."""
        if self.batch.status in TERMINAL:
            return None
        return eta_seconds(self.batch.total - self.done, self.rate)


def eta_seconds(remaining: int, rate: float | None) -> int | None:
    """Return the time that this many texts take, in seconds; None if the rate is unknown or 0."""
    return math.ceil(remaining / rate) if rate else None


class BatchFilter(NamedTuple):
    """A filter on a user's batches; times are aware, `since` is inclusive, `until` exclusive."""

    statuses: Collection[str] = ()
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self, user_id: uuid.UUID) -> list[ColumnElement[bool]]:
        """Return the filter as SQL conditions."""
        conditions = [Batch.user_id == user_id, Batch.deleted_at.is_(None)]
        if self.statuses:
            conditions.append(Batch.status.in_(self.statuses))
        if self.since is not None:
            conditions.append(Batch.created_at >= self.since)
        if self.until is not None:
            conditions.append(Batch.created_at < self.until)
        return conditions


def find(session: Session, user_id: uuid.UUID, task_id: uuid.UUID, *, lock: bool = False) -> Batch:
    """Return a user's batch; raise `TaskNotFound`.

    With `lock` no worker can complete a chunk of it before the transaction ends; other rows may
    still be inserted that reference it (FOR NO KEY UPDATE). The rest of the transaction uses index
    scans only.
    """
    force_index_scans(session)
    query = select(Batch).where(
        Batch.id == task_id, Batch.user_id == user_id, Batch.deleted_at.is_(None)
    )
    if lock:
        query = query.with_for_update(key_share=True)
    batch = session.scalars(query).one_or_none()
    if batch is None:
        raise TaskNotFound
    return batch


def get_status(
    session: Session, user_id: uuid.UUID, task_id: uuid.UUID, *, max_inline: int
) -> Status:
    """Return the status of a user's batch, with up to `max_inline` results once it has ended."""
    repeatable_read(session)
    return compute_status(session, find(session, user_id, task_id), max_inline=max_inline)


def compute_status(session: Session, batch: Batch, *, max_inline: int) -> Status:
    """Return the status of a batch that is locked, or read in a repeatable-read transaction."""
    progress = read_progress(session, [batch.id])[batch.id]
    rows = None
    if batch.status in TERMINAL and batch.total <= max_inline:
        page = results.read_page(session, batch.id, limit=batch.total, cells=False)
        # All results or none: a client could take the first ones for all of them.
        rows = page.rows if page.next_start is None else None
    return Status(batch, progress.done, progress.failed, rows, progress.rate)


def read_page(
    session: Session,
    user_id: uuid.UUID,
    filter_: BatchFilter,
    *,
    limit: int,
    cursor: uuid.UUID | None,
) -> tuple[list[Status], uuid.UUID | None]:
    """Return up to `limit` of a user's batches before `cursor`, newest first, and the next
    cursor.
    """
    repeatable_read(session)
    force_index_scans(session)
    batches, next_cursor = pagination.newest_first(
        session, Batch, filter_.conditions(user_id), limit=limit, cursor=cursor
    )
    progress = read_progress(session, [batch.id for batch in batches])
    items = [Status(b, p.done, p.failed, None, p.rate) for b in batches for p in [progress[b.id]]]
    return items, next_cursor


def read_progress(session: Session, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, Progress]:
    """Return the progress of batches that were read in the same snapshot."""
    rows = session.execute(_PROGRESS, {"ids": list(ids), "window": RATE_SECONDS})
    return {
        row.id: Progress(
            row.done,
            row.failed,
            row.lately / float(row.seconds) if row.of_this_run and row.seconds else None,
        )
        for row in rows
    }
