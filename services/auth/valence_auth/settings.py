"""The settings of the auth service."""

from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, PositiveInt, SecretStr, model_validator

from valence_auth.oidc.values import long_secret, secure_url, with_openid
from valence_common.security import MAX_LIFETIME_SECONDS
from valence_common.settings import WebSettings

MAX_BODY_BYTES: Final = 64 * 1024
"""The largest request body."""


class Settings(WebSettings):
    """What auth needs beyond any web service."""

    access_token_seconds: int = Field(
        default=1800, ge=60, le=MAX_LIFETIME_SECONDS, description="Lifetime of an access token."
    )
    refresh_token_days: int = Field(
        default=30, ge=1, le=365, description="Lifetime of a login session."
    )
    session_idle_days: int = Field(
        default=14, ge=1, le=365, description="A session that is not refreshed for this long ends."
    )
    login_attempts: PositiveInt = Field(
        default=5,
        description="Logins that one address may try for one account in a window.",
    )
    login_address_attempts: PositiveInt = Field(
        default=30, description="Logins that one address may try in a window, for any account."
    )
    login_account_attempts: PositiveInt = Field(
        default=60,
        description="Logins that may be tried for one account in a window, from everywhere;"
        " more are slowed down to this rate.",
    )
    register_attempts: PositiveInt = Field(
        default=20, description="Registrations that one address may try in a window."
    )
    login_window_seconds: PositiveInt = Field(
        default=60, description="Length of the windows of login and register."
    )
    password_hashers: int = Field(
        default=0, ge=0, description="Password hashes computed at once; 0 is one a core."
    )
    oidc_issuer: Annotated[str, Field(max_length=512), AfterValidator(secure_url)] | None = Field(
        default=None,
        description="OpenID provider that people may log in with, exactly as its discovery document"
        " names itself; by default there is none.",
    )
    oidc_client_id: str | None = Field(
        default=None, min_length=1, description="What the provider calls Valence."
    )
    oidc_client_secret: Annotated[SecretStr, AfterValidator(long_secret)] | None = Field(
        default=None, description="The provider's secret for Valence (secret)."
    )
    oidc_scopes: Annotated[str, AfterValidator(with_openid)] = Field(
        default="openid email profile", description="What is asked of the provider."
    )
    oidc_redirect_url: Annotated[str, AfterValidator(secure_url)] | None = Field(
        default=None,
        description="Public URL of `/api/v1/auth/oidc/callback`, as the provider knows it.",
    )

    @model_validator(mode="after")
    def _oidc_is_whole(self) -> Self:
        names = ("oidc_issuer", "oidc_client_id", "oidc_client_secret", "oidc_redirect_url")
        missing = [f"VALENCE_{name.upper()}" for name in names if getattr(self, name) is None]
        if 0 < len(missing) < len(names):
            raise ValueError(f"login with OpenID also needs {', '.join(missing)}")
        return self
