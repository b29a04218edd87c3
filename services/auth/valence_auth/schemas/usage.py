"""Usage."""

import re
import uuid
from datetime import UTC, date, datetime
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from valence_auth.usage import MAX_DAYS
from valence_common.models import NO_KEY, Usage

DEFAULT_DAYS = 30


def _require_iso_date(value: object) -> object:
    """Reject numbers, which pydantic accepts as seconds."""
    if isinstance(value, str) and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value, re.ASCII):
        raise ValueError("must be a date, as 2026-01-31")
    return value


Day = Annotated[date, BeforeValidator(_require_iso_date)]


class UsageQuery(BaseModel):
    """A range of days (UTC, inclusive)."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    since: Day | None = Field(
        default=None, alias="from", description=f"By default {DEFAULT_DAYS} days before `to`."
    )
    until: Day | None = Field(default=None, alias="to", description="By default today.")
    limit: int = Field(default=200, ge=1, le=1000)
    cursor: str | None = Field(default=None, max_length=160)

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        since, until = self.days
        if not 0 <= (until - since).days < MAX_DAYS:
            raise ValueError(f"`from` to `to` must be 1 to {MAX_DAYS} days")
        return self

    @property
    def days(self) -> tuple[date, date]:
        """The first and the last day, with defaults."""
        until = self.until or datetime.now(UTC).date()
        # `date` has a lower bound.
        earliest = max(until.toordinal() - DEFAULT_DAYS + 1, 1)
        return self.since or date.fromordinal(earliest), until


class UsageRow(BaseModel):
    """The usage of one day by route and API key; `key_id` is null for logins."""

    day: date
    key_id: uuid.UUID | None
    route: str
    requests: int
    texts: int

    @classmethod
    def from_row(cls, row: Usage) -> Self:
        """Return a row as a schema."""
        return cls(
            day=row.day,
            key_id=None if row.key_id == NO_KEY else row.key_id,
            route=row.route,
            requests=row.requests,
            texts=row.texts,
        )


class UsagePage(BaseModel):
    """A page, oldest day first; `next_cursor` is null on the last one."""

    items: list[UsageRow]
    next_cursor: str | None
