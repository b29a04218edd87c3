"""Users, audit log and usage for administrators."""

import uuid
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from valence_auth.admin import UserDetails
from valence_auth.schemas.accounts import User
from valence_auth.schemas.usage import UsageQuery, UsageRow
from valence_common.models import Usage
from valence_common.web.field_types import TextWithoutNul, Timestamp
from valence_common.web.pagination import PageQuery

_STRICT = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)
MAX_LIMIT = 1_000_000_000


class UserQuery(PageQuery):
    """A filter of users; all given parameters must match."""

    q: TextWithoutNul | None = Field(
        default=None,
        min_length=1,
        max_length=254,
        description="Part of the username or e-mail address, in any case.",
    )
    is_active: bool | None = None
    is_superuser: bool | None = None


class AuditQuery(PageQuery):
    """A filter of audit entries; all given parameters must match."""

    actor: uuid.UUID | None = Field(default=None, description="Id of the user who did it.")
    subject: uuid.UUID | None = Field(
        default=None, description="Id of the user, key or session that it was done to."
    )
    action: TextWithoutNul | None = Field(
        default=None, min_length=1, max_length=64, description="An action, such as `user.disabled`."
    )
    since: Timestamp | None = Field(
        default=None, alias="from", description="Earliest time (inclusive)."
    )
    until: Timestamp | None = Field(
        default=None, alias="to", description="Latest time (exclusive)."
    )


class Change(BaseModel):
    """Changes of a user's rights; omitted or null fields stay unchanged."""

    model_config = _STRICT

    is_active: bool | None = None
    is_superuser: bool | None = None


class Limits(BaseModel):
    """A user's plan, and limits that override it; null means that of the plan."""

    model_config = ConfigDict(**_STRICT, from_attributes=True)

    plan: str = Field(max_length=32, examples=["default"])
    per_minute: Annotated[int, Field(ge=1, le=MAX_LIMIT)] | None
    burst: Annotated[int, Field(ge=0, le=MAX_LIMIT)] | None
    texts_per_day: Annotated[int, Field(ge=0, le=1000 * MAX_LIMIT)] | None


class UserPage(BaseModel):
    """A page, newest first; `next_cursor` is null on the last one."""

    items: list[User]
    next_cursor: uuid.UUID | None


class UserRecord(User):
    """A user as administrators see them."""

    limits: Limits
    live_sessions: NonNegativeInt = Field(
        description="Number of login sessions that have not ended."
    )
    live_keys: NonNegativeInt = Field(
        description="Number of API keys that are neither revoked nor expired."
    )

    @classmethod
    def from_details(cls, details: UserDetails) -> Self:
        """Return a user's details as a schema."""
        user = User.model_validate(details.user)
        return cls(
            **user.model_dump(),
            limits=Limits.model_validate(details.user),
            live_sessions=details.live_sessions,
            live_keys=details.live_keys,
        )


class Event(BaseModel):
    """An audit entry; without `actor_id`, an operator or the system did it."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    created_at: datetime
    actor_id: uuid.UUID | None
    action: str
    subject_id: uuid.UUID | None
    details: dict[str, Any]


class AuditPage(BaseModel):
    """A page, newest first; `next_cursor` is null on the last one."""

    items: list[Event]
    next_cursor: uuid.UUID | None


class AdminUsageQuery(UsageQuery):
    """A range of days (UTC, inclusive) and a user."""

    user: uuid.UUID | None = Field(default=None, description="Id of one user; by default all.")


class AdminUsageRow(UsageRow):
    """The usage of one user on one day, by route and API key."""

    user_id: uuid.UUID

    @classmethod
    def from_row(cls, row: Usage) -> Self:
        """Return a row as a schema."""
        return cls(user_id=row.user_id, **UsageRow.from_row(row).model_dump())


class AdminUsagePage(BaseModel):
    """A page, oldest day first; `next_cursor` is null on the last one."""

    items: list[AdminUsageRow]
    next_cursor: str | None
