"""Webhooks: signing secrets and the log of deliveries."""

import uuid
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from valence_inference.batches.deliveries import DeliveryLog


class Secret(BaseModel):
    """A signing secret without its value; one with `expires_at` was replaced."""

    id: uuid.UUID
    created_at: datetime
    expires_at: datetime | None


class NewSecret(Secret):
    """A new signing secret; `secret` is shown only once."""

    secret: str = Field(
        description="The signing secret by Standard Webhooks: `whsec_` and the key in Base64."
    )


class SecretPage(BaseModel):
    """The signing secrets, at most five, newest first."""

    items: list[Secret]
    next_cursor: None = None


class Attempt(BaseModel):
    """One delivery attempt: the receiver's status code, or why there was none."""

    model_config = ConfigDict(from_attributes=True)

    number: int
    started_at: datetime
    seconds: float
    status_code: int | None
    error: str | None = Field(
        description="`timeout`, `dns`, `connect`, `tls`, `disconnected`, `protocol`, `redirect`,"
        " `refused_address`, `refused_url`, `no_secret` or `internal`."
    )


class Delivery(BaseModel):
    """The delivery of one message; the receiver sees the same id."""

    id: uuid.UUID
    event: str
    status: Literal["pending", "delivered", "failed"]
    created_at: datetime
    next_attempt_at: datetime | None = Field(description="Null once the delivery has ended.")
    finished_at: datetime | None
    attempts: list[Attempt]

    @classmethod
    def from_log(cls, log: DeliveryLog) -> "Delivery":
        """Convert a delivery and its attempts."""
        row = log.delivery
        return cls.model_validate(
            {
                "id": row.id,
                "event": row.event,
                "status": row.status,
                "created_at": row.created_at,
                "next_attempt_at": row.next_at if row.status == "pending" else None,
                "finished_at": row.finished_at,
                "attempts": log.attempts,
            }
        )


class DeliveryPage(BaseModel):
    """Deliveries, newest first; `next_cursor` is null on the last page."""

    items: list[Delivery]
    next_cursor: uuid.UUID | None
