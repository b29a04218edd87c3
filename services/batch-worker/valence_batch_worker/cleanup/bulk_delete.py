"""Bulk deletes in steps: a limited number of rows per transaction, in one worker at a time.

No state is kept between steps, so another worker continues after a crash.
"""

import time
import uuid
from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, Select, delete, inspect, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from valence_batch_worker import metrics
from valence_common.db import Database
from valence_common.models import Batch, BatchChunk, BatchResult, LoginSession, RefreshToken
from valence_common.models.base import Base
from valence_common.postgres import force_index_scans, try_lock

MAX_ROWS = 5_000
MAX_SECONDS = 0.5
MAX_PARENTS = 100
"""Batches or sessions that one statement selects together with their rows."""


ROWS_PER_CHUNK = 10
"""The weight of a chunk in the limit of a step: hundreds of texts are stored out of line."""

DeleteStep = Callable[[Session, int], int]
"""Deletes about that many rows and returns how many; 0 when none remain."""


def delete_step(database: Database, reason: str, step: DeleteStep, *, limit: int = MAX_ROWS) -> int:
    """Run a step in one transaction; return 0 if no rows remain or another worker runs it."""
    with database.transaction() as session:
        if not try_lock(session, f"valence.{reason}"):
            return 0
        force_index_scans(session)
        deleted = step(session, limit)
    metrics.ROWS_DELETED.labels(reason).inc(deleted)
    return deleted


def delete_for(database: Database, steps: dict[str, DeleteStep]) -> bool:
    """Run the steps alternately for `MAX_SECONDS`; return whether rows may remain."""
    ends = time.monotonic() + MAX_SECONDS
    while steps and time.monotonic() < ends:
        steps = {
            reason: step for reason, step in steps.items() if delete_step(database, reason, step)
        }
    return bool(steps)


def delete_rows(
    session: Session,
    model: type[Base],
    *conditions: ColumnElement[bool],
    order: tuple[InstrumentedAttribute[Any], ...] = (),
    limit: int,
) -> int:
    """Delete the first `limit` rows that meet the conditions, in the order of an index."""
    key = tuple_(*inspect(model).primary_key)
    some = select(*inspect(model).primary_key).where(*conditions).order_by(*order).limit(limit)
    return rowcount(session.connection().execute(delete(model).where(key.in_(some))))


def delete_batches(session: Session, batch_ids: Select[uuid.UUID], *, limit: int) -> int:
    """Delete the batches of those ids, which no client sees any more, with all their rows.

    Lock order: the batch, then its chunks. A concurrent claim holds a chunk and may wait for the
    batch, so this skips locked chunks, and their batch, until the next step.
    """
    deleted, before = 0, -1
    batch_ids = batch_ids.limit(MAX_PARENTS).with_for_update(skip_locked=True)
    while before < deleted < limit:
        before = deleted
        for batch_id in session.scalars(batch_ids).all():
            if deleted < limit:
                deleted += _delete_batch(session, batch_id, limit - deleted)
    return deleted


def _delete_batch(session: Session, batch_id: uuid.UUID, limit: int) -> int:
    results = BatchResult.batch_id == batch_id
    deleted = delete_rows(session, BatchResult, results, order=(BatchResult.position,), limit=limit)
    if deleted >= limit:
        return deleted
    chunks = BatchChunk.batch_id == batch_id
    unlocked = (
        select(BatchChunk.id)
        .where(chunks)
        .limit(-(-(limit - deleted) // ROWS_PER_CHUNK))
        .with_for_update(skip_locked=True)
    )
    delete_chunks = delete(BatchChunk).where(BatchChunk.id.in_(unlocked))
    deleted += ROWS_PER_CHUNK * rowcount(session.connection().execute(delete_chunks))
    empty = ~select(BatchChunk.id).where(chunks).exists()
    delete_empty = delete(Batch).where(Batch.id == batch_id, empty)
    return deleted + rowcount(session.connection().execute(delete_empty))


def delete_sessions(session: Session, session_ids: Select[uuid.UUID], *, limit: int) -> int:
    """Delete the login sessions of those ids with their refresh tokens."""
    deleted = 0
    while deleted < limit:
        ids = session.scalars(session_ids.limit(min(MAX_PARENTS, limit - deleted))).all()
        if not ids:
            break
        tokens = RefreshToken.session_id.in_(ids)
        deleted += delete_rows(session, RefreshToken, tokens, limit=limit - deleted)
        if deleted < limit:
            statement = delete(LoginSession).where(LoginSession.id.in_(ids))
            deleted += rowcount(session.connection().execute(statement))
    return deleted


def rowcount(result: CursorResult[Any]) -> int:
    """Return how many rows a statement changed."""
    return result.rowcount
