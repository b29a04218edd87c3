"""API keys as their owner sees them: made, listed, rotated, revoked; never read again."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from valence_auth import accounts
from valence_common import api_keys, revocations
from valence_common.audit import record
from valence_common.db import new_id
from valence_common.models import ApiKey, User
from valence_common.problems import Conflict, InsufficientScope, NotFound
from valence_common.security import ADMIN, SCOPES, Principal
from valence_common.web import pagination

MOST_LIVE: Final = 50
KEY_SCOPES: Final = tuple(scope for scope in SCOPES if scope != ADMIN)


class KeyNotFound(NotFound):
    """No key of that id belongs to the user, or it is revoked."""

    detail = "API key not found"


class TooManyKeys(Conflict):
    """The user has all the keys that one may have."""

    detail = f"An account may have {MOST_LIVE} live API keys; revoke one first"


class KeyExpired(Conflict):
    """A key that has ended cannot be rotated: the new one would end with it."""

    detail = "The API key has expired; make a new one"


class Made(NamedTuple):
    """A new key: its row, and the key itself, which nobody can show again."""

    row: ApiKey
    key: str


def create(
    session: Session,
    principal: Principal,
    *,
    name: str,
    scopes: Sequence[str] | None,
    expires_at: datetime | None,
    per_minute: int | None,
) -> Made:
    """Make a key for some of the session's scopes, by default for all that keys may have."""
    _lock_owner(session, principal.user_id)
    _check_scopes(principal, scopes or ())
    if not scopes:
        scopes = [scope for scope in KEY_SCOPES if scope in principal.scopes]
    made = _make(
        session,
        ApiKey(
            user_id=principal.user_id,
            name=name,
            scopes=sorted(set(scopes)),
            expires_at=expires_at,
            per_minute=per_minute,
        ),
    )
    _audit(session, "key.created", made.row, scopes=made.row.scopes)
    return made


def page(
    session: Session, user_id: uuid.UUID, *, limit: int, cursor: uuid.UUID | None
) -> tuple[Sequence[ApiKey], uuid.UUID | None]:
    """Up to `limit` keys that are not revoked, newest first, and where the next page begins."""
    unrevoked = [ApiKey.user_id == user_id, ApiKey.revoked_at.is_(None)]
    return pagination.newest_first(session, ApiKey, unrevoked, limit=limit, cursor=cursor)


def count(session: Session, user_id: uuid.UUID) -> int:
    """How many keys of a user are neither revoked nor expired."""
    unexpired = or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now())
    query = select(func.count()).where(
        ApiKey.user_id == user_id, ApiKey.revoked_at.is_(None), unexpired
    )
    return session.execute(query).scalar_one()


def revoke(session: Session, user_id: uuid.UUID, key_id: uuid.UUID) -> None:
    """End a key for good, everywhere within seconds."""
    row = _own(session, user_id, key_id)
    _end(session, row)
    _audit(session, "key.revoked", row)


def rotate(session: Session, principal: Principal, key_id: uuid.UUID, *, grace: timedelta) -> Made:
    """Trade a key for one that may do the same for as long; the old one ends after `grace`."""
    user_id = principal.user_id
    _lock_owner(session, user_id)
    old, now = _own(session, user_id, key_id), datetime.now(UTC)
    if old.expires_at is not None and old.expires_at <= now:
        raise KeyExpired
    # Whoever rotates sees the new key: it may do no more than they may.
    _check_scopes(principal, old.scopes)
    new = ApiKey(
        user_id=user_id,
        name=old.name,
        scopes=old.scopes,
        expires_at=old.expires_at,
        per_minute=old.per_minute,
    )
    if grace:
        old.expires_at = min(now + grace, old.expires_at or datetime.max.replace(tzinfo=UTC))
        # News of the key would end it; news of its owner makes everybody read it again.
        revocations.revoke(session, [user_id])
    else:
        _end(session, old)
    made = _make(session, new)
    _audit(session, "key.rotated", old, to=str(made.row.id))
    return made


def _check_scopes(principal: Principal, scopes: Sequence[str]) -> None:
    """Raise `InsufficientScope` unless the session has all of these."""
    missing = set(scopes) - principal.scopes
    if missing:
        raise InsufficientScope(min(missing))


def _make(session: Session, row: ApiKey) -> Made:
    """Store a new key, if its owner has room for one; the owner is locked."""
    if count(session, row.user_id) >= MOST_LIVE:
        raise TooManyKeys
    row.id = new_id()
    key, row.secret_hash = api_keys.make(row.id)
    session.add(row)
    session.flush()
    return Made(row, key)


def _own(session: Session, user_id: uuid.UUID, key_id: uuid.UUID) -> ApiKey:
    row = session.get(ApiKey, key_id, with_for_update=True)
    if row is None or row.user_id != user_id or row.revoked_at is not None:
        raise KeyNotFound
    return row


def _end(session: Session, row: ApiKey) -> None:
    row.revoked_at = datetime.now(UTC)
    revocations.revoke(session, [row.id])


def _lock_owner(session: Session, user_id: uuid.UUID) -> None:
    """Let one request at a time count and make keys; raises `InvalidCredential` for nobody."""
    session.get(User, user_id, with_for_update={"key_share": True})
    accounts.current(session, user_id)


def _audit(session: Session, action: str, row: ApiKey, **details: object) -> None:
    record(
        session,
        action,
        actor_id=row.user_id,
        user_id=row.user_id,
        subject_id=row.id,
        details=details,
    )
