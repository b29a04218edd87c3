"""Batches, their chunks and results."""

import uuid
from datetime import datetime

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, Integer, String, func, text
from sqlalchemy.orm import Mapped, mapped_column

from valence_common.db import new_id
from valence_common.models.base import Base, in_

ENDED = ("completed", "completed_with_errors", "failed", "cancelled")
"""The states of a batch that no worker touches any more."""


class Batch(Base):
    """A job of many texts; its progress is counted from its chunks, never kept here."""

    __tablename__ = "batches"
    __table_args__ = (
        CheckConstraint(in_("status", "pending", "processing", *ENDED), name="status"),
        CheckConstraint("total > 0", name="total"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    status: Mapped[str] = mapped_column(String(24), server_default="pending", default="pending")
    total: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class BatchChunk(Base):
    """A run of a batch's texts that one worker takes at a time, under a lease.

    `attempt` is counted by the claim, before the work: with the id it is the fencing token.
    """

    __tablename__ = "batch_chunks"
    __table_args__ = (
        CheckConstraint(in_("state", "pending", "running", "done"), name="state"),
        CheckConstraint("size > 0", name="size"),
        CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name="lease"),
        Index(
            "ix_batch_chunks_pending",
            "available_at",
            "id",
            postgresql_where=text("state = 'pending'"),
        ),
        Index(
            "ix_batch_chunks_tried",
            "attempt",
            postgresql_where=text("state = 'pending' AND attempt > 0"),
        ),
        Index("ix_batch_chunks_running", "lease_until", postgresql_where=text("state = 'running'")),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    batch_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("batches.id", ondelete="CASCADE"), index=True
    )
    start: Mapped[int]
    size: Mapped[int]
    texts: Mapped[list[str]] = mapped_column(JSON)
    state: Mapped[str] = mapped_column(String(8), server_default="pending", default="pending")
    attempt: Mapped[int] = mapped_column(Integer, server_default="0", default=0)
    available_at: Mapped[datetime] = mapped_column(server_default=func.now())
    lease_until: Mapped[datetime | None]
    failed: Mapped[int] = mapped_column(Integer, server_default="0", default=0)
    model: Mapped[str | None] = mapped_column(String(128))


class BatchResult(Base):
    """The answer for one text of a batch; a row without `sentiment` says why in `error`."""

    __tablename__ = "batch_results"
    __table_args__ = (CheckConstraint("(sentiment IS NULL) = (error IS NOT NULL)", name="outcome"),)

    batch_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(primary_key=True)
    sentiment: Mapped[str | None] = mapped_column(String(8))
    confidence: Mapped[float | None]
    low_confidence: Mapped[bool | None]
    error: Mapped[str | None] = mapped_column(String(64))
