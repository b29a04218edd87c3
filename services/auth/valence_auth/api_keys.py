"""API keys for their owner: create, list, rotate and revoke; a key itself is shown only once."""

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

MAX_LIVE: Final = 50
KEY_SCOPES: Final = tuple(scope for scope in SCOPES if scope != ADMIN)


class KeyNotFound(NotFound):
    """The user has no unrevoked key with that id."""

    detail = "API key not found"


class TooManyKeys(Conflict):
    """The user has the maximum number of keys."""

    detail = f"An account may have {MAX_LIVE} live API keys; revoke one first"


class KeyExpired(Conflict):
    """An expired key cannot be rotated, since the new one would have the same expiry."""

    detail = "The API key has expired; create a new one"


class NewApiKey(NamedTuple):
    """A new key: its row, and the key itself, which is not stored."""

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
) -> NewApiKey:
    """Create a key with some of the session's scopes, by default all that keys may have."""
    _lock_owner(session, principal.user_id)
    _check_scopes(principal, scopes or ())
    if not scopes:
        scopes = [scope for scope in KEY_SCOPES if scope in principal.scopes]
    new = _store(
        session,
        ApiKey(
            user_id=principal.user_id,
            name=name,
            scopes=sorted(set(scopes)),
            expires_at=expires_at,
            per_minute=per_minute,
        ),
    )
    _audit(session, "key.created", new.row, scopes=new.row.scopes)
    return new


def page(
    session: Session, user_id: uuid.UUID, *, limit: int, cursor: uuid.UUID | None
) -> tuple[Sequence[ApiKey], uuid.UUID | None]:
    """Return a page of a user's unrevoked keys, newest first, and the next cursor."""
    unrevoked = [ApiKey.user_id == user_id, ApiKey.revoked_at.is_(None)]
    return pagination.newest_first(session, ApiKey, unrevoked, limit=limit, cursor=cursor)


def count(session: Session, user_id: uuid.UUID) -> int:
    """Count a user's keys that are neither revoked nor expired."""
    unexpired = or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now())
    query = select(func.count()).where(
        ApiKey.user_id == user_id, ApiKey.revoked_at.is_(None), unexpired
    )
    return session.execute(query).scalar_one()


def revoke(session: Session, user_id: uuid.UUID, key_id: uuid.UUID) -> None:
    """Revoke a key; every process rejects it within seconds."""
    row = _get_own(session, user_id, key_id)
    _revoke(session, row)
    _audit(session, "key.revoked", row)


def rotate(
    session: Session, principal: Principal, key_id: uuid.UUID, *, grace: timedelta
) -> NewApiKey:
    """Replace a key by one of the same scopes and expiry; the old one expires after `grace`."""
    user_id = principal.user_id
    _lock_owner(session, user_id)
    old, now = _get_own(session, user_id, key_id), datetime.now(UTC)
    if old.expires_at is not None and old.expires_at <= now:
        raise KeyExpired
    # The client sees the new key, so the key may not have more scopes than the session.
    _check_scopes(principal, old.scopes)
    row = ApiKey(
        user_id=user_id,
        name=old.name,
        scopes=old.scopes,
        expires_at=old.expires_at,
        per_minute=old.per_minute,
    )
    if grace:
        old.expires_at = min(now + grace, old.expires_at or datetime.max.replace(tzinfo=UTC))
        # Invalidate the owner, not the key: revoking the key would end its grace period.
        revocations.invalidate(session, user_id)
    else:
        _revoke(session, old)
    new = _store(session, row)
    _audit(session, "key.rotated", old, to=str(new.row.id))
    return new


def _check_scopes(principal: Principal, scopes: Sequence[str]) -> None:
    """Raise `InsufficientScope` unless the session has all of these."""
    missing = set(scopes) - principal.scopes
    if missing:
        raise InsufficientScope(min(missing))


def _store(session: Session, row: ApiKey) -> NewApiKey:
    """Store a new key; raise `TooManyKeys`. The caller has locked the owner."""
    if count(session, row.user_id) >= MAX_LIVE:
        raise TooManyKeys
    row.id = new_id()
    key, row.secret_hash = api_keys.make(row.id)
    session.add(row)
    session.flush()
    return NewApiKey(row, key)


def _get_own(session: Session, user_id: uuid.UUID, key_id: uuid.UUID) -> ApiKey:
    row = session.get(ApiKey, key_id, with_for_update=True)
    if row is None or row.user_id != user_id or row.revoked_at is not None:
        raise KeyNotFound
    return row


def _revoke(session: Session, row: ApiKey) -> None:
    row.revoked_at = datetime.now(UTC)
    revocations.revoke(session, [row.id])


def _lock_owner(session: Session, user_id: uuid.UUID) -> None:
    """Lock the owner, so that keys are counted and created in turn; raise `InvalidCredential`."""
    session.get(User, user_id, with_for_update={"key_share": True})
    accounts.get_active(session, user_id)


def _audit(session: Session, action: str, row: ApiKey, **details: object) -> None:
    record(session, action, user_id=row.user_id, subject_id=row.id, details=details)
