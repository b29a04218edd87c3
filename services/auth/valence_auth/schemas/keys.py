"""API keys as clients see them."""

import re
import uuid
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)

KeyScope = Literal["analyze", "batch", "history"]

_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]")


def _written_out(value: object) -> object:
    """pydantic also takes a bare number, or a day, for a time."""
    if value is not None and not (isinstance(value, str) and _TIME.match(value)):
        raise ValueError("must be an RFC 3339 time")
    return value


def _ahead(value: datetime) -> datetime:
    """The same moment in UTC, as Postgres takes it."""
    try:
        moment = value.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be before the year 10000 in UTC") from None
    if moment <= datetime.now(UTC):
        raise ValueError("must be in the future")
    return moment


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
    expires_at: (
        Annotated[
            AwareDatetime,
            Field(strict=False),
            BeforeValidator(_written_out),
            AfterValidator(_ahead),
        ]
        | None
    ) = Field(default=None, description="When it ends; by default when it is revoked.")
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


class KeyQuery(BaseModel):
    """Which page."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    limit: int = Field(default=20, ge=1, le=100)
    cursor: uuid.UUID | None = None


class KeyPage(BaseModel):
    """Newest first, without the revoked; `next_cursor` is null on the last page."""

    items: list[Key]
    next_cursor: uuid.UUID | None
