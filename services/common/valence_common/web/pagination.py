"""Keyset pagination, newest first: the last row's key is the cursor of the next page."""

import base64
import binascii
import uuid
from collections.abc import Callable, Sequence
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from valence_common.models import Entity
from valence_common.problems import FieldError, Unprocessable

E = TypeVar("E", bound=Entity)
T = TypeVar("T")


class PageQuery(BaseModel):
    """The query parameters of a page."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    limit: int = Field(default=20, ge=1, le=100, description="Maximum number of items.")
    cursor: uuid.UUID | None = Field(
        default=None, description="The `next_cursor` of the previous page."
    )


def newest_first(
    session: Session,
    model: type[E],
    conditions: Sequence[ColumnElement[bool]],
    *,
    limit: int,
    cursor: uuid.UUID | None,
) -> tuple[Sequence[E], uuid.UUID | None]:
    """Return up to `limit` rows that are older than `cursor`, and the next page's cursor.

    Ids are UUIDv7, so their order is the order of creation.
    """
    query = select(model).where(*conditions)
    if cursor is not None:
        query = query.where(model.id < cursor)
    rows = session.scalars(query.order_by(model.id.desc()).limit(limit + 1)).all()
    return rows[:limit], rows[limit - 1].id if len(rows) > limit else None


def encode_cursor(key: bytes) -> str:
    """Return a row's key as the opaque string that clients send back."""
    return base64.urlsafe_b64encode(key).decode()


def decode_cursor(cursor: str, parse: Callable[[bytes], T]) -> T:
    """Parse the key in a cursor; raise `Unprocessable` for one that no page returned.

    `parse` may raise `ValueError` or `OverflowError`.
    """
    try:
        return parse(base64.b64decode(cursor, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, OverflowError):
        error = FieldError("query.cursor", "cursor", "Not a `next_cursor` of a page")
        raise Unprocessable([error]) from None
