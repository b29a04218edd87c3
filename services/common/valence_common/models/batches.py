"""Batches, their chunks and results."""

import uuid
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    JSON,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    String,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from valence_common.db import new_id
from valence_common.models.base import Base, one_of

TERMINAL = ("completed", "completed_with_errors", "failed", "cancelled")
"""The states of a batch that no worker touches any more."""

IDEMPOTENCY_TTL = timedelta(hours=24)
"""For so long an idempotency key means the request that it was first given to."""

DEFAULT_PRIORITY = 5
"""Of a user's own batches: 1 is worked on first, 9 last."""


class Batch(Base):
    """A job of many texts; its progress is counted from its chunks, never kept here.

    `columns` names the columns of the file that it came in, in their order; `text_column` is the
    place among them of the one that is scored. From `deleted_at` on nobody sees it any more.
    """

    __tablename__ = "batches"
    __table_args__ = (
        CheckConstraint(one_of("status", "pending", "processing", *TERMINAL), name="status"),
        CheckConstraint("total > 0", name="total"),
        CheckConstraint("priority BETWEEN 1 AND 9", name="priority"),
        CheckConstraint(one_of("format", "json", "csv", "ndjson"), name="format"),
        CheckConstraint("(columns IS NULL) = (text_column IS NULL)", name="columns"),
        Index("ix_batches_user_id_id", "user_id", "id"),
        Index("ix_batches_deleted", "deleted_at", postgresql_where=text("deleted_at IS NOT NULL")),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    status: Mapped[str] = mapped_column(String(24), server_default="pending", default="pending")
    total: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    priority: Mapped[int] = mapped_column(
        SmallInteger, server_default=text("5"), default=DEFAULT_PRIORITY
    )
    format: Mapped[str] = mapped_column(String(8), server_default="json", default="json")
    columns: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    text_column: Mapped[int | None]
    webhook_url: Mapped[str | None] = mapped_column(String(2048))


class BatchChunk(Base):
    """A run of a batch's texts that one worker takes at a time, under a lease.

    `attempt` is counted by the claim, before the work: with the id it is the fencing token.
    `user_id` and `priority` are its batch's, here because the queue is searched by them (a trigger
    fills in the first where an older release does not). `rows` has for each text what else stood
    in its row: a list of cells without the text's own, or an object's other fields. `done_at` is
    null where an older release's worker was the one that did it.
    """

    __tablename__ = "batch_chunks"
    __table_args__ = (
        CheckConstraint(one_of("state", "pending", "running", "done"), name="state"),
        CheckConstraint("size > 0", name="size"),
        CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name="lease"),
        CheckConstraint("state = 'done' OR user_id IS NOT NULL", name="user"),
        Index(
            "ix_batch_chunks_queue",
            "user_id",
            "priority",
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
        Index("ix_batch_chunks_batch_id_start", "batch_id", "start"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    batch_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("batches.id", ondelete="CASCADE"))
    user_id: Mapped[uuid.UUID | None]
    priority: Mapped[int] = mapped_column(
        SmallInteger, server_default=text("5"), default=DEFAULT_PRIORITY
    )
    start: Mapped[int]
    size: Mapped[int]
    texts: Mapped[list[str]] = mapped_column(JSON)
    rows: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    state: Mapped[str] = mapped_column(String(8), server_default="pending", default="pending")
    attempt: Mapped[int] = mapped_column(Integer, server_default="0", default=0)
    available_at: Mapped[datetime] = mapped_column(server_default=func.now())
    lease_until: Mapped[datetime | None]
    done_at: Mapped[datetime | None]
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


class IdempotencyKey(Base):
    """What a client called its request, so that sending it again makes no second batch.

    `fingerprint` is the SHA-256 of the request; the key is valid for `IDEMPOTENCY_TTL`.
    """

    __tablename__ = "idempotency_keys"

    user_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[bytes]
    batch_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("batches.id", ondelete="CASCADE"), index=True
    )
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
