"""Webhooks as their owner sets them up: which URLs are taken, and the secrets that sign."""

import base64
import ipaddress
import secrets
import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple, NoReturn
from urllib.parse import urlsplit

from sqlalchemy import Select, delete, func, insert, or_, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from valence_common.audit import record
from valence_common.db import new_id
from valence_common.models import WebhookSecret
from valence_common.problems import FieldError, Forbidden, InvalidCredential, Unprocessable
from valence_common.security import Principal
from valence_common.ssrf import Address, Network, is_allowed

FIELD: Final = "webhook_url"
MAX_URL_CHARACTERS: Final = 2048
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what a secret begins with
SECRET_BYTES: Final = 32
GRACE_PERIOD: Final = timedelta(hours=24)
"""What a receiver has to learn a new secret, while the old one signs as well."""

MAX_SECRETS: Final = 5
"""Each makes every message longer; there is room for a few whose answer was lost."""

_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")


class Secret(NamedTuple):
    """A secret without its value: one that has an end was replaced, and signs until then."""

    id: uuid.UUID
    created_at: datetime
    expires_at: datetime | None


class LoginRequired(Forbidden):
    """Who holds the secret can speak for us to its owner's receiver: no program manages it."""

    detail = "Webhook secrets are managed with a login, not with an API key"


def check_url(
    url: str, *, enabled: bool, allow_http: bool, allowed_networks: Iterable[Network] = ()
) -> None:
    """Raise `Unprocessable` for a URL that no webhook could ever be sent to.

    What its name leads to is looked at when it is sent, since that can change.
    """
    if not enabled:
        _reject("not_enabled", "Webhooks are not enabled here; leave the field out")
    if len(url) > MAX_URL_CHARACTERS:
        _reject("too_long", f"The URL may have at most {MAX_URL_CHARACTERS} characters")
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        _reject("characters", "The URL must be printable ASCII: other names in their xn-- form")
    schemes = ("https", "http") if allow_http else ("https",)
    host = _host(url, schemes)
    if "@" in url.split("/")[2] or "#" in url:
        _reject("parts", "The URL may have neither a user's name nor a fragment")
    address = _ip_literal(host)
    if address is not None and not is_allowed(address, allowed_networks):
        _reject("address", "The URL's address is not public")


def require_secret(session: Session, user_id: uuid.UUID) -> None:
    """Raise `Unprocessable` unless the user has a secret: nothing is sent without a signature."""
    if not list_secrets(session, user_id):
        _reject("no_secret", "Make a secret first: POST /api/v1/webhooks/secret")


def require_login(principal: Principal) -> None:
    """Raise `OnlyLogins` for who acts through an API key."""
    if principal.session_id is None:
        raise LoginRequired


def create_secret(session: Session, user_id: uuid.UUID) -> tuple[Secret, str]:
    """A new secret, which nobody can show again; the one before it signs for `GRACE` more.

    So do those that are in their grace already: the newest may be one that nobody has seen, since
    its answer was lost. At most `MOST_SECRETS` live; beyond that the oldest ends now.
    """
    _lock(session, user_id)
    mine = WebhookSecret.user_id == user_id
    rotated = list_secrets(session, user_id)
    ends = func.now() + GRACE_PERIOD
    last = update(WebhookSecret).where(mine, WebhookSecret.expires_at.is_(None))
    session.execute(last.values(expires_at=ends))
    kept = [secret.id for secret in rotated[: MAX_SECRETS - 1]]
    session.execute(delete(WebhookSecret).where(mine, WebhookSecret.id.not_in(kept)))
    random = base64.urlsafe_b64encode(secrets.token_bytes(SECRET_BYTES)).decode().rstrip("=")
    value = SECRET_PREFIX + random
    made = Secret(new_id(), session.scalars(select(func.now())).one(), None)
    row = {**made._asdict(), "user_id": user_id, "secret": value}
    try:
        session.execute(insert(WebhookSecret), row)
    except IntegrityError as error:
        # The one reference of the row: the user is gone, and the token with them.
        raise InvalidCredential from error
    _audit(session, "rotated" if rotated else "created", user_id, made.id)
    return made, value


def list_secrets(session: Session, user_id: uuid.UUID) -> list[Secret]:
    """The secrets that sign, newest first, without their values."""
    rows = session.execute(_select_active(user_id).order_by(WebhookSecret.id.desc()))
    return [Secret(row.id, row.created_at, row.expires_at) for row in rows]


def delete_secrets(session: Session, user_id: uuid.UUID) -> None:
    """Delete all of a user's; what would be sent fails until there is a new one."""
    _lock(session, user_id)
    for secret in list_secrets(session, user_id):
        _audit(session, "deleted", user_id, secret.id)
    session.execute(delete(WebhookSecret).where(WebhookSecret.user_id == user_id))


def _host(url: str, schemes: Sequence[str]) -> str:
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.port != 0 else None
    except ValueError:  # a port that is no number, or brackets around no address
        host = None
    if not host or not url.startswith(tuple(f"{scheme}://" for scheme in schemes)):
        _reject("url", f"Must be an absolute URL that begins with {' or '.join(schemes)}://")
    return host


def _select_active(user_id: uuid.UUID) -> Select[uuid.UUID, datetime, datetime | None]:
    ends = WebhookSecret.expires_at
    columns = select(WebhookSecret.id, WebhookSecret.created_at, ends)
    return columns.where(WebhookSecret.user_id == user_id, or_(ends.is_(None), ends > func.now()))


def _lock(session: Session, user_id: uuid.UUID) -> None:
    """Let one request at a time change a user's secrets."""
    session.execute(_LOCK, {"name": f"valence.webhook_secrets.{user_id}"})


def _audit(session: Session, what: str, user_id: uuid.UUID, secret_id: uuid.UUID) -> None:
    action = f"webhook_secret.{what}"
    record(session, action, actor_id=user_id, user_id=user_id, subject_id=secret_id)


def _reject(rule: str, message: str) -> NoReturn:
    raise Unprocessable([FieldError(FIELD, rule, message)])


def _ip_literal(host: str) -> Address | None:
    """The address that a host is, if it is one; also refuses those that only look like numbers.

    `127.1`, `0x7f000001` and `2130706433` are all one address to the systems that look names up.
    """
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        last = host.rstrip(".").rpartition(".")[2]
        if last.isdigit() or last.startswith("0x"):
            _reject("address", "The URL's address is not written as one usually is")
        return None
