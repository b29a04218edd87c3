"""Settings that more than one service reads; each service adds only its own fields.

The environment (`VALENCE_*`) takes precedence over the files in `VALENCE_SECRETS_DIR`, one for each
secret, with the name of the variable in lower case. Values never appear in errors.
"""

import os
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as UnreadableError
from pydantic_settings.sources import SecretsSettingsSource

from valence_common.setting_types import (
    DEFAULT_PLAN,
    Hosts,
    Networks,
    Origins,
    Plan,
    Plans,
    PostgresUrl,
    RedisUrl,
)

PREFIX = "VALENCE_"
SECRETS_DIR = "VALENCE_SECRETS_DIR"


class SettingsError(Exception):
    """Start-up must stop; the message names every invalid setting, and no value."""


class DatabaseSettings(BaseSettings):
    """The settings of every process and of the migrations."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    database_url: PostgresUrl = Field(description="URL of Postgres (secret).")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the secrets folder that the environment names now, not at import time."""
        del dotenv_settings, file_secret_settings
        secrets = SecretsSettingsSource(settings_cls, secrets_dir=os.environ.get(SECRETS_DIR))
        return init_settings, env_settings, secrets


class MigrationSettings(DatabaseSettings):
    """The settings of the migrations, in addition to the database.

    Each named role is granted only what its service needs. Without names, all services use the role
    of `database_url`.
    """

    migrations_dir: Path = Field(
        default=Path("alembic"), description="Folder of the migration scripts."
    )
    schema_deadline_seconds: PositiveInt = Field(
        default=300,
        description="Timeout for Postgres, another pod's migration and this one together.",
    )
    auth_role: str | None = Field(
        default=None, min_length=1, description="Postgres role of the auth service."
    )
    inference_role: str | None = Field(
        default=None, min_length=1, description="Postgres role of the inference service."
    )
    worker_role: str | None = Field(
        default=None, min_length=1, description="Postgres role of the batch worker."
    )


class Settings(DatabaseSettings):
    """The settings of every service."""

    database_pool_size: PositiveInt = Field(
        default=5, description="Postgres connections per process; the pool does not overflow."
    )
    database_timeout_seconds: PositiveFloat = Field(
        default=2.2,
        description="Timeout of a request's transaction, including the wait for a connection.",
    )
    redis_url: RedisUrl = Field(description="URL of Redis or Valkey (secret).")
    redis_timeout_seconds: PositiveFloat = Field(
        default=0.2, description="Timeout of one Redis command; there are no retries."
    )
    internal_host: str = Field(
        default="127.0.0.1",
        description="Address that the internal port (probes and metrics) listens on.",
    )
    internal_port: int = Field(
        default=9090, ge=0, le=65535, description="Internal port: `/livez`, `/readyz`, `/metrics`."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Lowest severity that is logged."
    )
    log_format: Literal["json", "console"] = Field(
        default="json", description="`json` (one object per line) or `console` (coloured text)."
    )


class BatchSettings(Settings):
    """The settings that inference and the batch worker must share."""

    store_texts: bool = Field(
        default=True,
        description="Store texts. If off, the history stores their SHA-256, and the texts of a"
        " batch are deleted once they are scored.",
    )
    webhooks_enabled: bool = Field(
        default=False,
        description="Send webhooks when batches end (`docs/webhooks.md`).",
    )
    webhooks_allow_http: bool = Field(
        default=False, description="Allow a `webhook_url` without TLS."
    )
    webhooks_allowed_networks: Networks = Field(
        default=(),
        description="Private networks that webhooks may reach (CIDR, separated by commas).",
    )


class WebSettings(Settings):
    """The settings of a service with a public port, which verifies tokens."""

    host: str = Field(default="127.0.0.1", description="Address that the public port listens on.")
    port: int = Field(default=8000, ge=0, le=65535, description="The public port.")
    jwt_keyring_file: Path = Field(
        description="JSON file with the signing keys of access tokens (secret, mounted as a file)."
    )
    plans: Plans = Field(
        default={DEFAULT_PLAN: Plan()},
        description="JSON object of plans by name: analyses per minute, burst on top of them, texts"
        " per day. Users have the plan `default` unless an administrator sets another.",
    )
    trusted_proxies: Networks = Field(
        default=(),
        description="Networks (CIDR, separated by commas) of proxies whose `X-Forwarded-For` is"
        " trusted.",
    )
    allowed_hosts: Hosts = Field(
        default=(),
        description="Host names that are served (separated by commas; `*.example.com` matches all"
        " subdomains); by default any.",
    )
    cors_origins: Origins = Field(
        default=(),
        description="Origins whose pages may call from a browser (exact, separated by commas).",
    )
    body_timeout_seconds: PositiveFloat = Field(
        default=10.0, description="Longest pause within a request body before it is rejected."
    )
    drain_seconds: PositiveInt = Field(
        default=20, description="Time for requests in flight after SIGTERM."
    )


S = TypeVar("S", bound=DatabaseSettings)


def load(cls: type[S], *, alone: bool = True) -> S:
    """Read the settings of one process; raise `SettingsError` naming all that are invalid.

    With `alone` the environment belongs to this process only, so an unknown `VALENCE_*` name is an
    error.
    """
    known = {PREFIX + name.upper() for name in cls.model_fields} | {SECRETS_DIR}
    problems = [
        f"{name} is not a setting of this process"
        for name in sorted(os.environ)
        if alone and name.upper().startswith(PREFIX) and name.upper() not in known
    ]
    try:
        settings = cls()
    except ValidationError as error:
        problems += [_sentence(e["loc"], e["type"], e["msg"]) for e in error.errors()]
    except UnreadableError as error:
        problems.append(f"{SECRETS_DIR}: {error}")
    else:
        if not problems:
            return settings
    raise SettingsError("; ".join(problems))


def _sentence(loc: tuple[int | str, ...], kind: str, message: str) -> str:
    name = PREFIX + str(loc[0]).upper() if loc else "settings"
    if kind == "missing":
        return f"{name} is not set"
    return f"{name}: {message.removeprefix('Value error, ')}"
