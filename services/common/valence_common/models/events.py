"""The outbox: what other systems are told of, written with what happened."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Index, Sequence, String, func, text
from sqlalchemy.orm import Mapped, mapped_column

from valence_common.db import new_id
from valence_common.models.base import Base

EVENT_NUMBERS = Sequence("event_numbers", metadata=Base.metadata)
"""Numbers events in the order in which they are told; drawn by one relay at a time."""


class Event(Base):
    """Something that happened to a batch or an account; refers to rows that may be gone.

    Without a `number` it waits to be told: numbers are given after the commit, since of two
    transactions the one that began first may end last.
    """

    __tablename__ = "events"
    __table_args__ = (
        Index("ix_events_waiting", "created_at", "id", postgresql_where=text("number IS NULL")),
        Index("ix_events_created_at", "created_at"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    number: Mapped[int | None] = mapped_column(BigInteger, unique=True)
    type: Mapped[str] = mapped_column(String(64))
    user_id: Mapped[uuid.UUID | None]
    subject_id: Mapped[uuid.UUID | None]
    data: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    # When it was written, with all locks held: a transaction may have waited for another's end.
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
