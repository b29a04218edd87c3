"""Administration as clients see it."""

import uuid
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from valence_auth.admin import Record
from valence_auth.schemas.accounts import User
from valence_auth.schemas.usage import UsageQuery, UsageRow
from valence_common.models import Usage
from valence_common.web.field_types import TextWithoutNul, Timestamp
from valence_common.web.pagination import PageQuery

_CLOSED = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)
MOST = 1_000_000_000


class UserQuery(PageQuery):
    """Which users; all that is given must match."""

    q: TextWithoutNul | None = Field(
        default=None,
        min_length=1,
        max_length=254,
        description="Part of the username or e-mail address.",
    )
    is_active: bool | None = None
    is_superuser: bool | None = None


class AuditQuery(PageQuery):
    """Which events; all that is given must match."""

    actor: uuid.UUID | None = Field(default=None, description="The id of who did it.")
    subject: uuid.UUID | None = Field(default=None, description="The id of what it was done to.")
    action: TextWithoutNul | None = Field(
        default=None, min_length=1, max_length=64, description="Such as `user.disabled`."
    )
    since: Timestamp | None = Field(default=None, alias="from", description="Included.")
    until: Timestamp | None = Field(default=None, alias="to", description="Not included.")


class Change(BaseModel):
    """What an account may do from now on; what is left out, or null, stays."""

    model_config = _CLOSED

    is_active: bool | None = None
    is_superuser: bool | None = None


class Limits(BaseModel):
    """A user's plan, and what overrides it; null follows the plan."""

    model_config = ConfigDict(**_CLOSED, from_attributes=True)

    plan: str = Field(max_length=32, examples=["default"])
    per_minute: Annotated[int, Field(ge=1, le=MOST)] | None
    burst: Annotated[int, Field(ge=0, le=MOST)] | None
    texts_per_day: Annotated[int, Field(ge=0, le=1000 * MOST)] | None


class UserPage(BaseModel):
    """Newest first; `next_cursor` is null on the last page."""

    items: list[User]
    next_cursor: uuid.UUID | None


class UserRecord(User):
    """An account as administrators see it."""

    limits: Limits
    live_sessions: NonNegativeInt = Field(description="Login sessions that have not ended.")
    live_keys: NonNegativeInt = Field(description="API keys neither revoked nor expired.")

    @classmethod
    def of(cls, record: Record) -> Self:
        """Say it as the wire does."""
        user = User.model_validate(record.user)
        return cls(
            **user.model_dump(),
            limits=Limits.model_validate(record.user),
            live_sessions=record.live_sessions,
            live_keys=record.live_keys,
        )


class Event(BaseModel):
    """One line of the audit log; without `actor_id`, a command or the system did it."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    created_at: datetime
    actor_id: uuid.UUID | None
    action: str
    subject_id: uuid.UUID | None
    details: dict[str, Any]


class AuditPage(BaseModel):
    """Newest first; `next_cursor` is null on the last page."""

    items: list[Event]
    next_cursor: uuid.UUID | None


class AdminUsageQuery(UsageQuery):
    """Which days (UTC) of whom; both ends are included."""

    user: uuid.UUID | None = Field(default=None, description="The id of one user.")


class AdminUsageRow(UsageRow):
    """One day's requests of one user to one route through one API key."""

    user_id: uuid.UUID

    @classmethod
    def of(cls, row: Usage) -> Self:
        """Say it as the wire does."""
        return cls(user_id=row.user_id, **UsageRow.of(row).model_dump())


class AdminUsagePage(BaseModel):
    """Oldest day first; `next_cursor` is null on the last page."""

    items: list[AdminUsageRow]
    next_cursor: str | None
