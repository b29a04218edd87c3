"""Webhooks: the secrets that sign them, and the log of what was sent."""

import uuid
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from valence_inference.batches.deliveries import DeliveryLog


class Secret(BaseModel):
    """A secret that signs; one that has an end was replaced."""

    id: uuid.UUID
    created_at: datetime
    expires_at: datetime | None


class NewSecret(Secret):
    """A secret that was just made; `secret` is shown this once."""

    secret: str = Field(
        description="The signing secret by Standard Webhooks: `whsec_` and the key in Base64."
    )


class SecretPage(BaseModel):
    """At most five, newest first."""

    items: list[Secret]
    next_cursor: None = None


class Attempt(BaseModel):
    """One attempt: the receiver's status, or the word for why there was none."""

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
    """One message; the receiver knows it by its id."""

    id: uuid.UUID
    event: str
    status: Literal["pending", "delivered", "failed"]
    created_at: datetime
    next_attempt_at: datetime | None = Field(description="Null once it is over.")
    finished_at: datetime | None
    attempts: list[Attempt]

    @classmethod
    def from_log(cls, log: DeliveryLog) -> "Delivery":
        """Say it as the wire does."""
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
    """Newest first; `next_cursor` is null on the last page."""

    items: list[Delivery]
    next_cursor: uuid.UUID | None
