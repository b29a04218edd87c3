"""The history of scored texts."""

import uuid
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from valence_common.web.field_types import HexDigest, TextWithoutNul, Timestamp
from valence_inference.schemas.fields import Sentiment


class HistoryFilter(BaseModel):
    """A filter on the history; an entry must match all its fields."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    sentiment: Sentiment | None = None
    model: TextWithoutNul | None = Field(
        default=None, max_length=128, description="The model, as `name@version`."
    )
    since: Timestamp | None = Field(
        default=None, alias="from", description="Scored at or after this time."
    )
    until: Timestamp | None = Field(
        default=None, alias="to", description="Scored before this time."
    )
    q: TextWithoutNul | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="A part of the text, case-insensitive; matches nothing where texts are not"
        " stored.",
    )


class HistoryQuery(HistoryFilter):
    """A page of the filtered history."""

    limit: int = Field(default=20, ge=1, le=100, description="Maximum number of items.")
    cursor: str | None = Field(
        default=None, max_length=64, description="The `next_cursor` of the previous page."
    )


class HistoryItem(BaseModel):
    """A scored text."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    text: str | None = Field(description="Null where texts are not stored.")
    text_sha256: HexDigest = Field(
        validation_alias="text_hash",
        description="Where texts are not stored, the SHA-256 of the text's UTF-8 in hexadecimal.",
    )
    sentiment: Sentiment
    confidence: float
    low_confidence: bool
    model: str
    created_at: datetime


class HistoryPage(BaseModel):
    """Scored texts, newest first; `next_cursor` is null on the last page."""

    items: list[HistoryItem]
    next_cursor: str | None
