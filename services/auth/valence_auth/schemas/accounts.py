"""Accounts, tokens and sessions."""

import uuid
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from valence_auth.accounts import display_email, display_username
from valence_auth.passwords import password_error
from valence_common.models import LoginSession

Username = Annotated[
    str,
    Field(
        max_length=256,
        description="3 to 64 letters, digits, dots, underscores or hyphens; unique in any case.",
        examples=["ada"],
    ),
    AfterValidator(display_username),
]
Email = Annotated[
    str, Field(max_length=254, examples=["ada@example.com"]), AfterValidator(display_email)
]


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)


class Registration(_Request):
    """A new account."""

    username: Username
    email: Email
    password: str = Field(
        description="8 to 256 bytes of UTF-8; common passwords are rejected.",
        examples=["correct horse battery"],
        max_length=256,
    )

    @model_validator(mode="after")
    def _check_password(self) -> "Registration":
        if reason := password_error(self.password, self.username):
            raise ValueError(f"The password {reason}")
        return self


class Profile(_Request):
    """Changes of a profile; omitted fields stay unchanged."""

    username: Username | None = None
    email: Email | None = None

    @model_validator(mode="after")
    def _require_a_change(self) -> "Profile":
        if self.username is None and self.email is None:
            raise ValueError("Give a username, an e-mail address, or both")
        return self


class NewPassword(_Request):
    """A new password, and the one that it replaces."""

    current_password: str
    new_password: str = Field(
        description="8 to 256 bytes of UTF-8; common passwords are rejected.", max_length=256
    )


class Refresh(_Request):
    """A refresh token, which can be used once."""

    refresh_token: str


class User(BaseModel):
    """An account."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    email: str
    username: str
    is_active: bool
    is_superuser: bool
    created_at: datetime
    updated_at: datetime


class Tokens(BaseModel):
    """Access and refresh token; `expires_in` is the access token's lifetime in seconds."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - the name of a scheme
    expires_in: int
    refresh_token: str


class Session(BaseModel):
    """A login session; `current` marks that of this request."""

    id: uuid.UUID
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    address: str | None
    user_agent: str | None
    current: bool

    @classmethod
    def from_row(cls, login: LoginSession, *, current: uuid.UUID | None) -> "Session":
        """Return a session's row as a schema; `current` is the id of this request's session."""
        return cls(
            id=login.id,
            created_at=login.created_at,
            last_used_at=login.last_used_at,
            expires_at=login.expires_at,
            address=login.address,
            user_agent=login.user_agent,
            current=login.id == current,
        )


class SessionPage(BaseModel):
    """A page, newest first; `next_cursor` is null on the last one."""

    items: list[Session]
    next_cursor: uuid.UUID | None
