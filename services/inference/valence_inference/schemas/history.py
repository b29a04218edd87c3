"""The history: which part of it, and what stands in it."""

import uuid
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from valence_common.web.field_types import HexDigest, TextWithoutNul, Timestamp
from valence_inference.schemas.fields import Sentiment


class HistoryFilter(BaseModel):
    """Which part of the history; all that is given must match."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    sentiment: Sentiment | None = None
    model: TextWithoutNul | None = Field(
        default=None, max_length=128, description="`name@version`."
    )
    since: Timestamp | None = Field(default=None, alias="from", description="Included.")
    until: Timestamp | None = Field(default=None, alias="to", description="Not included.")
    q: TextWithoutNul | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Part of the text, in any case; finds nothing where texts are not stored.",
    )


class HistoryQuery(HistoryFilter):
    """Which page of which part of the history."""

    limit: int = Field(default=20, ge=1, le=100)
    cursor: str | None = Field(default=None, max_length=64)


class HistoryItem(BaseModel):
    """A text that was scored."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    text: str | None = Field(description="Null where texts are not stored.")
    text_sha256: HexDigest = Field(
        validation_alias="text_hash",
        description="In its place, the SHA-256 of its UTF-8 in hexadecimal.",
    )
    sentiment: Sentiment
    confidence: float
    low_confidence: bool
    model: str
    created_at: datetime


class HistoryPage(BaseModel):
    """Newest first; `next_cursor` is null on the last page."""

    items: list[HistoryItem]
    next_cursor: str | None
