"""Login sessions: an access token, and refresh tokens that are used once (RFC 9700, 4.14).

A session ends by logout, age, idleness, a changed account, or a refresh token that comes twice.
Only the hashes of refresh tokens are kept, and the database's clock alone is asked.
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
GRACE: Final = timedelta(seconds=10)
"""A client whose answer was lost may ask again for this long."""

# More than logins give in an access token's life: whoever is pushed out has had time to refresh.
# Without an end, there could be more of them than one transaction can end.
MOST_LIVE: Final = 2_000


class ForbiddenScope(Invalid):
    """A login asked for more than its user may do."""

    detail = "Unknown or forbidden scope"


class Changed(InvalidCredential):
    """The account may not act any more, or has another password than when it was read."""


class Client(NamedTuple):
    """Where a login came from, for the session's owner to recognise."""

    address: str | None = None
    user_agent: str | None = None


class Grant(NamedTuple):
    """What a login or a refresh gives."""

    user_id: uuid.UUID
    session_id: uuid.UUID
    scopes: list[str]
    refresh_token: str
    expires_at: datetime


def scopes_of(user: User) -> list[str]:
    """What a user's own sessions may do."""
    return [scope for scope in SCOPES if scope != ADMIN or user.is_superuser]


def open_session(
    session: Session,
    user: User,
    *,
    lifetime: timedelta,
    idle: timedelta,
    client: Client | None = None,
    scopes: Sequence[str] = (),
    by: str = "password",
) -> Grant:
    """Begin a session for these scopes, or for all that the user has.

    Raises `Changed` for what became of the user since they were read, and `ForbiddenScope`.
    """
    # Who disables the user or changes the password comes before us, or finds our session.
    query = select(User).where(User.id == user.id).with_for_update(read=True)
    verified = user.password_hash
    found = session.scalars(query.execution_options(populate_existing=True)).one_or_none()
    if found is None or not accounts.may_act(found) or found.password_hash != verified:
        raise Changed
    allowed = scopes_of(found)
    if not set(scopes) <= set(allowed):
        raise ForbiddenScope
    now = _now(session)
    client = client or Client()
    opened = LoginSession(
        id=new_id(),
        user_id=user.id,
        expires_at=now + lifetime,
        scopes=[scope for scope in allowed if not scopes or scope in scopes],
        address=client.address,
        user_agent=client.user_agent,
    )
    session.add(opened)
    _audit(session, opened, "session.opened", {"by": by})
    session.flush()
    _make_room(session, user.id)
    return _grant(session, opened, opened.scopes, now=now, idle=idle)


def refresh(session: Session, refresh_token: str, *, idle: timedelta) -> Grant | None:
    """Trade a refresh token for the next; None when it is not good, whatever the reason.

    A token that was used before ends its session, so the caller must commit in any case.
    """
    by_hash = select(RefreshToken).where(RefreshToken.token_hash == _hash(refresh_token))
    token = session.scalars(by_hash).one_or_none()
    if token is None:
        return None
    # One at a time in a family; what another has done meanwhile is read again.
    login = session.get(LoginSession, token.session_id, with_for_update=True)
    now = _now(session)
    if login is None or login.ended_at is not None or login.expires_at <= now:
        return None
    session.refresh(token)
    if token.used_at is not None and not _answer_was_lost(session, token, now):
        _end(session, login, "session.reuse_detected")
        return None
    user = session.get(User, login.user_id)
    if token.expires_at <= now or user is None or not accounts.may_act(user):
        return None
    if token.used_at is None:
        _use(session, token, now)
    login.last_used_at = now
    allowed = scopes_of(user)
    scopes = [scope for scope in login.scopes if scope in allowed]
    return _grant(session, login, scopes, now=now, idle=idle, parent_id=token.id)


def end(session: Session, user_id: uuid.UUID, session_id: uuid.UUID | None) -> None:
    """End one session; raises `NotFound` unless it is the user's and alive."""
    query = select(LoginSession).where(LoginSession.id == session_id, *_alive(user_id))
    login = session.scalars(query.with_for_update()).one_or_none()
    if login is None:
        raise NotFound("Session not found")
    _end(session, login, "session.ended")


def end_all(session: Session, user_id: uuid.UUID, *, keep: uuid.UUID | None = None) -> int:
    """End a user's sessions, but for the one to `keep`; returns how many there were.

    In the same transaction as what is the reason: a login that began before it is shut out.
    """
    session.flush()
    session.execute(select(User.id).where(User.id == user_id).with_for_update(key_share=True))
    conditions = _alive(user_id)
    if keep is not None:
        conditions.append(LoginSession.id != keep)
    statement = update(LoginSession).where(*conditions).values(ended_at=func.clock_timestamp())
    ended = session.scalars(statement.returning(LoginSession.id)).all()
    revoke(session, ended)
    return len(ended)


def log_out_everywhere(session: Session, user_id: uuid.UUID) -> None:
    """End all of a user's sessions because they said so."""
    details = {"count": end_all(session, user_id)}
    record(
        session,
        "sessions.ended",
        actor_id=user_id,
        user_id=user_id,
        subject_id=user_id,
        details=details,
    )


def page(
    session: Session, user_id: uuid.UUID, *, idle: timedelta, limit: int, after: uuid.UUID | None
) -> tuple[Sequence[LoginSession], uuid.UUID | None]:
    """A user's live sessions, newest first, and where the page after begins."""
    busy = LoginSession.last_used_at > func.clock_timestamp() - idle
    alive = [*_alive(user_id), busy]
    return pagination.newest_first(session, LoginSession, alive, limit=limit, cursor=after)


def count(session: Session, user_id: uuid.UUID) -> int:
    """How many sessions of a user have not ended; those that idle too long are among them."""
    query = select(func.count()).select_from(LoginSession).where(*_alive(user_id))
    return session.execute(query).scalar_one()


def _answer_was_lost(session: Session, token: RefreshToken, now: datetime) -> bool:
    """Whether a used token may be used again: a moment ago, and none of its children was."""
    children = session.scalars(
        select(RefreshToken.used_at).where(RefreshToken.parent_id == token.id)
    ).all()
    # A token without children was never traded: its sibling was used in its place.
    unused = bool(children) and not any(children)
    return unused and token.used_at is not None and now - token.used_at <= GRACE


def _use(session: Session, token: RefreshToken, now: datetime) -> None:
    """Use up a token, and with it those that were given in its place."""
    family = RefreshToken.id == token.id
    if token.parent_id is not None:
        family = RefreshToken.parent_id == token.parent_id
    session.execute(
        update(RefreshToken).where(family, RefreshToken.used_at.is_(None)).values(used_at=now)
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


def _alive(user_id: uuid.UUID) -> list[ColumnElement[bool]]:
    return [
        LoginSession.user_id == user_id,
        LoginSession.ended_at.is_(None),
        LoginSession.expires_at > func.clock_timestamp(),
    ]


def _make_room(session: Session, user_id: uuid.UUID) -> None:
    """End the sessions that were used longest ago, beyond those that a user may have."""
    latest = LoginSession.last_used_at.desc(), LoginSession.id.desc()
    alive = select(LoginSession.id).where(*_alive(user_id)).order_by(*latest)
    if over := session.scalars(alive.offset(MOST_LIVE)).all():
        # Of two logins at once one ends them; neither waits for the other.
        free = select(LoginSession.id).where(LoginSession.id.in_(over), *_alive(user_id))
        mine = LoginSession.id.in_(free.with_for_update(skip_locked=True))
        ended = update(LoginSession).where(mine).values(ended_at=func.clock_timestamp())
        revoke(session, session.scalars(ended.returning(LoginSession.id)).all())


def _end(session: Session, login: LoginSession, action: str) -> None:
    login.ended_at = _now(session)
    revoke(session, [login.id])
    _audit(session, login, action)


def _audit(
    session: Session, login: LoginSession, action: str, details: dict[str, Any] | None = None
) -> None:
    record(
        session,
        action,
        actor_id=login.user_id,
        user_id=login.user_id,
        subject_id=login.id,
        details=details,
    )


def _hash(refresh_token: str) -> bytes:
    return hashlib.sha256(refresh_token.encode()).digest()


def _now(session: Session) -> datetime:
    """The database's time: not the transaction's, which may have waited since."""
    now: datetime = session.scalars(select(func.clock_timestamp())).one()
    return now
