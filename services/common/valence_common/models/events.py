"""The outbox: events for other systems, written in the transaction that they describe."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Index, Sequence, String, func, text
from sqlalchemy.orm import Mapped, mapped_column

from valence_common.models.base import Base, Entity

EVENT_NUMBERS = Sequence("event_numbers", metadata=Base.metadata)
"""Numbers events in the order of publication; used by one relay at a time."""


class Event(Entity):
    """An event of a batch or an account; the rows that it refers to may be deleted already.

    An event without a `number` awaits publication. The relay assigns numbers after the commit,
    because transactions may commit in another order than they began.
    """

    __tablename__ = "events"
    __table_args__ = (
        Index("ix_events_waiting", "created_at", "id", postgresql_where=text("number IS NULL")),
        Index("ix_events_created_at", "created_at"),
    )

    number: Mapped[int | None] = mapped_column(BigInteger, unique=True)
    type: Mapped[str] = mapped_column(String(64))
    user_id: Mapped[uuid.UUID | None]
    subject_id: Mapped[uuid.UUID | None]
    data: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    # The time of the insert, after any wait for locks, not of the transaction's start.
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
