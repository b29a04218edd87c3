"""Settings that more than one service reads; each service extends these with only its own fields.

The environment (`VALENCE_*`) comes first, then files in `VALENCE_SECRETS_DIR`, one per secret,
named as the variable in lower case. Values never appear in errors.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as UnreadableError
from pydantic_settings.sources import SecretsSettingsSource
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

PREFIX = "VALENCE_"
SECRETS_DIR = "VALENCE_SECRETS_DIR"

_PLACEHOLDERS = frozenset(
    {"", "changeme", "change-me", "change_me", "password", "placeholder", "secret", "todo", "xxx"}
)


class SettingsError(Exception):
    """Start-up must stop: the message names every setting that is wrong, and no value."""


def _postgres_url(value: SecretStr) -> SecretStr:
    """Accept the usual spellings of a Postgres URL and name the driver that we ship."""
    scheme, separator, rest = value.get_secret_value().partition("://")
    if not separator or scheme not in {"postgres", "postgresql", "postgresql+psycopg2"}:
        raise ValueError("must be a postgresql:// URL")
    url = f"postgresql+psycopg2://{_with_real_password(rest)}"
    try:
        make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError("cannot be read as a URL; is its password percent-encoded?") from None
    return SecretStr(url)


def _redis_url(value: SecretStr) -> SecretStr:
    scheme, separator, rest = value.get_secret_value().partition("://")
    if not separator or scheme not in {"redis", "rediss"}:
        raise ValueError("must be a redis:// or rediss:// URL")
    _with_real_password(rest)
    try:
        urlsplit(value.get_secret_value()).port  # noqa: B018 - what it raises is the question
    except ValueError:
        raise ValueError("cannot be read as a URL; is its password percent-encoded?") from None
    return value


def _with_real_password(rest: str) -> str:
    credentials, at, _ = rest.rpartition("@")
    if at and credentials.partition(":")[2].strip().lower() in _PLACEHOLDERS:
        raise ValueError("holds an empty or placeholder password")
    return rest


def _split(value: object) -> object:
    """A list as people write it in an environment: commas between."""
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())


_ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:\d{1,5})?")
_HOST = re.compile(r"\[[0-9a-f:.]+\]|(\*\.)?[a-z0-9_-][a-z0-9._-]*")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def _origins(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        match = _ORIGIN.fullmatch(value)
        if match is None or match[2] == _DEFAULT_PORTS[value.partition(":")[0]]:
            raise ValueError(
                "must name each origin as a browser sends it (https://app.example.com: lower case,"
                " no path, no default port) and none by `*`"
            )
    return values


def _hosts(values: tuple[str, ...]) -> tuple[str, ...]:
    if not all(_HOST.fullmatch(value) for value in values):
        raise ValueError(
            "must hold host names in lower case without a port, or `*.example.com` for all below"
            " one (empty serves any host)"
        )
    return values


Hosts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split), AfterValidator(_hosts)]
Networks = Annotated[tuple[IPvAnyNetwork, ...], NoDecode, BeforeValidator(_split)]
Origins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split), AfterValidator(_origins)]
PostgresUrl = Annotated[SecretStr, AfterValidator(_postgres_url)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]


class DatabaseSettings(BaseSettings):
    """What a migration needs to know, and every process of Valence with it."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    database_url: PostgresUrl = Field(description="Postgres, the truth (secret).")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the secrets folder that the environment names now, not the one at import time."""
        del dotenv_settings, file_secret_settings
        secrets = SecretsSettingsSource(settings_cls, secrets_dir=os.environ.get(SECRETS_DIR))
        return init_settings, env_settings, secrets


class MigrationSettings(DatabaseSettings):
    """What bringing the schema up, or waiting for it, needs beyond the database.

    A role that is named gets what its service's code needs and no more; where one role does all,
    none is named.
    """

    migrations_dir: Path = Field(
        default=Path("alembic"), description="Folder of the migration history."
    )
    schema_deadline_seconds: PositiveInt = Field(
        default=300, description="Longest wait for Postgres, another pod's migration and our own."
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
    """What every service needs to know."""

    database_pool_size: PositiveInt = Field(
        default=5, description="Connections that one process may hold; there is no overflow."
    )
    database_timeout_seconds: PositiveFloat = Field(
        default=2.2, description="Longest time a request may wait for Postgres, queueing included."
    )
    redis_url: RedisUrl = Field(description="Redis or Valkey: doorbell, limits, cache (secret).")
    redis_timeout_seconds: PositiveFloat = Field(
        default=0.2, description="Longest wait for one Redis command, without retries."
    )
    internal_host: str = Field(
        default="127.0.0.1", description="Address of the internal port (probes and metrics)."
    )
    internal_port: int = Field(
        default=9090, ge=0, le=65535, description="Internal port: /livez, /readyz, /metrics."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least severity that is logged."
    )
    log_format: Literal["json", "console"] = Field(
        default="json", description="One JSON object a line, or coloured text for people."
    )


class Plan(BaseModel):
    """How much a user may ask for; single users' rows can say otherwise."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    per_minute: PositiveInt = 60
    burst: NonNegativeInt = 10
    texts_per_day: NonNegativeInt = 5_000_000


DEFAULT_PLAN = "default"


def _with_default(plans: dict[str, Plan]) -> dict[str, Plan]:
    if DEFAULT_PLAN not in plans:
        raise ValueError(f"must hold the plan `{DEFAULT_PLAN}`")
    return plans


class WebSettings(Settings):
    """What a service needs that faces the public and checks tokens."""

    host: str = Field(default="127.0.0.1", description="Address that the public port listens on.")
    port: int = Field(default=8000, ge=0, le=65535, description="The public port.")
    jwt_keyring_file: Path = Field(
        description="JSON file with the keys that sign access tokens (secret, mounted as a file)."
    )
    plans: Annotated[dict[str, Plan], AfterValidator(_with_default)] = Field(
        default={DEFAULT_PLAN: Plan()},
        description="JSON: analyses a minute, how many more at once, and texts a day, by the plan's"
        " name; users have the plan `default` unless an administrator gives them another.",
    )
    trusted_proxies: Networks = Field(
        default=(),
        description="Networks (CIDR, with commas between) of the proxies whose `X-Forwarded-For`"
        " is believed; by default none is.",
    )
    allowed_hosts: Hosts = Field(
        default=(),
        description="Hosts that are served (commas between, `*.example.com` for all below one);"
        " by default any.",
    )
    cors_origins: Origins = Field(
        default=(),
        description="Origins whose pages may call from a browser (commas between, each exact);"
        " by default none.",
    )
    body_timeout_seconds: PositiveFloat = Field(
        default=10.0, description="A request body that pauses for longer than this is given up."
    )
    drain_seconds: PositiveInt = Field(
        default=20, description="Time that requests in flight get after SIGTERM."
    )


S = TypeVar("S", bound=DatabaseSettings)


def load(cls: type[S], *, alone: bool = True) -> S:
    """Read the settings of one process, or raise `SettingsError` naming all that is wrong.

    `alone` says that the environment is this process's own, so that a `VALENCE_*` name it does not
    know is an error.
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
