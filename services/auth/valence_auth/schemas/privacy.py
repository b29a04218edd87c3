"""What belongs to a user, as the document that they may take out; and the wish to be erased."""

import uuid
from datetime import date, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from valence_auth.schemas.accounts import User
from valence_common.models import BatchChunk, BatchResult
from valence_common.web.field_types import HexDigest

FORMAT = "valence-takeout-1"


class Erasure(BaseModel):
    """The password, once more; an account that has none leaves it out."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)

    password: str | None = Field(default=None, max_length=256, examples=["correct horse battery"])


class _Row(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class TakeoutProfile(User):
    """The account; the limits are those that differ from the plan's."""

    plan: str
    per_minute: int | None
    burst: int | None
    texts_per_day: int | None


class TakeoutSession(_Row):
    """A login, and where it came from."""

    id: uuid.UUID
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    ended_at: datetime | None
    address: str | None
    user_agent: str | None
    scopes: list[str]


class TakeoutKey(_Row):
    """An API key; nobody but its holder has its secret."""

    id: uuid.UUID
    name: str
    scopes: list[str]
    per_minute: int | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class TakeoutIdentity(_Row):
    """Who the user is to an OpenID provider."""

    id: uuid.UUID
    issuer: str
    subject: str
    created_at: datetime


class TakeoutUsage(_Row):
    """How much was asked for in a day (UTC), by API key (zeros for none) and route."""

    day: date
    key_id: uuid.UUID
    route: str
    requests: int
    texts: int


class TakeoutPrediction(_Row):
    """A text that was scored; where texts are not stored, its SHA-256."""

    id: uuid.UUID
    created_at: datetime
    text: str | None
    text_sha256: HexDigest = Field(validation_alias="text_hash")
    sentiment: str
    confidence: float
    low_confidence: bool
    model: str


class TakeoutBatch(_Row):
    """A batch, with the names of the columns of the file that it came in."""

    id: uuid.UUID
    status: str
    total: int
    priority: int
    format: str
    columns: list[str] | None
    text_column: int | None = Field(description="The place of the text among them, from 0.")
    webhook_url: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class TakeoutDelivery(_Row):
    """A webhook of a batch: which event was told, how often it was tried, whether it arrived."""

    id: uuid.UUID
    batch_id: uuid.UUID
    event: str
    status: str
    attempts: int
    created_at: datetime
    finished_at: datetime | None


class TakeoutWebhookSecret(_Row):
    """What webhooks are signed with; only its owner's receiver has its value."""

    id: uuid.UUID
    created_at: datetime
    expires_at: datetime | None


class TakeoutResult(_Row):
    """One text of a batch and its answer, if there is one yet."""

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
        description="What else stood in the text's row: cells in their order, or fields.",
    )

    @classmethod
    def of(
        cls, chunk: BatchChunk, index: int, text: str | None, answer: BatchResult | None
    ) -> "TakeoutResult":
        """A text of a chunk with what was answered."""
        result = cls(batch_id=chunk.batch_id, index=index, text=text, model=chunk.model)
        if chunk.rows is not None:
            result.cells = chunk.rows[index - chunk.start]
        if answer is not None:
            result.sentiment, result.confidence = answer.sentiment, answer.confidence
            result.low_confidence, result.error = answer.low_confidence, answer.error
        return result


class TakeoutEvent(_Row):
    """What the user did, or somebody did to the account (`by_you` is false)."""

    id: uuid.UUID
    created_at: datetime
    by_you: bool
    action: str
    subject_id: uuid.UUID | None
    details: dict[str, Any]


class Takeout(BaseModel):
    """All that belongs to a user; a document without its end is not complete."""

    format: str = Field(examples=[FORMAT])
    exported_at: datetime
    profile: TakeoutProfile
    sessions: list[TakeoutSession]
    api_keys: list[TakeoutKey]
    identities: list[TakeoutIdentity]
    usage: list[TakeoutUsage]
    history: list[TakeoutPrediction]
    audit_events: list[TakeoutEvent]
    webhook_secrets: list[TakeoutWebhookSecret]
    webhook_deliveries: list[TakeoutDelivery]
    batches: list[TakeoutBatch]
    batch_results: list[TakeoutResult]
