"""Webhooks: what signs them, what is to be delivered, and how each attempt went."""

import uuid
from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, String, func, text
from sqlalchemy.orm import Mapped, mapped_column

from valence_common.db import new_id
from valence_common.models.base import Base, one_of


class WebhookSecret(Base):
    """What a user's webhooks are signed with; of two, the older one signs until `expires_at`.

    Kept as it is, for who signs must know it: only the worker's role may read it.
    """

    __tablename__ = "webhook_secrets"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    secret: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]


class WebhookDelivery(Base):
    """One message to its batch's `webhook_url`; pending until it arrived or a day has passed.

    `attempts` is counted before the attempt, under a lease. `user_id` is its batch's, here because
    the users take turns. What it says of the batch is as of the event, whatever became of it since.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        CheckConstraint(one_of("status", "pending", "delivered", "failed"), name="status"),
        Index("ix_webhook_deliveries_due", "next_at", postgresql_where=text("status = 'pending'")),
        Index(
            "ix_webhook_deliveries_queue",
            "user_id",
            "next_at",
            postgresql_where=text("status = 'pending'"),
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    batch_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("batches.id", ondelete="CASCADE"), index=True
    )
    user_id: Mapped[uuid.UUID]
    event: Mapped[str] = mapped_column(String(64))
    done: Mapped[int] = mapped_column(Integer, server_default="0")
    failed: Mapped[int] = mapped_column(Integer, server_default="0")
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime] = mapped_column(server_default=func.now())
    status: Mapped[str] = mapped_column(String(16), server_default="pending", default="pending")
    attempts: Mapped[int] = mapped_column(Integer, server_default="0", default=0)
    next_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]


class WebhookAttempt(Base):
    """How one attempt at a delivery went: the receiver's status, or why there was none."""

    __tablename__ = "webhook_attempts"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    delivery_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("webhook_deliveries.id", ondelete="CASCADE"), index=True
    )
    number: Mapped[int]
    started_at: Mapped[datetime]
    seconds: Mapped[float]
    status_code: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(String(64))
