"""Webhooks: signing secrets, deliveries, and the outcome of each attempt."""

import uuid
from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, String, func, text
from sqlalchemy.orm import Mapped, mapped_column

from valence_common.models.base import Entity, one_of


class WebhookSecret(Entity):
    """A secret that signs a user's webhooks; a replaced one also signs until `expires_at`.

    The secret is stored in clear text because signing needs it. Only the worker's database role
    may read it.
    """

    __tablename__ = "webhook_secrets"

    user_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    secret: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]


class WebhookDelivery(Entity):
    """One message to a batch's `webhook_url`; pending until it is delivered or a day has passed.

    The worker increments `attempts` before the attempt, under a lease. `user_id` is copied from the
    batch because deliveries are scheduled fairly among users. The counts and times are those of the
    event, whatever happened to the batch since.
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


class WebhookAttempt(Entity):
    """The outcome of one attempt: the receiver's status code, or why there was no response."""

    __tablename__ = "webhook_attempts"

    delivery_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("webhook_deliveries.id", ondelete="CASCADE"), index=True
    )
    number: Mapped[int]
    started_at: Mapped[datetime]
    seconds: Mapped[float]
    status_code: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(String(64))
