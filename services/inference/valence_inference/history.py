"""The history of scored texts: recorded before the answer is sent, read newest first."""

import contextlib
import hashlib
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, delete, func, insert, select, tuple_
from sqlalchemy.orm import Session

from valence_common.concurrency import TimedSemaphore
from valence_common.db import Database, new_id
from valence_common.models import Prediction
from valence_common.postgres import require_user
from valence_common.problems import Unavailable
from valence_common.web.pagination import decode_cursor, encode_cursor
from valence_ml import Score

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

MAX_DELETED_ROWS = 5_000


class Cursor(NamedTuple):
    """The position of a page's last item: its time and id."""

    created_at: datetime
    id: uuid.UUID

    def encode(self) -> str:
        """Return the cursor as an opaque string for clients."""
        microseconds = (self.created_at - _EPOCH) // timedelta(microseconds=1)
        return encode_cursor(microseconds.to_bytes(8, "big") + self.id.bytes)

    @classmethod
    def decode(cls, cursor: str) -> "Cursor":
        """Parse a string made by `encode`; raise `Unprocessable` for any other."""

        def parse(key: bytes) -> "Cursor":
            time = _EPOCH + timedelta(microseconds=int.from_bytes(key[:8], "big"))
            return cls(time, uuid.UUID(bytes=key[8:]))

        return decode_cursor(cursor, parse)


class HistoryFilter(NamedTuple):
    """A filter on a user's predictions; times are aware, `since` inclusive, `until` exclusive."""

    sentiment: str | None = None
    model: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    q: str | None = None

    def conditions(self, user_id: uuid.UUID) -> list[ColumnElement[bool]]:
        """Return the filter as SQL conditions."""
        conditions = [Prediction.user_id == user_id]
        if self.sentiment is not None:
            conditions.append(Prediction.sentiment == self.sentiment)
        if self.model is not None:
            conditions.append(Prediction.model == self.model)
        if self.since is not None:
            conditions.append(Prediction.created_at >= self.since)
        if self.until is not None:
            conditions.append(Prediction.created_at < self.until)
        if self.q is not None:
            conditions.append(Prediction.text.icontains(self.q, autoescape=True))
        return conditions


class History:
    """Records, reads and deletes predictions; their texts are stored, or only hashed."""

    def __init__(self, database: Database, *, required: bool, store_texts: bool = True):
        self._database = database
        self._required = required
        # A search reads all texts of its user; concurrent searches would use up the connections.
        self._search = TimedSemaphore("search", timeout=database.timeout)
        self._store_texts = store_texts

    async def record(self, prediction: Prediction) -> bool:
        """Commit one prediction; return whether it was stored.

        If history is required, raise `Unavailable` instead of returning False.
        """
        try:
            await self._database.run(_insert, prediction, store_text=self._store_texts)
        except Unavailable:
            if self._required:
                raise
            return False
        return True

    async def read_page(
        self, user_id: uuid.UUID, filter_: HistoryFilter, *, limit: int, cursor: str | None
    ) -> tuple[Sequence[Prediction], str | None]:
        """Return up to `limit` predictions before `cursor`, newest first, and the next cursor."""
        after = None if cursor is None else Cursor.decode(cursor)
        async with self._search.slot() if filter_.q is not None else contextlib.nullcontext():
            rows = await self._database.run(_read_page, user_id, filter_, limit + 1, after)
        if len(rows) <= limit:
            return rows, None
        last = rows[limit - 1]
        return rows[:limit], Cursor(last.created_at, last.id).encode()

    async def delete(self, user_id: uuid.UUID, filter_: HistoryFilter) -> None:
        """Delete the predictions that match the filter now, `MAX_DELETED_ROWS` per transaction."""
        now = await self._database.run(_now)
        filter_ = filter_._replace(until=now if filter_.until is None else min(filter_.until, now))
        after: Cursor | None = Cursor(_EPOCH, uuid.UUID(int=0))
        while after is not None:
            after = await self._database.run(_delete, user_id, filter_, after)


def prediction_from_score(user_id: uuid.UUID, text: str, score: Score, model: str) -> Prediction:
    """Return the history record of one score."""
    return Prediction(
        id=new_id(),
        user_id=user_id,
        text=text,
        sentiment=score.label,
        confidence=score.confidence,
        low_confidence=score.low_confidence,
        model=model,
    )


def _now(session: Session) -> datetime:
    """Return the time by the database's clock, which dates predictions."""
    return session.execute(select(func.now())).scalar_one()


def _insert(session: Session, prediction: Prediction, *, store_text: bool) -> None:
    text = prediction.text or ""
    values = {
        "id": prediction.id,
        "user_id": prediction.user_id,
        "text": text if store_text else None,
        "text_hash": None if store_text else hashlib.sha256(text.encode()).digest(),
        "sentiment": prediction.sentiment,
        "confidence": prediction.confidence,
        "low_confidence": prediction.low_confidence,
        "model": prediction.model,
    }
    with require_user():
        session.execute(insert(Prediction).values(values))


def _read_page(
    session: Session, user_id: uuid.UUID, filter_: HistoryFilter, limit: int, after: Cursor | None
) -> Sequence[Prediction]:
    query = select(Prediction).where(*filter_.conditions(user_id))
    if after is not None:
        query = query.where(tuple_(Prediction.created_at, Prediction.id) < after)
    newest = query.order_by(Prediction.created_at.desc(), Prediction.id.desc()).limit(limit)
    return session.scalars(newest).all()


def _delete(
    session: Session, user_id: uuid.UUID, filter_: HistoryFilter, after: Cursor
) -> Cursor | None:
    """Delete the next rows in the order of the index; return the last one's position, or None at
    the end.
    """
    key = tuple_(Prediction.created_at, Prediction.id)
    page = (
        select(Prediction.created_at, Prediction.id)
        .where(*filter_.conditions(user_id), key > after)
        .order_by(Prediction.created_at, Prediction.id)
        .limit(MAX_DELETED_ROWS)
    )
    deleted = session.execute(
        delete(Prediction).where(key.in_(page)).returning(Prediction.created_at, Prediction.id)
    ).all()
    return Cursor(*max(deleted)) if len(deleted) == MAX_DELETED_ROWS else None
