"""Password logins and password changes, which join accounts, passwords and sessions.

A failed login costs the same work and has the same response, whatever the reason.
"""

import uuid
from contextlib import suppress

from sqlalchemy import update
from sqlalchemy.orm import Session

from valence_auth import accounts, sessions
from valence_auth.passwords import Passwords
from valence_common.audit import record
from valence_common.db import Database
from valence_common.models import User
from valence_common.problems import Invalid, InvalidCredential

ATTEMPTS = 2


class IncorrectLogin(InvalidCredential):
    """The account is unknown or disabled, has no password, or has another one."""

    detail = "Incorrect username or password"


class IncorrectPassword(InvalidCredential):
    """The client has a valid token and a wrong password."""

    detail = "Incorrect password"


class NoPassword(Invalid):
    """The account logs in with OpenID Connect only."""

    detail = "This account has no password"


async def log_in(
    database: Database,
    passwords: Passwords,
    username: str,
    password: str,
    request: sessions.SessionRequest,
) -> sessions.Grant:
    """Open a session for the account of that name; raise `IncorrectLogin`."""
    for _ in range(ATTEMPTS):
        user = await database.run(accounts.find, username)
        check = await passwords.check(password, user.password_hash if user else None)
        if user is None or not check or not accounts.may_act(user):
            raise IncorrectLogin
        # Try again if the hash changed since: by another login's rehash, or a new password.
        with suppress(sessions.UserChanged):
            return await database.run(_open, user, check.rehashed, request)
    raise IncorrectLogin


async def check_password(passwords: Passwords, user: User, password: str) -> None:
    """Raise `IncorrectPassword`, or `NoPassword` for an account that has none."""
    if user.password_hash is None:
        raise NoPassword
    if not await passwords.check(password, user.password_hash):
        raise IncorrectPassword


def change_password(
    session: Session, user: User, password_hash: str, *, keep: uuid.UUID | None
) -> None:
    """Replace the checked password, and end all sessions except `keep`.

    Raise `IncorrectPassword` if the password changed since it was checked.
    """
    if not _replace_hash(session, user, password_hash):
        raise IncorrectPassword
    record(
        session,
        "password.changed",
        user_id=user.id,
        details={"ended": sessions.end_all(session, user.id, keep=keep)},
    )


def _open(
    session: Session, user: User, rehashed: str | None, request: sessions.SessionRequest
) -> sessions.Grant:
    if rehashed is not None:
        if not _replace_hash(session, user, rehashed):
            raise sessions.UserChanged
        user.password_hash = rehashed
    return sessions.open_session(session, user, request)


def _replace_hash(session: Session, user: User, password_hash: str) -> bool:
    """Replace the hash if it is still the one that was read; return whether it was."""
    statement = (
        update(User)
        .where(User.id == user.id, User.password_hash == user.password_hash)
        .values(password_hash=password_hash)
        .returning(User.id)
    )
    return session.scalar(statement) is not None
