"""What the settings of a provider may hold: over its URLs passes what is as good as a password."""

import ipaddress
from urllib.parse import urlsplit

from pydantic import SecretStr

MIN_SECRET = 12


def secure_url(url: str) -> str:
    """The URL itself; raises ValueError unless it is https, or http to this very machine."""
    parts = urlsplit(url)
    if parts.username is not None or parts.fragment or "#" in url or not url.isprintable():
        raise ValueError("may not hold a user, a fragment or control characters")
    if not parts.hostname or " " in url:
        raise ValueError("must be a whole URL")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname)):
        raise ValueError("must begin with https:// (http:// only for this machine)")
    return url


def long_secret(secret: SecretStr) -> SecretStr:
    """The secret itself; raises ValueError for one that no provider would make."""
    if len(secret.get_secret_value()) < MIN_SECRET:
        raise ValueError(f"must be at least {MIN_SECRET} characters long")
    return secret


def with_openid(scopes: str) -> str:
    """The scopes themselves; raises ValueError when they do not ask for a login."""
    if "openid" not in scopes.split():
        raise ValueError("must name the scope openid")
    return scopes


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
