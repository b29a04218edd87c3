"""The data export, and the request to erase an account."""

import uuid
from datetime import date, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from valence_auth.schemas.accounts import User
from valence_common.models import BatchChunk, BatchResult
from valence_common.web.field_types import HexDigest

FORMAT = "valence-takeout-1"


class Erasure(BaseModel):
    """The current password; an account without one omits it."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)

    password: str | None = Field(default=None, max_length=256, examples=["correct horse battery"])


class _Row(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class ExportedProfile(User):
    """The account; the limits are those that override the plan."""

    plan: str
    per_minute: int | None
    burst: int | None
    texts_per_day: int | None


class ExportedSession(_Row):
    """A login session."""

    id: uuid.UUID
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    ended_at: datetime | None
    address: str | None
    user_agent: str | None
    scopes: list[str]


class ExportedKey(_Row):
    """An API key, whose secret is not stored."""

    id: uuid.UUID
    name: str
    scopes: list[str]
    per_minute: int | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class ExportedIdentity(_Row):
    """The user's identity at an OpenID provider."""

    id: uuid.UUID
    issuer: str
    subject: str
    created_at: datetime


class ExportedUsage(_Row):
    """The usage of one day (UTC), by API key (all zeros for none) and route."""

    day: date
    key_id: uuid.UUID
    route: str
    requests: int
    texts: int


class ExportedPrediction(_Row):
    """A scored text, or its SHA-256 if texts are not stored."""

    id: uuid.UUID
    created_at: datetime
    text: str | None
    text_sha256: HexDigest = Field(validation_alias="text_hash")
    sentiment: str
    confidence: float
    low_confidence: bool
    model: str


class ExportedBatch(_Row):
    """A batch, with the column names of its file."""

    id: uuid.UUID
    status: str
    total: int
    priority: int
    format: str
    columns: list[str] | None
    text_column: int | None = Field(description="Index of the text among the columns, from 0.")
    webhook_url: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class ExportedDelivery(_Row):
    """A webhook delivery of a batch: its event, attempts and status."""

    id: uuid.UUID
    batch_id: uuid.UUID
    event: str
    status: str
    attempts: int
    created_at: datetime
    finished_at: datetime | None


class ExportedWebhookSecret(_Row):
    """A secret that signs webhooks, without its value."""

    id: uuid.UUID
    created_at: datetime
    expires_at: datetime | None


class ExportedResult(_Row):
    """One text of a batch, with its result if there is one."""

    batch_id: uuid.UUID
    index: int
    text: str | None
    sentiment: str | None = None
    confidence: float | None = None
    low_confidence: bool | None = None
    model: str | None = None
    error: str | None = None
    cells: list[str] | dict[str, Any] | None = Field(
        default=None,
        description="The rest of the text's row: other cells in their order, or other fields.",
    )

    @classmethod
    def from_row(
        cls, chunk: BatchChunk, index: int, text: str | None, row: BatchResult | None
    ) -> "ExportedResult":
        """Return a text of a chunk with its result."""
        result = cls(batch_id=chunk.batch_id, index=index, text=text, model=chunk.model)
        if chunk.rows is not None:
            result.cells = chunk.rows[index - chunk.start]
        if row is not None:
            result.sentiment, result.confidence = row.sentiment, row.confidence
            result.low_confidence, result.error = row.low_confidence, row.error
        return result


class ExportedEvent(_Row):
    """An audit entry of the user (`by_you`), or of someone who acted on the account."""

    id: uuid.UUID
    created_at: datetime
    by_you: bool
    action: str
    subject_id: uuid.UUID | None
    details: dict[str, Any]


class DataExport(BaseModel):
    """Everything that belongs to a user; the document is complete if it is valid JSON."""

    format: str = Field(examples=[FORMAT])
    exported_at: datetime
    profile: ExportedProfile
    sessions: list[ExportedSession]
    api_keys: list[ExportedKey]
    identities: list[ExportedIdentity]
    usage: list[ExportedUsage]
    history: list[ExportedPrediction]
    audit_events: list[ExportedEvent]
    webhook_secrets: list[ExportedWebhookSecret]
    webhook_deliveries: list[ExportedDelivery]
    batches: list[ExportedBatch]
    batch_results: list[ExportedResult]
