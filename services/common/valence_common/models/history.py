"""The history of scored texts, and the usage of each user."""

import uuid
from datetime import date, datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String, Text, func
from sqlalchemy.orm import Mapped, mapped_column

from valence_common.db import new_id
from valence_common.models.base import Base, one_of

NO_KEY = uuid.UUID(int=0)
"""Means "no API key" in a primary key, which cannot be null."""


class Prediction(Base):
    """One scored text in a user's history; partitioned by the month of `created_at`.

    In an installation that does not store texts, `text` is null and `text_hash` is its SHA-256.
    """

    __tablename__ = "predictions"
    __table_args__ = (
        Index("ix_predictions_user_id_created_at_id", "user_id", "created_at", "id"),
        CheckConstraint(one_of("sentiment", "positive", "negative"), name="sentiment"),
        {"postgresql_partition_by": "RANGE (created_at)"},
    )

    created_at: Mapped[datetime] = mapped_column(primary_key=True, server_default=func.now())
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    text: Mapped[str | None] = mapped_column(Text)
    text_hash: Mapped[bytes | None]
    sentiment: Mapped[str] = mapped_column(String(8))
    confidence: Mapped[float]
    low_confidence: Mapped[bool]
    model: Mapped[str] = mapped_column(String(128))


class Usage(Base):
    """A user's requests and texts on one day (UTC), by credential and route; written in bulk."""

    __tablename__ = "usage"
    __table_args__ = (Index("ix_usage_day", "day"),)

    user_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    day: Mapped[date] = mapped_column(primary_key=True)
    key_id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=NO_KEY)
    route: Mapped[str] = mapped_column(String(64), primary_key=True)
    requests: Mapped[int] = mapped_column(BigInteger)
    texts: Mapped[int] = mapped_column(BigInteger)
