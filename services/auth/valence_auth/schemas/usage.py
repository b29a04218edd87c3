"""Usage as clients see it."""

import re
import uuid
from datetime import UTC, date, datetime
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from valence_auth.usage import MOST_DAYS
from valence_common.models import NO_KEY, Usage

DEFAULT_DAYS = 30


def _written_out(value: object) -> object:
    """pydantic also takes a number of seconds for a day; a URL may not be that ambiguous."""
    if isinstance(value, str) and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value, re.ASCII):
        raise ValueError("must be a date, as 2026-01-31")
    return value


Day = Annotated[date, BeforeValidator(_written_out)]


class UsageQuery(BaseModel):
    """Which days (UTC); both ends are included."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    since: Day | None = Field(
        default=None, alias="from", description=f"By default {DEFAULT_DAYS} days before `to`."
    )
    until: Day | None = Field(default=None, alias="to", description="By default today.")
    limit: int = Field(default=200, ge=1, le=1000)
    cursor: str | None = Field(default=None, max_length=160)

    @model_validator(mode="after")
    def _some_days(self) -> Self:
        since, until = self.days
        if not 0 <= (until - since).days < MOST_DAYS:
            raise ValueError(f"`from` to `to` must be 1 to {MOST_DAYS} days")
        return self

    @property
    def days(self) -> tuple[date, date]:
        """The first and the last day."""
        until = self.until or datetime.now(UTC).date()
        # A date has a first one: the years before it hold no usage.
        earliest = max(until.toordinal() - DEFAULT_DAYS + 1, 1)
        return self.since or date.fromordinal(earliest), until


class UsageRow(BaseModel):
    """One day's requests to one route through one API key; without `key_id`, through logins."""

    day: date
    key_id: uuid.UUID | None
    route: str
    requests: int
    texts: int

    @classmethod
    def of(cls, row: Usage) -> Self:
        """Say it as the wire does."""
        return cls(
            day=row.day,
            key_id=None if row.key_id == NO_KEY else row.key_id,
            route=row.route,
            requests=row.requests,
            texts=row.texts,
        )


class UsagePage(BaseModel):
    """Oldest day first; `next_cursor` is null on the last page."""

    items: list[UsageRow]
    next_cursor: str | None
