"""Types of settings: URLs, secrets, plans, and lists of hosts, networks and origins."""

import ipaddress
import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    IPvAnyNetwork,
    NonNegativeInt,
    PositiveInt,
    SecretStr,
)
from pydantic_settings import NoDecode
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

_PLACEHOLDERS = frozenset(
    {"", "changeme", "change-me", "change_me", "password", "placeholder", "secret", "todo", "xxx"}
)
MIN_SECRET = 12

DEFAULT_PLAN = "default"


class Plan(BaseModel):
    """The limits of a user; columns of the user's row override them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    per_minute: PositiveInt = 60
    burst: NonNegativeInt = 10
    texts_per_day: NonNegativeInt = 5_000_000


def _with_default_plan(plans: dict[str, Plan]) -> dict[str, Plan]:
    if DEFAULT_PLAN not in plans:
        raise ValueError(f"must hold the plan `{DEFAULT_PLAN}`")
    return plans


def _postgres_url(value: SecretStr) -> SecretStr:
    """Accept the usual schemes of a Postgres URL, and set the driver that we ship."""
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
        urlsplit(value.get_secret_value()).port  # noqa: B018 - raises for an invalid port
    except ValueError:
        raise ValueError("cannot be read as a URL; is its password percent-encoded?") from None
    return value


def _with_real_password(rest: str) -> str:
    credentials, at, _ = rest.rpartition("@")
    if at and credentials.partition(":")[2].strip().lower() in _PLACEHOLDERS:
        raise ValueError("holds an empty or placeholder password")
    return rest


def secure_url(url: str) -> str:
    """Return the URL; raise ValueError unless it is https, or http to this machine."""
    parts = urlsplit(url)
    if parts.username is not None or parts.fragment or "#" in url or not url.isprintable():
        raise ValueError("may not hold a user, a fragment or control characters")
    if not parts.hostname or " " in url:
        raise ValueError("must be a whole URL")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname)):
        raise ValueError("must begin with https:// (http:// only for this machine)")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _long_secret(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value()) < MIN_SECRET:
        raise ValueError(f"must be at least {MIN_SECRET} characters long")
    return secret


def _split(value: object) -> object:
    """Parse a comma-separated list."""
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
Plans = Annotated[dict[str, Plan], AfterValidator(_with_default_plan)]
LongSecret = Annotated[SecretStr, AfterValidator(_long_secret)]
SecureUrl = Annotated[str, AfterValidator(secure_url)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
