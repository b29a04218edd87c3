"""API keys."""

import uuid
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from valence_common.web.field_types import Timestamp

KeyScope = Literal["analyze", "batch", "history"]


def _in_future(value: datetime) -> datetime:
    if value <= datetime.now(UTC):
        raise ValueError("must be in the future")
    return value


class KeyRequest(BaseModel):
    """A new API key."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)

    name: Annotated[
        str,
        StringConstraints(
            strip_whitespace=True,
            min_length=1,
            max_length=64,
            pattern=r"^[^\x00-\x1f\x7f-\x9f]+$",
        ),
    ] = Field(
        description="A name by which the owner recognises the key.", examples=["nightly import"]
    )
    scopes: Annotated[list[KeyScope], Field(min_length=1, max_length=3)] | None = Field(
        default=None, description="Scopes of the key; by default all that keys may have."
    )
    expires_at: Annotated[Timestamp, Field(strict=False), AfterValidator(_in_future)] | None = (
        Field(default=None, description="When the key expires; by default never.")
    )
    per_minute: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None,
        description="Analyses per minute with this key, in addition to the user's limit.",
    )


class Key(BaseModel):
    """An API key, without its secret."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    name: str
    scopes: list[KeyScope]
    per_minute: int | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class NewKey(Key):
    """A new API key; `key` is shown only in this response."""

    key: str = Field(description="Send it in `X-API-Key`, or as `Authorization: Bearer`.")


class KeyPage(BaseModel):
    """A page of unrevoked keys, newest first; `next_cursor` is null on the last one."""

    items: list[Key]
    next_cursor: uuid.UUID | None
