"""Take-out: one JSON document of all that belongs to a user, read and written page by page.

However much there is, one page at a time is in memory. Each page is a transaction of its own, and
is good only if the account was still its owner's after it was read: of one that is being erased
there is no document, rather than one in which rows are missing.
"""

import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import BaseModel, TypeAdapter
from sqlalchemy import ColumnElement, Row, Select, bindparam, func, or_, select, text, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from valence_auth import accounts
from valence_auth.schemas import privacy as schemas
from valence_common.audit import record
from valence_common.db import Database
from valence_common.models import (
    ApiKey,
    AuditEvent,
    Batch,
    BatchChunk,
    BatchResult,
    Identity,
    LoginSession,
    Prediction,
    Usage,
    WebhookDelivery,
    WebhookSecret,
)
from valence_common.models.base import Base

PAGE_ROWS = 500
AT_ONCE = 2

# Without statistics, as of a table that just filled, each page would sort all that is left.
_NO_SORT = text("SET LOCAL enable_sort = off")

_USER: ColumnElement[uuid.UUID] = bindparam("user_id")
_MOMENT: ColumnElement[datetime] = bindparam("moment")


class _Part(NamedTuple):
    """A list of the document: what its items are, and the key in whose order they are read."""

    name: str
    item: type[BaseModel]
    rows: Select[Any]
    key: tuple[InstrumentedAttribute[Any], ...]

    @classmethod
    def of(
        cls,
        name: str,
        item: type[BaseModel],
        model: type[Base],
        *conditions: ColumnElement[bool],
        key: tuple[str, ...] = ("id",),
        **computed: ColumnElement[Any],
    ) -> "_Part":
        """Of a table the columns that the item has fields for, and what is computed."""
        names = [field.validation_alias or name for name, field in item.model_fields.items()]
        columns = [getattr(model, str(name)) for name in names if name not in computed]
        labelled = [column.label(name) for name, column in computed.items()]
        rows = select(*columns, *labelled).where(*conditions)
        return cls(name, item, rows, tuple(getattr(model, column) for column in key))


_HISTORY = _Part.of(
    "history",
    schemas.TakeoutPrediction,
    Prediction,
    Prediction.user_id == _USER,
    # Whoever scores faster than they read would never come to the end.
    Prediction.created_at <= _MOMENT,
    key=("created_at", "id"),
)
_BATCHES = _Part.of(
    "batches", schemas.TakeoutBatch, Batch, Batch.user_id == _USER, Batch.deleted_at.is_(None)
)

_PARTS = (
    _Part.of("sessions", schemas.TakeoutSession, LoginSession, LoginSession.user_id == _USER),
    _Part.of("api_keys", schemas.TakeoutKey, ApiKey, ApiKey.user_id == _USER),
    _Part.of("identities", schemas.TakeoutIdentity, Identity, Identity.user_id == _USER),
    _Part.of(
        "usage", schemas.TakeoutUsage, Usage, Usage.user_id == _USER, key=("day", "key_id", "route")
    ),
    _HISTORY,
    _Part.of(
        "audit_events",
        schemas.TakeoutEvent,
        AuditEvent,
        or_(AuditEvent.actor_id == _USER, AuditEvent.subject_id == _USER),
        by_you=func.coalesce(AuditEvent.actor_id == _USER, False),
    ),
    _Part.of(
        "webhook_secrets",
        schemas.TakeoutWebhookSecret,
        WebhookSecret,
        WebhookSecret.user_id == _USER,
    ),
    _Part.of(
        "webhook_deliveries",
        schemas.TakeoutDelivery,
        WebhookDelivery,
        WebhookDelivery.batch_id.in_(select(Batch.id).where(Batch.user_id == _USER)),
    ),
    _BATCHES,
)


class _Reader:
    """Reads one user's rows, as of a moment, as JSON items with commas between."""

    def __init__(self, database: Database, user_id: uuid.UUID, moment: datetime):
        self._database = database
        self._user_id = user_id
        self._parameters = {"user_id": user_id, "moment": moment}

    async def items(self, part: _Part) -> AsyncIterator[bytes]:
        """The items of a part, a page at a time."""
        async for rows in self._pages(part):
            yield _json(part.item.model_validate(row) for row in rows)

    async def results(self) -> AsyncIterator[bytes]:
        """The texts of all batches with their answers, a chunk at a time."""
        async for rows in self._pages(_BATCHES):
            for batch in rows:
                done = 0
                while found := await self._database.run(self._chunk, batch.id, done):
                    results, done = found
                    yield _json(results)

    async def _pages(self, part: _Part) -> AsyncIterator[Sequence[Row[Any]]]:
        after: tuple[Any, ...] | None = None
        while rows := await self._database.run(self._page, part, after):
            yield rows
            after = tuple(getattr(rows[-1], column.key) for column in part.key)

    def _page(
        self, session: Session, part: _Part, after: tuple[Any, ...] | None
    ) -> Sequence[Row[Any]]:
        if part is _HISTORY:
            session.execute(_NO_SORT)
        query = part.rows.order_by(*part.key).limit(PAGE_ROWS)
        if after is not None:
            query = query.where(tuple_(*part.key) > after)
        rows = session.execute(query, self._parameters).all()
        accounts.current(session, self._user_id)
        return rows

    def _chunk(
        self, session: Session, batch_id: uuid.UUID, start: int
    ) -> tuple[list[schemas.TakeoutResult], int] | None:
        """The chunk that begins at a text or after, and where the next one begins."""
        mine = select(BatchChunk).where(BatchChunk.batch_id == batch_id, BatchChunk.start >= start)
        chunk = session.scalars(mine.order_by(BatchChunk.start).limit(1)).one_or_none()
        if chunk is None:
            return None
        end = chunk.start + chunk.size
        places = BatchResult.position.between(chunk.start, end - 1)
        query = select(BatchResult).where(BatchResult.batch_id == batch_id, places)
        answers = {answer.position: answer for answer in session.scalars(query)}
        accounts.current(session, self._user_id)
        # Where texts are not stored, a chunk that is done has none.
        texts: Sequence[str | None] = chunk.texts or [None] * chunk.size
        results = [
            schemas.TakeoutResult.of(chunk, place, said, answers.get(place))
            for place, said in enumerate(texts, chunk.start)
        ]
        return results, end


async def begin(database: Database, user_id: uuid.UUID) -> AsyncIterator[bytes]:
    """The document, piece by piece; raises what keeps it from being begun.

    Iterating raises `Unavailable`, or `InvalidCredential` once the account may not act any more.
    """
    profile, moment = await database.run(_begin, user_id)
    return _document(_Reader(database, user_id, moment), profile, moment)


def _begin(session: Session, user_id: uuid.UUID) -> tuple[schemas.TakeoutProfile, datetime]:
    user = accounts.current(session, user_id)
    record(session, "account.exported", actor_id=user_id, user_id=user_id, subject_id=user_id)
    return schemas.TakeoutProfile.model_validate(user), session.scalars(select(func.now())).one()


async def _document(
    reader: _Reader, profile: schemas.TakeoutProfile, moment: datetime
) -> AsyncIterator[bytes]:
    yield b'{"format":"%b","exported_at":%b,"profile":%b' % (
        schemas.FORMAT.encode(),
        TypeAdapter(datetime).dump_json(moment),
        profile.model_dump_json().encode(),
    )
    for part in _PARTS:
        async for piece in _list(part.name, reader.items(part)):
            yield piece
    async for piece in _list("batch_results", reader.results()):
        yield piece
    yield b"}"


async def _list(name: str, pages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield b',"%b":[' % name.encode()
    comma = b""
    async for page in pages:
        yield comma + page
        comma = b","
    yield b"]"


def _json(items: Iterable[BaseModel]) -> bytes:
    return b",".join(item.model_dump_json().encode() for item in items)
