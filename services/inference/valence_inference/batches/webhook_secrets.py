"""Webhook URLs and the secrets that sign webhooks, as users manage them."""

import base64
import ipaddress
import secrets
import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple, NoReturn
from urllib.parse import urlsplit

from sqlalchemy import Select, delete, func, insert, or_, select, update
from sqlalchemy.orm import Session

from valence_common.audit import record
from valence_common.db import new_id
from valence_common.models import WebhookSecret
from valence_common.postgres import lock, require_user
from valence_common.problems import FieldError, Forbidden, Unprocessable
from valence_common.security import Principal
from valence_common.ssrf import Address, Network, is_allowed

FIELD: Final = "webhook_url"
MAX_URL_CHARACTERS: Final = 2048
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - the prefix of every secret
SECRET_BYTES: Final = 32
"""Of the 24 to 64 that Standard Webhooks allows."""

GRACE_PERIOD: Final = timedelta(hours=24)
"""For this long after a rotation the old secret signs as well."""

MAX_SECRETS: Final = 5
"""Active secrets of a user: each adds a signature to every message."""


class Secret(NamedTuple):
    """A secret without its value; one with `expires_at` was replaced and signs until then."""

    id: uuid.UUID
    created_at: datetime
    expires_at: datetime | None


class LoginRequired(Forbidden):
    """Whoever has a secret can forge webhooks, so API keys cannot manage secrets."""

    detail = "Webhook secrets are managed with a login, not with an API key"


def check_url(
    url: str, *, enabled: bool, allow_http: bool, allowed_networks: Iterable[Network] = ()
) -> None:
    """Raise `Unprocessable` for a URL that no webhook can ever be sent to.

    The worker resolves and checks the host name at each delivery, because its address can change.
    """
    if not enabled:
        _reject("not_enabled", "Webhooks are not enabled here; leave the field out")
    if len(url) > MAX_URL_CHARACTERS:
        _reject("too_long", f"The URL may have at most {MAX_URL_CHARACTERS} characters")
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        _reject(
            "characters",
            "The URL must be printable ASCII; write other host names in their xn-- form",
        )
    schemes = ("https", "http") if allow_http else ("https",)
    host = _host(url, schemes)
    if "@" in url.split("/")[2] or "#" in url:
        _reject("parts", "The URL may have neither a user name nor a fragment")
    address = _ip_literal(host)
    if address is not None and not is_allowed(address, allowed_networks):
        _reject("address", "The URL's address is not public")


def require_secret(session: Session, user_id: uuid.UUID) -> None:
    """Raise `Unprocessable` unless the user has a secret: every webhook is signed."""
    if not list_secrets(session, user_id):
        _reject("no_secret", "Create a secret first: POST /api/v1/webhooks/secret")


def require_login(principal: Principal) -> None:
    """Raise `LoginRequired` for a request that uses an API key."""
    if principal.session_id is None:
        raise LoginRequired


def create_secret(session: Session, user_id: uuid.UUID) -> tuple[Secret, str]:
    """Create a secret and return it with its value, which cannot be read again.

    The previous secret signs for another `GRACE_PERIOD`, and those already in their grace period
    keep signing: the answer with the newest value may have been lost. At most `MAX_SECRETS` are
    active; beyond that the oldest are deleted.
    """
    lock(session, _lock_name(user_id))
    owned = WebhookSecret.user_id == user_id
    active = list_secrets(session, user_id)
    current = update(WebhookSecret).where(owned, WebhookSecret.expires_at.is_(None))
    session.execute(current.values(expires_at=func.now() + GRACE_PERIOD))
    keep = [secret.id for secret in active[: MAX_SECRETS - 1]]
    session.execute(delete(WebhookSecret).where(owned, WebhookSecret.id.not_in(keep)))
    value = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
    secret = Secret(new_id(), session.scalars(select(func.now())).one(), None)
    with require_user():
        session.execute(
            insert(WebhookSecret), {**secret._asdict(), "user_id": user_id, "secret": value}
        )
    _audit(session, "rotated" if active else "created", user_id, secret.id)
    return secret, value


def list_secrets(session: Session, user_id: uuid.UUID) -> list[Secret]:
    """Return the active secrets, newest first, without their values."""
    rows = session.execute(_select_active(user_id).order_by(WebhookSecret.id.desc()))
    return [Secret(row.id, row.created_at, row.expires_at) for row in rows]


def delete_secrets(session: Session, user_id: uuid.UUID) -> None:
    """Delete all secrets of a user; deliveries fail until there is a new one."""
    lock(session, _lock_name(user_id))
    for secret in list_secrets(session, user_id):
        _audit(session, "deleted", user_id, secret.id)
    session.execute(delete(WebhookSecret).where(WebhookSecret.user_id == user_id))


def _host(url: str, schemes: Sequence[str]) -> str:
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.port != 0 else None
    except ValueError:  # the port is not a number, or the brackets hold no address
        host = None
    if not host or not url.startswith(tuple(f"{scheme}://" for scheme in schemes)):
        _reject("url", f"Must be an absolute URL that begins with {' or '.join(schemes)}://")
    return host


def _select_active(user_id: uuid.UUID) -> Select[uuid.UUID, datetime, datetime | None]:
    expires_at = WebhookSecret.expires_at
    is_active = or_(expires_at.is_(None), expires_at > func.now())
    columns = select(WebhookSecret.id, WebhookSecret.created_at, expires_at)
    return columns.where(WebhookSecret.user_id == user_id, is_active)


def _lock_name(user_id: uuid.UUID) -> str:
    """Return the advisory lock under which one transaction at a time changes a user's secrets."""
    return f"valence.webhook_secrets.{user_id}"


def _audit(session: Session, verb: str, user_id: uuid.UUID, secret_id: uuid.UUID) -> None:
    record(session, f"webhook_secret.{verb}", user_id=user_id, subject_id=secret_id)


def _reject(rule: str, message: str) -> NoReturn:
    raise Unprocessable([FieldError(FIELD, rule, message)])


def _ip_literal(host: str) -> Address | None:
    """Return the host as an IP address, or None for a name; reject other spellings of addresses.

    Resolvers read `127.1`, `0x7f000001` and `2130706433` as the same address.
    """
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        last = host.rstrip(".").rpartition(".")[2]
        if last.isdigit() or last.startswith("0x"):
            _reject("address", "The URL's address must be in standard notation")
        return None
