"""Administration: what a superuser sees of the accounts of others, and does to them.

Every act is in the audit log with who did it, to whom and what changed; reading is not. Who acts
must still be a superuser in the database, whatever their token says.
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
from valence_common.revocations import revoke
from valence_common.web import pagination


class UserNotFound(NotFound):
    """Nobody has that id, or what had it was erased."""

    detail = "User not found"


class NotOneself(Conflict):
    """Somebody else must do this; so there is always a superuser left, who did it."""

    detail = "An administrator cannot disable, demote or erase themselves"


class Filter(NamedTuple):
    """Which users; `q` is a part of the username or the e-mail address, in any spelling."""

    q: str | None = None
    is_active: bool | None = None
    is_superuser: bool | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """The filter as SQL."""
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


class Limits(NamedTuple):
    """A user's plan, and what overrides it."""

    plan: str
    per_minute: int | None
    burst: int | None
    texts_per_day: int | None


class Record(NamedTuple):
    """One account as administrators see it."""

    user: User
    live_sessions: int
    live_keys: int


def users(
    session: Session, actor_id: uuid.UUID, only: Filter, *, limit: int, cursor: uuid.UUID | None
) -> tuple[Sequence[User], uuid.UUID | None]:
    """Up to `limit` users, newest first, and where the page after begins."""
    check(session, actor_id)
    return pagination.newest_first(session, User, only.conditions(), limit=limit, cursor=cursor)


def user(session: Session, actor_id: uuid.UUID, user_id: uuid.UUID) -> Record:
    """One user; raises `UserNotFound`."""
    check(session, actor_id)
    return _record(session, _find(session, user_id))


def change(
    session: Session,
    actor_id: uuid.UUID,
    user_id: uuid.UUID,
    *,
    is_active: bool | None,
    is_superuser: bool | None,
) -> Record:
    """Disable, enable, promote or demote; None leaves things as they are.

    Sessions of before end, since their tokens say what was; keys of a disabled account rest and
    work again once it is enabled.
    """
    _lock_superusers(session, actor_id)
    user = _find(session, user_id, lock=True)
    if user.id == actor_id and (is_active is False or is_superuser is False):
        raise NotOneself
    actions = []
    if is_active is not None and is_active != user.is_active:
        user.is_active = is_active
        actions.append("user.enabled" if is_active else "user.disabled")
    if is_superuser is not None and is_superuser != user.is_superuser:
        user.is_superuser = is_superuser
        actions.append("user.promoted" if is_superuser else "user.demoted")
    if actions:
        ended = sessions.end_all(session, user_id)
        revoke(session, [user_id])
        for action in actions:
            _audit(session, actor_id, action, user_id, sessions=ended)
    return _record(session, user)


def set_limits(session: Session, actor_id: uuid.UUID, user_id: uuid.UUID, limits: Limits) -> Record:
    """Give a user a plan and overrides; they hold everywhere within seconds."""
    check(session, actor_id)
    user = _find(session, user_id, lock=True)
    before = Limits(user.plan, user.per_minute, user.burst, user.texts_per_day)
    if limits != before:
        user.plan, user.per_minute, user.burst, user.texts_per_day = limits
        revoke(session, [user_id])
        changes = {"before": before._asdict(), "after": limits._asdict()}
        _audit(session, actor_id, "user.limits_changed", user_id, **changes)
    return _record(session, user)


def end_sessions(session: Session, actor_id: uuid.UUID, user_id: uuid.UUID) -> None:
    """Log a user out everywhere."""
    check(session, actor_id)
    _find(session, user_id, lock=True)
    ended = sessions.end_all(session, user_id)
    _audit(session, actor_id, "user.sessions_ended", user_id, sessions=ended)


def erase(session: Session, actor_id: uuid.UUID, user_id: uuid.UUID) -> None:
    """Erase an account and, soon after, all that is its own; the erasure is in the audit log."""
    _lock_superusers(session, actor_id)
    if user_id == actor_id:
        raise NotOneself
    erasure.erase(session, _find(session, user_id), actor_id=actor_id)


def appoint(
    session: Session, *, username: str, email: str | None, password_hash: str | None
) -> tuple[User, bool]:
    """The account of that name as an active superuser, and whether it had to be made.

    For who runs the installation, so there is no actor. One that exists keeps its password unless
    `password_hash` is given, and its address. Raises `AlreadyRegistered` when a new one's is taken,
    and `Conflict` when a new one would lack an address or a password.
    """
    user = accounts.find(session, username)
    made = user is None
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
    revoke(session, [user.id])
    _audit(session, None, "user.promoted", user.id, made=made, sessions=ended)
    return user, made


def superusers(session: Session) -> int:
    """How many accounts can administer."""
    able = select(func.count()).where(User.is_superuser, User.is_active, User.erased_at.is_(None))
    return session.execute(able).scalar_one()


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
    """`usage.read`, of one user or all."""
    check(session, actor_id)
    return usage.read(session, since, until, user_id=user_id, limit=limit, cursor=cursor)


def check(session: Session, actor_id: uuid.UUID) -> None:
    """Raise `Forbidden` unless this is, now, an active superuser."""
    actor = session.get(User, actor_id)
    if actor is None or not administers(actor):
        raise Forbidden


def administers(user: User) -> bool:
    """Whether a user may do what stands here."""
    return accounts.may_act(user) and user.is_superuser


def _lock_superusers(session: Session, actor_id: uuid.UUID) -> None:
    """`check`, and make who takes or gives superusers' rights go one after the other.

    Of two that disable each other at once the second finds itself disabled.
    """
    locked = select(User).where(User.is_superuser).order_by(User.id)
    found = session.scalars(locked.with_for_update(key_share=True)).all()
    if not any(user.id == actor_id and administers(user) for user in found):
        raise Forbidden


def _find(session: Session, user_id: uuid.UUID, *, lock: bool = False) -> User:
    query = select(User).where(User.id == user_id, User.erased_at.is_(None))
    if lock:
        query = query.with_for_update(key_share=True)
    user = session.scalars(query.execution_options(populate_existing=True)).one_or_none()
    if user is None:
        raise UserNotFound
    return user


def _record(session: Session, user: User) -> Record:
    session.flush()
    session.refresh(user)  # the database dates the change
    return Record(user, sessions.count(session, user.id), api_keys.count(session, user.id))


def _audit(
    session: Session, actor_id: uuid.UUID | None, action: str, user_id: uuid.UUID, **details: object
) -> None:
    record(session, action, actor_id=actor_id, user_id=user_id, subject_id=user_id, details=details)
