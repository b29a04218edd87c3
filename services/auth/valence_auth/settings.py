"""The settings of the auth service."""

from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from valence_common.security import MAX_LIFETIME_SECONDS
from valence_common.setting_types import LongSecret, SecureUrl
from valence_common.settings import WebSettings

MAX_BODY_BYTES: Final = 64 * 1024
"""The largest request body."""


def _with_openid(scopes: str) -> str:
    if "openid" not in scopes.split():
        raise ValueError("must name the scope openid")
    return scopes


class Settings(WebSettings):
    """The settings of auth, in addition to those of every web service."""

    access_token_seconds: int = Field(
        default=1800, ge=60, le=MAX_LIFETIME_SECONDS, description="Lifetime of an access token."
    )
    refresh_token_days: int = Field(
        default=30,
        ge=1,
        le=365,
        description="A session ends this long after its login, refreshed or not.",
    )
    session_idle_days: int = Field(
        default=14, ge=1, le=365, description="A session ends if it is not refreshed for this long."
    )
    login_attempts: PositiveInt = Field(
        default=5,
        description="Login attempts per window from one address to one account.",
    )
    login_address_attempts: PositiveInt = Field(
        default=30, description="Login attempts per window from one address to all accounts."
    )
    login_account_attempts: PositiveInt = Field(
        default=60,
        description="Login attempts per window to one account from all addresses; further"
        " attempts are slowed down to this rate.",
    )
    register_attempts: PositiveInt = Field(
        default=20, description="Registrations per window from one address."
    )
    login_window_seconds: PositiveInt = Field(
        default=60, description="Length of the windows for logins and registrations."
    )
    password_hashers: int = Field(
        default=0,
        ge=0,
        description="Password hashes computed at once; 0: one per CPU core, within the CPU limit.",
    )
    oidc_issuer: Annotated[SecureUrl, Field(max_length=512)] | None = Field(
        default=None,
        description="OpenID provider for logins, exactly as its discovery document names it"
        " (`docs/oidc.md`).",
    )
    oidc_client_id: str | None = Field(
        default=None, min_length=1, description="Client id of Valence at the provider."
    )
    oidc_client_secret: LongSecret | None = Field(
        default=None, description="Client secret of Valence at the provider (secret)."
    )
    oidc_scopes: Annotated[str, AfterValidator(_with_openid)] = Field(
        default="openid email profile", description="Scopes requested from the provider."
    )
    oidc_redirect_url: SecureUrl | None = Field(
        default=None,
        description="Public URL of `/api/v1/auth/oidc/callback`, as registered at the provider.",
    )

    @model_validator(mode="after")
    def _oidc_is_complete(self) -> Self:
        names = ("oidc_issuer", "oidc_client_id", "oidc_client_secret", "oidc_redirect_url")
        missing = [f"VALENCE_{name.upper()}" for name in names if getattr(self, name) is None]
        if 0 < len(missing) < len(names):
            raise ValueError(f"login with OpenID also needs {', '.join(missing)}")
        return self
