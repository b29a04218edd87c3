"""Login sessions: access tokens, and single-use refresh tokens (RFC 9700, section 4.14).

A session ends by logout, age, idleness, a change of the account, or the reuse of a refresh token.
Only the hashes of refresh tokens are stored. All times are those of the database's clock.
"""

import hashlib
import secrets
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from valence_auth import accounts
from valence_common.audit import record
from valence_common.db import new_id
from valence_common.models import LoginSession, RefreshToken, User
from valence_common.problems import Invalid, InvalidCredential, NotFound
from valence_common.revocations import revoke
from valence_common.security import ADMIN, SCOPES
from valence_common.web import pagination

REFRESH_BYTES: Final = 32
REUSE_GRACE: Final = timedelta(seconds=10)
"""How long a used refresh token works again, for a client whose response was lost."""

# More than the login limits allow in an access token's lifetime, so a session that is ended for
# this limit had time to refresh. Without a limit, one transaction could not end them all.
MAX_LIVE: Final = 2_000


class ForbiddenScope(Invalid):
    """A login requested a scope that its user does not have."""

    detail = "Unknown or forbidden scope"


class UserChanged(InvalidCredential):
    """Since it was read, the account was disabled or erased, or its password changed."""


class ClientInfo(NamedTuple):
    """The client of a login, shown to the session's owner."""

    address: str | None = None
    user_agent: str | None = None


class SessionRequest(NamedTuple):
    """The session that a login opens: lifetimes, client, scopes (none for all), login method."""

    lifetime: timedelta
    idle: timedelta
    client: ClientInfo = ClientInfo()
    scopes: Sequence[str] = ()
    method: str = "password"


class Grant(NamedTuple):
    """The result of a login or a refresh."""

    user_id: uuid.UUID
    session_id: uuid.UUID
    scopes: list[str]
    refresh_token: str
    expires_at: datetime


def allowed_scopes(user: User) -> list[str]:
    """Return the scopes that a user's sessions may have."""
    return [scope for scope in SCOPES if scope != ADMIN or user.is_superuser]


def open_session(session: Session, user: User, request: SessionRequest) -> Grant:
    """Open a session for the requested scopes, or for all that the user has.

    Raise `UserChanged` if the user changed since they were read, and `ForbiddenScope`.
    """
    # The lock orders this login and a change of the account: the change commits first, or it finds
    # and ends this session.
    query = select(User).where(User.id == user.id).with_for_update(read=True)
    verified = user.password_hash
    current = session.scalars(query.execution_options(populate_existing=True)).one_or_none()
    if current is None or not accounts.may_act(current) or current.password_hash != verified:
        raise UserChanged
    allowed = allowed_scopes(current)
    if not set(request.scopes) <= set(allowed):
        raise ForbiddenScope
    now = _now(session)
    login = LoginSession(
        id=new_id(),
        user_id=user.id,
        expires_at=now + request.lifetime,
        scopes=[scope for scope in allowed if not request.scopes or scope in request.scopes],
        address=request.client.address,
        user_agent=request.client.user_agent,
    )
    session.add(login)
    _audit(session, login, "session.opened", {"by": request.method})
    session.flush()
    _enforce_limit(session, user.id)
    return _grant(session, login, login.scopes, now=now, idle=request.idle)


def refresh(session: Session, refresh_token: str, *, idle: timedelta) -> Grant | None:
    """Exchange a refresh token for the next one; return None if it is invalid.

    The reuse of a token ends its session, so the caller must also commit when the result is None.
    """
    by_hash = select(RefreshToken).where(RefreshToken.token_hash == _hash(refresh_token))
    token = session.scalars(by_hash).one_or_none()
    if token is None:
        return None
    # Refreshes of one session take turns; the token is read again under the lock.
    login = session.get(LoginSession, token.session_id, with_for_update=True)
    now = _now(session)
    if login is None or login.ended_at is not None or login.expires_at <= now:
        return None
    session.refresh(token)
    if token.used_at is not None and not _may_retry(session, token, now):
        _end(session, login, "session.reuse_detected")
        return None
    user = session.get(User, login.user_id)
    if token.expires_at <= now or user is None or not accounts.may_act(user):
        return None
    if token.used_at is None:
        _mark_used(session, token, now)
    login.last_used_at = now
    allowed = allowed_scopes(user)
    scopes = [scope for scope in login.scopes if scope in allowed]
    return _grant(session, login, scopes, now=now, idle=idle, parent_id=token.id)


def end(session: Session, user_id: uuid.UUID, session_id: uuid.UUID | None) -> None:
    """End one session; raise `NotFound` unless it is the user's and live."""
    query = select(LoginSession).where(LoginSession.id == session_id, *_live(user_id))
    login = session.scalars(query.with_for_update()).one_or_none()
    if login is None:
        raise NotFound("Session not found")
    _end(session, login, "session.ended")


def end_all(session: Session, user_id: uuid.UUID, *, keep: uuid.UUID | None = None) -> int:
    """End a user's sessions except `keep`; return how many were ended.

    Call it in the transaction of the change that is the reason, so that a concurrent login either
    sees the change or is ended.
    """
    session.flush()
    session.execute(select(User.id).where(User.id == user_id).with_for_update(key_share=True))
    conditions = _live(user_id)
    if keep is not None:
        conditions.append(LoginSession.id != keep)
    statement = update(LoginSession).where(*conditions).values(ended_at=func.clock_timestamp())
    ended = session.scalars(statement.returning(LoginSession.id)).all()
    revoke(session, ended)
    return len(ended)


def log_out_everywhere(session: Session, user_id: uuid.UUID) -> None:
    """End all sessions of a user, on their request."""
    details = {"count": end_all(session, user_id)}
    record(session, "sessions.ended", user_id=user_id, details=details)


def page(
    session: Session, user_id: uuid.UUID, *, idle: timedelta, limit: int, cursor: uuid.UUID | None
) -> tuple[Sequence[LoginSession], uuid.UUID | None]:
    """Return a page of a user's live sessions, newest first, and the next cursor."""
    used = LoginSession.last_used_at > func.clock_timestamp() - idle
    live = [*_live(user_id), used]
    return pagination.newest_first(session, LoginSession, live, limit=limit, cursor=cursor)


def count(session: Session, user_id: uuid.UUID) -> int:
    """Count a user's sessions that have not ended, including idle ones."""
    query = select(func.count()).select_from(LoginSession).where(*_live(user_id))
    return session.execute(query).scalar_one()


def _may_retry(session: Session, token: RefreshToken, now: datetime) -> bool:
    """Return whether a used token may be used again: within the grace, with unused children."""
    children = session.scalars(
        select(RefreshToken.used_at).where(RefreshToken.parent_id == token.id)
    ).all()
    # A used token without children was not exchanged itself: its sibling was.
    unused = bool(children) and not any(children)
    return unused and token.used_at is not None and now - token.used_at <= REUSE_GRACE


def _mark_used(session: Session, token: RefreshToken, now: datetime) -> None:
    """Mark a token as used, and its siblings with it."""
    siblings = RefreshToken.id == token.id
    if token.parent_id is not None:
        siblings = RefreshToken.parent_id == token.parent_id
    session.execute(
        update(RefreshToken).where(siblings, RefreshToken.used_at.is_(None)).values(used_at=now)
    )


def _grant(
    session: Session,
    login: LoginSession,
    scopes: list[str],
    *,
    now: datetime,
    idle: timedelta,
    parent_id: uuid.UUID | None = None,
) -> Grant:
    refresh_token = secrets.token_urlsafe(REFRESH_BYTES)
    session.add(
        RefreshToken(
            session_id=login.id,
            parent_id=parent_id,
            token_hash=_hash(refresh_token),
            expires_at=min(login.expires_at, now + idle),
        )
    )
    return Grant(login.user_id, login.id, scopes, refresh_token, login.expires_at)


def _live(user_id: uuid.UUID) -> list[ColumnElement[bool]]:
    return [
        LoginSession.user_id == user_id,
        LoginSession.ended_at.is_(None),
        LoginSession.expires_at > func.clock_timestamp(),
    ]


def _enforce_limit(session: Session, user_id: uuid.UUID) -> None:
    """End the least recently used sessions beyond the limit."""
    latest = LoginSession.last_used_at.desc(), LoginSession.id.desc()
    live = select(LoginSession.id).where(*_live(user_id)).order_by(*latest)
    if excess := session.scalars(live.offset(MAX_LIVE)).all():
        # Of two concurrent logins one ends them, and neither waits for the other.
        unlocked = select(LoginSession.id).where(LoginSession.id.in_(excess), *_live(user_id))
        locked = LoginSession.id.in_(unlocked.with_for_update(skip_locked=True))
        ended = update(LoginSession).where(locked).values(ended_at=func.clock_timestamp())
        revoke(session, session.scalars(ended.returning(LoginSession.id)).all())


def _end(session: Session, login: LoginSession, action: str) -> None:
    login.ended_at = _now(session)
    revoke(session, [login.id])
    _audit(session, login, action)


def _audit(
    session: Session, login: LoginSession, action: str, details: dict[str, Any] | None = None
) -> None:
    record(session, action, user_id=login.user_id, subject_id=login.id, details=details)


def _hash(refresh_token: str) -> bytes:
    return hashlib.sha256(refresh_token.encode()).digest()


def _now(session: Session) -> datetime:
    """Return the database's clock time; the transaction may have waited since its start."""
    now: datetime = session.scalars(select(func.clock_timestamp())).one()
    return now
