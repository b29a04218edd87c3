"""Accounts and tokens as clients see them."""

import uuid
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from valence_auth.accounts import display_email, display_username
from valence_auth.passwords import weakness
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
    """A new account's names and password."""

    username: Username
    email: Email
    password: str = Field(
        description="8 to 256 bytes of UTF-8; common ones are refused.",
        examples=["correct horse battery"],
        max_length=256,
    )

    @model_validator(mode="after")
    def _password_is_strong(self) -> "Registration":
        if reason := weakness(self.password, self.username):
            raise ValueError(f"The password {reason}")
        return self


class Profile(_Request):
    """New names of an account; what is left out stays."""

    username: Username | None = None
    email: Email | None = None

    @model_validator(mode="after")
    def _changes_something(self) -> "Profile":
        if self.username is None and self.email is None:
            raise ValueError("Give a username, an e-mail address, or both")
        return self


class NewPassword(_Request):
    """Another password, and the one it replaces."""

    current_password: str
    new_password: str = Field(
        description="8 to 256 bytes of UTF-8; common ones are refused.", max_length=256
    )


class Refresh(_Request):
    """The refresh token of the last answer; it is good for one use."""

    refresh_token: str


class User(BaseModel):
    """An account as its owner sees it."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    email: str
    username: str
    is_active: bool
    is_superuser: bool
    created_at: datetime
    updated_at: datetime


class Tokens(BaseModel):
    """What a login or refresh gives; `expires_in` is the access token's lifetime in seconds."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - a scheme's name
    expires_in: int
    refresh_token: str


class Session(BaseModel):
    """A login session as its owner sees it; `current` is the one that asks."""

    id: uuid.UUID
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    address: str | None
    user_agent: str | None
    current: bool

    @classmethod
    def of(cls, login: LoginSession, *, current: uuid.UUID | None) -> "Session":
        """The session's row, told which session asks."""
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
    """Newest first; `next_cursor` is null on the last page."""

    items: list[Session]
    next_cursor: uuid.UUID | None
