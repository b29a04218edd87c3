"""The tables of Valence: all of them, and nothing that decides.

Ids are UUIDv7 made in Python; times are `timestamptz`; every foreign key says what happens when
its parent goes; states are held by CHECK constraints. Migrations live in the root `alembic/`.
"""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    CheckConstraint,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from valence_common.db import new_id

NAMING = {
    "ix": "ix_%(column_0_N_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

ENDED = ("completed", "completed_with_errors", "failed", "cancelled")
"""The states of a batch that no worker touches any more."""


class Base(DeclarativeBase):
    """The metadata with its naming convention, and the column types of Python's types."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own way
        datetime: DateTime(timezone=True),
        uuid.UUID: Uuid(),
        dict[str, Any]: JSONB(),
        bytes: LargeBinary(),
        float: Double(),
    }


def _in(column: str, *values: str) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


class User(Base):
    """An account; `*_key` columns hold the canonical form that must be unique."""

    __tablename__ = "users"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    username: Mapped[str] = mapped_column(String(64))
    username_key: Mapped[str] = mapped_column(String(64), unique=True)
    email: Mapped[str] = mapped_column(String(254))
    email_key: Mapped[str] = mapped_column(String(254), unique=True)
    password_hash: Mapped[str] = mapped_column(String(255))
    is_active: Mapped[bool] = mapped_column(server_default=text("true"), default=True)
    is_superuser: Mapped[bool] = mapped_column(server_default=text("false"), default=False)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())


class RefreshToken(Base):
    """One opaque refresh token, by its SHA-256; a family is one login session."""

    __tablename__ = "refresh_tokens"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    family_id: Mapped[uuid.UUID] = mapped_column(index=True)
    token_hash: Mapped[bytes] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class Prediction(Base):
    """One scored text in a user's history; partitioned by the month of `created_at`."""

    __tablename__ = "predictions"
    __table_args__ = (
        Index("ix_predictions_user_id_created_at_id", "user_id", "created_at", "id"),
        CheckConstraint(_in("sentiment", "positive", "negative"), name="sentiment"),
        {"postgresql_partition_by": "RANGE (created_at)"},
    )

    created_at: Mapped[datetime] = mapped_column(primary_key=True, server_default=func.now())
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    text: Mapped[str] = mapped_column(Text)
    sentiment: Mapped[str] = mapped_column(String(8))
    confidence: Mapped[float]
    low_confidence: Mapped[bool]
    model: Mapped[str] = mapped_column(String(128))


class Batch(Base):
    """A job of many texts; its progress is counted from its chunks, never kept here."""

    __tablename__ = "batches"
    __table_args__ = (
        CheckConstraint(_in("status", "pending", "processing", *ENDED), name="status"),
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
        CheckConstraint(_in("state", "pending", "running", "done"), name="state"),
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


class AuditEvent(Base):
    """Who did what to which thing, when; without content."""

    __tablename__ = "audit_events"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    actor_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("users.id", ondelete="SET NULL"), index=True
    )
    action: Mapped[str] = mapped_column(String(64))
    subject_id: Mapped[uuid.UUID | None] = mapped_column(index=True)
    details: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
