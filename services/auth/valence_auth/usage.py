"""Usage: what was asked for, by day, user, key and route, as the inference service counted it."""

import base64
import binascii
import uuid
from collections.abc import Sequence
from datetime import date
from typing import NamedTuple

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from valence_common.models import Usage
from valence_common.problems import FieldError, Unprocessable

MOST_DAYS = 92

_ORDER = (Usage.day, Usage.user_id, Usage.key_id, Usage.route)


class Cursor(NamedTuple):
    """Where a page ended: the last row's primary key, in the order of pages."""

    day: date
    user_id: uuid.UUID
    key_id: uuid.UUID
    route: str

    def encode(self) -> str:
        """The cursor as the opaque string that clients send back."""
        raw = self.day.toordinal().to_bytes(4, "big") + self.user_id.bytes + self.key_id.bytes
        return base64.urlsafe_b64encode(raw + self.route.encode()).decode()

    @classmethod
    def decode(cls, cursor: str) -> "Cursor":
        """Read what `encode` wrote; raises `Unprocessable` for anything else."""
        try:
            raw = base64.b64decode(cursor, altchars=b"-_", validate=True)
            day = date.fromordinal(int.from_bytes(raw[:4], "big"))
            user_id, key_id = uuid.UUID(bytes=raw[4:20]), uuid.UUID(bytes=raw[20:36])
            return cls(day, user_id, key_id, raw[36:].decode("ascii").replace("\0", ""))
        except (binascii.Error, ValueError, OverflowError):
            error = FieldError("query.cursor", "cursor", "Not a cursor that a page gave")
            raise Unprocessable([error]) from None


def read(
    session: Session,
    since: date,
    until: date,
    *,
    user_id: uuid.UUID | None = None,
    limit: int,
    cursor: str | None = None,
) -> tuple[Sequence[Usage], str | None]:
    """Up to `limit` rows of these days, both included, oldest first, and the next page's cursor.

    Without `user_id` they are everybody's.
    """
    query = select(Usage).where(Usage.day.between(since, until))
    if user_id is not None:
        query = query.where(Usage.user_id == user_id)
    if cursor is not None:
        query = query.where(tuple_(*_ORDER) > Cursor.decode(cursor))
    rows = session.scalars(query.order_by(*_ORDER).limit(limit + 1)).all()
    if len(rows) <= limit:
        return rows, None
    last = rows[limit - 1]
    return rows[:limit], Cursor(last.day, last.user_id, last.key_id, last.route).encode()
