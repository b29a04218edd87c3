"""API keys as clients see them."""

import uuid
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from valence_common.web.field_types import Timestamp

KeyScope = Literal["analyze", "batch", "history"]


def _ahead(value: datetime) -> datetime:
    if value <= datetime.now(UTC):
        raise ValueError("must be in the future")
    return value


class KeyRequest(BaseModel):
    """What a new key shall be called, and what it may do."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)

    name: Annotated[
        str,
        StringConstraints(
            strip_whitespace=True,
            min_length=1,
            max_length=64,
            pattern=r"^[^\x00-\x1f\x7f-\x9f]+$",
        ),
    ] = Field(description="For its owner to tell keys apart.", examples=["nightly import"])
    scopes: Annotated[list[KeyScope], Field(min_length=1, max_length=3)] | None = Field(
        default=None, description="What it may do; by default all that keys may."
    )
    expires_at: Annotated[Timestamp, Field(strict=False), AfterValidator(_ahead)] | None = Field(
        default=None, description="When it ends; by default when it is revoked."
    )
    per_minute: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="A limit of its own, below its owner's."
    )


class Key(BaseModel):
    """A key as it is listed: all but its secret."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    name: str
    scopes: list[KeyScope]
    per_minute: int | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class NewKey(Key):
    """A key that was just made; `key` is shown this once."""

    key: str = Field(description="Send it as `X-API-Key`, or as `Authorization: Bearer`.")


class KeyPage(BaseModel):
    """Newest first, without the revoked; `next_cursor` is null on the last page."""

    items: list[Key]
    next_cursor: uuid.UUID | None
