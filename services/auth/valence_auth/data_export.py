"""Data export: one JSON document of everything that belongs to a user, streamed page by page.

Only one page at a time is in memory, and each page is a transaction of its own. After each read the
account is checked again: if it is being erased, the export fails instead of missing rows.
"""

import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import BaseModel, TypeAdapter
from sqlalchemy import ColumnElement, Row, Select, bindparam, func, or_, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from valence_auth import accounts
from valence_auth.schemas import privacy as schemas
from valence_common import postgres
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
MAX_CONCURRENT = 2

_USER: ColumnElement[uuid.UUID] = bindparam("user_id")
_AS_OF: ColumnElement[datetime] = bindparam("as_of")


class _Part(NamedTuple):
    """One list of the document: the schema of its items, their query and its keyset order."""

    name: str
    item: type[BaseModel]
    rows: Select[Any]
    key: tuple[InstrumentedAttribute[Any], ...]

    @classmethod
    def from_table(
        cls,
        name: str,
        item: type[BaseModel],
        model: type[Base],
        *conditions: ColumnElement[bool],
        key: tuple[str, ...] = ("id",),
        **computed: ColumnElement[Any],
    ) -> "_Part":
        """Select a table's columns for the item's fields, and the computed ones."""
        names = [field.validation_alias or name for name, field in item.model_fields.items()]
        columns = [getattr(model, str(name)) for name in names if name not in computed]
        labelled = [column.label(name) for name, column in computed.items()]
        rows = select(*columns, *labelled).where(*conditions)
        return cls(name, item, rows, tuple(getattr(model, column) for column in key))


_HISTORY = _Part.from_table(
    "history",
    schemas.ExportedPrediction,
    Prediction,
    Prediction.user_id == _USER,
    # Otherwise a client that scores faster than it reads would never reach the end.
    Prediction.created_at <= _AS_OF,
    key=("created_at", "id"),
)
_BATCHES = _Part.from_table(
    "batches", schemas.ExportedBatch, Batch, Batch.user_id == _USER, Batch.deleted_at.is_(None)
)

_PARTS = (
    _Part.from_table(
        "sessions", schemas.ExportedSession, LoginSession, LoginSession.user_id == _USER
    ),
    _Part.from_table("api_keys", schemas.ExportedKey, ApiKey, ApiKey.user_id == _USER),
    _Part.from_table("identities", schemas.ExportedIdentity, Identity, Identity.user_id == _USER),
    _Part.from_table(
        "usage",
        schemas.ExportedUsage,
        Usage,
        Usage.user_id == _USER,
        key=("day", "key_id", "route"),
    ),
    _HISTORY,
    _Part.from_table(
        "audit_events",
        schemas.ExportedEvent,
        AuditEvent,
        or_(AuditEvent.actor_id == _USER, AuditEvent.subject_id == _USER),
        by_you=func.coalesce(AuditEvent.actor_id == _USER, False),
    ),
    _Part.from_table(
        "webhook_secrets",
        schemas.ExportedWebhookSecret,
        WebhookSecret,
        WebhookSecret.user_id == _USER,
    ),
    _Part.from_table(
        "webhook_deliveries",
        schemas.ExportedDelivery,
        WebhookDelivery,
        WebhookDelivery.batch_id.in_(select(Batch.id).where(Batch.user_id == _USER)),
    ),
    _BATCHES,
)


class _Reader:
    """Reads one user's rows as of a time, as JSON items separated by commas."""

    def __init__(self, database: Database, user_id: uuid.UUID, as_of: datetime):
        self._database = database
        self._user_id = user_id
        self._parameters = {"user_id": user_id, "as_of": as_of}

    async def items(self, part: _Part) -> AsyncIterator[bytes]:
        """Yield the items of a part, a page at a time."""
        async for rows in self._pages(part):
            yield _json(part.item.model_validate(row) for row in rows)

    async def results(self) -> AsyncIterator[bytes]:
        """Yield the texts of all batches with their results, a chunk at a time."""
        async for rows in self._pages(_BATCHES):
            for batch in rows:
                start = 0
                while chunk := await self._database.run(self._chunk, batch.id, start):
                    results, start = chunk
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
            postgres.force_index_scans(session)
        query = part.rows.order_by(*part.key).limit(PAGE_ROWS)
        if after is not None:
            query = query.where(tuple_(*part.key) > after)
        rows = session.execute(query, self._parameters).all()
        accounts.get_active(session, self._user_id)
        return rows

    def _chunk(
        self, session: Session, batch_id: uuid.UUID, start: int
    ) -> tuple[list[schemas.ExportedResult], int] | None:
        """Return the results of the chunk at `start` or after, and the start of the next."""
        later = select(BatchChunk).where(BatchChunk.batch_id == batch_id, BatchChunk.start >= start)
        chunk = session.scalars(later.order_by(BatchChunk.start).limit(1)).one_or_none()
        if chunk is None:
            return None
        end = chunk.start + chunk.size
        positions = BatchResult.position.between(chunk.start, end - 1)
        query = select(BatchResult).where(BatchResult.batch_id == batch_id, positions)
        rows = {row.position: row for row in session.scalars(query)}
        accounts.get_active(session, self._user_id)
        # If texts are not stored, a scored chunk has none.
        texts: Sequence[str | None] = chunk.texts or [None] * chunk.size
        results = [
            schemas.ExportedResult.from_row(chunk, position, text, rows.get(position))
            for position, text in enumerate(texts, chunk.start)
        ]
        return results, end


async def start(database: Database, user_id: uuid.UUID) -> AsyncIterator[bytes]:
    """Return the document in pieces.

    This call and the iteration raise `Unavailable`, or `InvalidCredential` if the account is
    disabled or erased.
    """
    profile, as_of = await database.run(_begin, user_id)
    return _document(_Reader(database, user_id, as_of), profile, as_of)


def _begin(session: Session, user_id: uuid.UUID) -> tuple[schemas.ExportedProfile, datetime]:
    user = accounts.get_active(session, user_id)
    record(session, "account.exported", user_id=user_id)
    return schemas.ExportedProfile.model_validate(user), session.scalars(select(func.now())).one()


async def _document(
    reader: _Reader, profile: schemas.ExportedProfile, as_of: datetime
) -> AsyncIterator[bytes]:
    yield b'{"format":"%b","exported_at":%b,"profile":%b' % (
        schemas.FORMAT.encode(),
        TypeAdapter(datetime).dump_json(as_of),
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
