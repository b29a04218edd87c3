"""Batches that have ended, stored as an upload and its workers would have left them."""

import uuid
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import SecretStr
from sqlalchemy import NullPool, insert
from sqlalchemy.orm import Session

from valence_common.db import make_engine, new_id
from valence_common.models import Batch, BatchChunk, BatchResult

MODEL = "test@1"
_NOW = datetime.now(UTC)


def sentiment(n: int) -> str:
    """The answer for the text at place `n`."""
    return "positive" if n % 2 else "negative"


def confidence(n: int) -> float:
    """Of that answer: 0.5, 0.51 … 0.99, and again."""
    return 0.5 + (n % 50) / 100


def store(
    session: Session,
    user_id: uuid.UUID | str,
    texts: Sequence[str],
    *,
    rows: Sequence[Any] | None = None,
    sizes: Sequence[int] = (),
    failed: Collection[int] = (),
    stored: bool = True,
    model: str = MODEL,
    **columns: Any,
) -> uuid.UUID:
    """A batch with results, in chunks of these sizes (500 from then on); `columns` of its row."""
    fields = {"id": new_id(), "user_id": user_id, "total": len(texts), "status": "completed"}
    batch = Batch(**fields | {"started_at": _NOW, "finished_at": _NOW} | columns)
    session.add(batch)
    session.flush()
    start = 0
    for size in [*sizes, *[500] * (len(texts) // 500 + 1)]:
        part = slice(start, start + size)
        if here := list(texts[part]):
            whole = {n for n in failed if start <= n < start + size}
            chunk = {
                "id": new_id(),
                "batch_id": batch.id,
                "user_id": user_id,
                "start": start,
                "size": len(here),
                "texts": here if stored else [],
                "rows": list(rows[part]) if rows is not None and stored else None,
                "state": "done",
                "attempt": 1,
                "done_at": _NOW,
                "failed": len(whole),
                "model": None if whole else model,
            }
            session.execute(insert(BatchChunk), chunk)
            start += len(here)
    session.execute(insert(BatchResult), [_answer(batch.id, n, failed) for n in range(len(texts))])
    return batch.id


def _answer(batch_id: uuid.UUID, n: int, failed: Collection[int]) -> dict[str, Any]:
    place = {"batch_id": batch_id, "position": n}
    if n in failed:
        nothing = dict.fromkeys(("sentiment", "confidence", "low_confidence"))
        return {**place, **nothing, "error": "could not be scored"}
    said = {"sentiment": sentiment(n), "confidence": confidence(n), "low_confidence": n % 10 == 0}
    return {**place, **said, "error": None}


def stored(url: str, user_id: uuid.UUID | str, texts: Sequence[str], **more: Any) -> str:
    """The same in a transaction of its own."""
    engine = make_engine(SecretStr(url), poolclass=NullPool)
    with Session(engine) as session, session.begin():
        return str(store(session, user_id, texts, **more))
