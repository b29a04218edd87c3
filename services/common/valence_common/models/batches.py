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

from valence_common.models.base import Base, Entity, one_of

TERMINAL = ("completed", "completed_with_errors", "failed", "cancelled")
"""The final states of a batch: no worker touches it any more."""

IDEMPOTENCY_TTL = timedelta(hours=24)
"""How long an idempotency key identifies the request that it was first sent with."""

DEFAULT_PRIORITY = 5
"""Among one user's batches, 1 is processed first and 9 last."""


class Batch(Entity):
    """A batch of texts; its progress is counted from its chunks and not stored.

    `columns` holds the column names of the uploaded file in their order, and `text_column` is the
    index of the one that is scored. From `deleted_at` on the API no longer shows the batch.
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


class BatchChunk(Entity):
    """Consecutive texts of a batch, processed by one worker at a time under a lease.

    The claim increments `attempt` before the work; id and attempt together are the fencing token.
    `user_id` and `priority` are copied from the batch because the queue is indexed by them (a
    trigger fills in `user_id` where an older release does not). `rows` holds for each text the rest
    of its row: the other cells of a CSV line, or the other fields of an object. `done_at` is null
    for chunks that an older release completed.
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
    """The result for one text of a batch: a `sentiment`, or an `error` that says why not."""

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
    """A client's name for a request; sending the request again creates no second batch.

    `fingerprint` is the SHA-256 of the request. The key is valid for `IDEMPOTENCY_TTL`.
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
