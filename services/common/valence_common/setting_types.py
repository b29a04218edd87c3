"""How operators write settings: URLs of servers, and lists of hosts, networks and origins."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, IPvAnyNetwork, SecretStr
from pydantic_settings import NoDecode
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

_PLACEHOLDERS = frozenset(
    {"", "changeme", "change-me", "change_me", "password", "placeholder", "secret", "todo", "xxx"}
)


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
