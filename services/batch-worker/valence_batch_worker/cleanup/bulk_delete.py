"""Rows deleted in pieces: a bounded number a transaction, along an index, by one worker at a time.

What is left when a worker dies, the next one finds again: nothing is remembered between pieces.
"""

import time
import uuid
from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, Select, delete, inspect, select, text, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from valence_batch_worker import metrics
from valence_common.db import Database
from valence_common.models import Batch, BatchChunk, BatchResult, LoginSession, RefreshToken
from valence_common.models.base import Base

MAX_ROWS = 5_000
MAX_SECONDS = 0.5
MAX_PARENTS = 100

# Its texts are stored apart from the row, and there are hundreds of them.
ROWS_PER_CHUNK = 10

_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtext(:name))")

# Statistics of a table that grows and shrinks are wrong: rows are found and deleted by index only.
_FOLLOW_INDEX = text("""
SELECT set_config(name, 'off', true)
FROM unnest(ARRAY['enable_seqscan', 'enable_hashjoin', 'enable_mergejoin']) AS name
""")

DeleteStep = Callable[[Session, int], int]
"""Deletes up to about that many rows and returns how many; 0 when nothing is left to delete."""


def delete_step(database: Database, reason: str, step: DeleteStep, *, limit: int = MAX_ROWS) -> int:
    """One transaction of deleting; 0 when nothing is left, or another worker is at it."""
    with database.transaction() as session:
        if not session.scalar(_LOCK, {"name": f"valence.{reason}"}):
            return 0
        session.execute(_FOLLOW_INDEX)
        gone = step(session, limit)
    metrics.ROWS_DELETED.labels(reason).inc(gone)
    return gone


def delete_for(database: Database, steps: dict[str, DeleteStep]) -> bool:
    """Delete for a while, a piece of each in turn; whether there may be more."""
    ends = time.monotonic() + MAX_SECONDS
    while steps and time.monotonic() < ends:
        steps = {
            reason: piece for reason, piece in steps.items() if delete_step(database, reason, piece)
        }
    return bool(steps)


def delete_rows(
    session: Session,
    model: type[Base],
    *conditions: ColumnElement[bool],
    order: tuple[InstrumentedAttribute[Any], ...] = (),
    limit: int,
) -> int:
    """Delete the first `most` rows that meet the conditions, in the order of an index."""
    key = tuple_(*inspect(model).primary_key)
    some = select(*inspect(model).primary_key).where(*conditions).order_by(*order).limit(limit)
    return rowcount(session.connection().execute(delete(model).where(key.in_(some))))


def delete_batches(session: Session, batch_ids: Select[uuid.UUID], *, limit: int) -> int:
    """Delete batches, which nobody sees any more, with all that is theirs.

    `which` selects their ids. Lock order: the batch, then its chunks. A claim under way holds a
    chunk and may want the batch, so a chunk in use is left for the next time, with its batch.
    """
    gone, before = 0, -1
    batch_ids = batch_ids.limit(MAX_PARENTS).with_for_update(skip_locked=True)
    while before < gone < limit:
        before = gone
        for batch_id in session.scalars(batch_ids).all():
            if gone < limit:
                gone += _delete_batch(session, batch_id, limit - gone)
    return gone


def _delete_batch(session: Session, batch_id: uuid.UUID, limit: int) -> int:
    results = BatchResult.batch_id == batch_id
    gone = delete_rows(session, BatchResult, results, order=(BatchResult.position,), limit=limit)
    if gone >= limit:
        return gone
    mine = BatchChunk.batch_id == batch_id
    free = (
        select(BatchChunk.id)
        .where(mine)
        .limit(-(-(limit - gone) // ROWS_PER_CHUNK))
        .with_for_update(skip_locked=True)
    )
    chunks = delete(BatchChunk).where(BatchChunk.id.in_(free))
    gone += ROWS_PER_CHUNK * rowcount(session.connection().execute(chunks))
    empty = delete(Batch).where(Batch.id == batch_id, ~select(BatchChunk.id).where(mine).exists())
    return gone + rowcount(session.connection().execute(empty))


def delete_sessions(session: Session, session_ids: Select[uuid.UUID], *, limit: int) -> int:
    """Delete login sessions with their refresh tokens; `which` selects their ids."""
    gone = 0
    while gone < limit:
        ids = session.scalars(session_ids.limit(min(MAX_PARENTS, limit - gone))).all()
        if not ids:
            break
        tokens = RefreshToken.session_id.in_(ids)
        gone += delete_rows(session, RefreshToken, tokens, limit=limit - gone)
        if gone < limit:
            ended = delete(LoginSession).where(LoginSession.id.in_(ids))
            gone += rowcount(session.connection().execute(ended))
    return gone


def rowcount(result: CursorResult[Any]) -> int:
    """How many rows a statement changed."""
    return result.rowcount
