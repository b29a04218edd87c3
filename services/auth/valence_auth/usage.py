"""Usage by day, user, API key and route, as the inference service counts it."""

import uuid
from collections.abc import Sequence
from datetime import date
from typing import NamedTuple

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from valence_common.models import Usage
from valence_common.web.pagination import decode_cursor, encode_cursor

MAX_DAYS = 92

_ORDER = (Usage.day, Usage.user_id, Usage.key_id, Usage.route)


class Cursor(NamedTuple):
    """The last row's primary key, in the order of pages."""

    day: date
    user_id: uuid.UUID
    key_id: uuid.UUID
    route: str

    def encode(self) -> str:
        """Return the cursor as an opaque string."""
        day = self.day.toordinal().to_bytes(4, "big")
        return encode_cursor(day + self.user_id.bytes + self.key_id.bytes + self.route.encode())

    @classmethod
    def parse(cls, key: bytes) -> "Cursor":
        """Parse what `encode` encoded; raise `ValueError` or `OverflowError`."""
        day = date.fromordinal(int.from_bytes(key[:4], "big"))
        user_id, key_id = uuid.UUID(bytes=key[4:20]), uuid.UUID(bytes=key[20:36])
        return cls(day, user_id, key_id, key[36:].decode("ascii").replace("\0", ""))


def read(
    session: Session,
    since: date,
    until: date,
    *,
    user_id: uuid.UUID | None = None,
    limit: int,
    cursor: str | None = None,
) -> tuple[Sequence[Usage], str | None]:
    """Return a page of the usage of these days (inclusive), oldest first, and the next cursor.

    Without `user_id`, return the usage of all users.
    """
    query = select(Usage).where(Usage.day.between(since, until))
    if user_id is not None:
        query = query.where(Usage.user_id == user_id)
    if cursor is not None:
        query = query.where(tuple_(*_ORDER) > decode_cursor(cursor, Cursor.parse))
    rows = session.scalars(query.order_by(*_ORDER).limit(limit + 1)).all()
    if len(rows) <= limit:
        return rows, None
    last = rows[limit - 1]
    return rows[:limit], Cursor(last.day, last.user_id, last.key_id, last.route).encode()
