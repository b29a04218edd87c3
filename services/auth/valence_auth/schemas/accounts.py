"""Accounts and tokens as clients see them."""

import uuid
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from valence_auth.accounts import display_email, display_username
from valence_auth.passwords import weakness


class Registration(BaseModel):
    """A new account's names and password."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)

    username: Annotated[str, Field(max_length=256), AfterValidator(display_username)] = Field(
        description="3 to 64 letters, digits, dots, underscores or hyphens; unique in any case.",
        examples=["ada"],
    )
    email: Annotated[str, Field(max_length=254), AfterValidator(display_email)] = Field(
        examples=["ada@example.com"]
    )
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
    """What a login gives; `expires_in` is the access token's lifetime in seconds."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - a scheme's name
    expires_in: int
    refresh_token: str
