"""Administration of other users' accounts by superusers.

Every change has an audit entry with its actor, subject and details; reads have none. The actor must
be a superuser in the database at that moment, whatever the token says.
"""

import uuid
from collections.abc import Sequence
from datetime import date
from typing import NamedTuple

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from valence_auth import accounts, api_keys, erasure, sessions, usage
from valence_common.audit import record
from valence_common.models import Usage, User
from valence_common.problems import Conflict, Forbidden, NotFound
from valence_common.revocations import invalidate
from valence_common.web import pagination


class UserNotFound(NotFound):
    """No user has that id, or the user was erased."""

    detail = "User not found"


class SelfActionForbidden(Conflict):
    """Another superuser must do this, so at least one superuser always remains."""

    detail = "Administrators cannot disable, demote or erase themselves"


class UserFilter(NamedTuple):
    """A filter of users; `q` is a part of the username or e-mail address, in any case."""

    q: str | None = None
    is_active: bool | None = None
    is_superuser: bool | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the filter as SQL conditions."""
        conditions: list[ColumnElement[bool]] = [User.erased_at.is_(None)]
        if self.q is not None:
            part = accounts.email_key(self.q)
            conditions.append(
                or_(
                    User.username_key.contains(part, autoescape=True),
                    User.email_key.contains(part, autoescape=True),
                )
            )
        if self.is_active is not None:
            conditions.append(User.is_active == self.is_active)
        if self.is_superuser is not None:
            conditions.append(User.is_superuser == self.is_superuser)
        return conditions


class UserLimits(NamedTuple):
    """A user's plan, and the values that override it."""

    plan: str
    per_minute: int | None
    burst: int | None
    texts_per_day: int | None


class UserDetails(NamedTuple):
    """A user as administrators see them."""

    user: User
    live_sessions: int
    live_keys: int


def list_users(
    session: Session,
    actor_id: uuid.UUID,
    user_filter: UserFilter,
    *,
    limit: int,
    cursor: uuid.UUID | None,
) -> tuple[Sequence[User], uuid.UUID | None]:
    """Return a page of users, newest first, and the next cursor."""
    require_superuser(session, actor_id)
    return pagination.newest_first(
        session, User, user_filter.conditions(), limit=limit, cursor=cursor
    )


def get_user(session: Session, actor_id: uuid.UUID, user_id: uuid.UUID) -> UserDetails:
    """Return one user; raise `UserNotFound`."""
    require_superuser(session, actor_id)
    return _details(session, _get(session, user_id))


def change(
    session: Session,
    actor_id: uuid.UUID,
    user_id: uuid.UUID,
    *,
    is_active: bool | None,
    is_superuser: bool | None,
) -> UserDetails:
    """Disable, enable, promote or demote a user; None leaves a flag unchanged.

    All sessions end, because their tokens carry the old scopes. The API keys of a disabled user
    work again once the user is enabled.
    """
    _lock_superusers(session, actor_id)
    user = _get(session, user_id, lock=True)
    if user.id == actor_id and (is_active is False or is_superuser is False):
        raise SelfActionForbidden
    actions = []
    if is_active is not None and is_active != user.is_active:
        user.is_active = is_active
        actions.append("user.enabled" if is_active else "user.disabled")
    if is_superuser is not None and is_superuser != user.is_superuser:
        user.is_superuser = is_superuser
        actions.append("user.promoted" if is_superuser else "user.demoted")
    if actions:
        ended = sessions.end_all(session, user_id)
        invalidate(session, user_id)
        for action in actions:
            _audit(session, actor_id, action, user_id, sessions=ended)
    return _details(session, user)


def set_limits(
    session: Session, actor_id: uuid.UUID, user_id: uuid.UUID, limits: UserLimits
) -> UserDetails:
    """Set a user's plan and overrides; every process applies them within seconds."""
    require_superuser(session, actor_id)
    user = _get(session, user_id, lock=True)
    before = UserLimits(user.plan, user.per_minute, user.burst, user.texts_per_day)
    if limits != before:
        user.plan, user.per_minute, user.burst, user.texts_per_day = limits
        invalidate(session, user_id)
        changes = {"before": before._asdict(), "after": limits._asdict()}
        _audit(session, actor_id, "user.limits_changed", user_id, **changes)
    return _details(session, user)


def end_sessions(session: Session, actor_id: uuid.UUID, user_id: uuid.UUID) -> None:
    """End all sessions of a user."""
    require_superuser(session, actor_id)
    _get(session, user_id, lock=True)
    ended = sessions.end_all(session, user_id)
    _audit(session, actor_id, "user.sessions_ended", user_id, sessions=ended)


def erase(session: Session, actor_id: uuid.UUID, user_id: uuid.UUID) -> None:
    """Erase an account; the worker deletes its data soon after."""
    _lock_superusers(session, actor_id)
    if user_id == actor_id:
        raise SelfActionForbidden
    erasure.erase(session, _get(session, user_id), actor_id=actor_id)


def promote_or_create(
    session: Session, *, username: str, email: str | None, password_hash: str | None
) -> tuple[User, bool]:
    """Make the account of that name an active superuser; return it, and whether it was created.

    This is for operators, so the audit log names no actor. An existing account keeps its e-mail
    address, and its password unless `password_hash` is given. Raise `AlreadyRegistered` if a new
    account's e-mail address is taken, and `Conflict` if it lacks an address or a password.
    """
    user = accounts.find(session, username)
    created = user is None
    if user is None:
        if email is None or password_hash is None:
            raise Conflict("A new account needs an e-mail address and a password")
        user = accounts.register(
            session, username=username, email=email, password_hash=password_hash, by_owner=False
        )
    elif password_hash is not None:
        user.password_hash = password_hash
    user.is_active = user.is_superuser = True
    ended = sessions.end_all(session, user.id)
    invalidate(session, user.id)
    _audit(session, None, "user.promoted", user.id, made=created, sessions=ended)
    return user, created


def count_superusers(session: Session) -> int:
    """Count the active superusers."""
    active = select(func.count()).where(User.is_superuser, User.is_active, User.erased_at.is_(None))
    return session.execute(active).scalar_one()


def read_usage(
    session: Session,
    actor_id: uuid.UUID,
    since: date,
    until: date,
    *,
    user_id: uuid.UUID | None,
    limit: int,
    cursor: str | None,
) -> tuple[Sequence[Usage], str | None]:
    """Return a page of the usage of one user or all, and the next cursor."""
    require_superuser(session, actor_id)
    return usage.read(session, since, until, user_id=user_id, limit=limit, cursor=cursor)


def require_superuser(session: Session, actor_id: uuid.UUID) -> None:
    """Raise `Forbidden` unless the actor is an active superuser now."""
    actor = session.get(User, actor_id)
    if actor is None or not can_administer(actor):
        raise Forbidden


def can_administer(user: User) -> bool:
    """Return whether a user is an active superuser."""
    return accounts.may_act(user) and user.is_superuser


def _lock_superusers(session: Session, actor_id: uuid.UUID) -> None:
    """Lock all superusers, and raise `Forbidden` unless the actor is an active one.

    The lock serialises changes of superusers: of two who disable each other at once, the second is
    already disabled.
    """
    query = select(User).where(User.is_superuser).order_by(User.id)
    superusers = session.scalars(query.with_for_update(key_share=True)).all()
    if not any(user.id == actor_id and can_administer(user) for user in superusers):
        raise Forbidden


def _get(session: Session, user_id: uuid.UUID, *, lock: bool = False) -> User:
    query = select(User).where(User.id == user_id, User.erased_at.is_(None))
    if lock:
        query = query.with_for_update(key_share=True)
    user = session.scalars(query.execution_options(populate_existing=True)).one_or_none()
    if user is None:
        raise UserNotFound
    return user


def _details(session: Session, user: User) -> UserDetails:
    session.flush()
    session.refresh(user)  # the database sets `updated_at`
    return UserDetails(user, sessions.count(session, user.id), api_keys.count(session, user.id))


def _audit(
    session: Session, actor_id: uuid.UUID | None, action: str, user_id: uuid.UUID, **details: object
) -> None:
    record(session, action, actor_id=actor_id, user_id=user_id, details=details)
