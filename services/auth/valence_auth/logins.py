"""Login by username and password, with the same work and words whatever is wrong; a new password.

What lives here joins accounts, their passwords and their sessions.
"""

import uuid
from collections.abc import Callable
from contextlib import suppress

from sqlalchemy import update
from sqlalchemy.orm import Session

from valence_auth import accounts, sessions
from valence_auth.passwords import Passwords
from valence_common.audit import record
from valence_common.db import Database
from valence_common.models import User
from valence_common.problems import Invalid, InvalidCredential

TRIES = 2

OpenSession = Callable[[Session, User], sessions.Grant]


class IncorrectLogin(InvalidCredential):
    """Unknown, disabled, without a password, or not with this one."""

    detail = "Incorrect username or password"


class IncorrectPassword(InvalidCredential):
    """Who holds the token does not know the password."""

    detail = "Incorrect password"


class NoPassword(Invalid):
    """The account logs in elsewhere."""

    detail = "This account has no password"


async def log_in(
    database: Database, passwords: Passwords, username: str, password: str, open_it: OpenSession
) -> sessions.Grant:
    """A session for the account of that name; raises `IncorrectLogin`."""
    for _ in range(TRIES):
        user = await database.run(accounts.find, username)
        check = await passwords.check(password, user.password_hash if user else None)
        if user is None or not check or not accounts.may_act(user):
            raise IncorrectLogin
        # Changed meanwhile: another login replaced an old kind of hash, or a new one was chosen.
        with suppress(sessions.Changed):
            return await database.run(_open, user, check.rehashed, open_it)
    raise IncorrectLogin


async def check_password(passwords: Passwords, user: User, password: str) -> None:
    """Raises `IncorrectPassword`, or `NoPassword` for an account that has none."""
    if user.password_hash is None:
        raise NoPassword
    if not await passwords.check(password, user.password_hash):
        raise IncorrectPassword


def change_password(
    session: Session, user: User, password_hash: str, *, keep: uuid.UUID | None
) -> None:
    """Replace the password that was checked, and end all sessions but the one to `keep`.

    Raises `IncorrectPassword` when it was replaced meanwhile.
    """
    if not _replace_hash(session, user, password_hash):
        raise IncorrectPassword
    record(
        session,
        "password.changed",
        actor_id=user.id,
        user_id=user.id,
        subject_id=user.id,
        details={"ended": sessions.end_all(session, user.id, keep=keep)},
    )


def _open(
    session: Session, user: User, rehashed: str | None, open_it: OpenSession
) -> sessions.Grant:
    if rehashed is not None:
        if not _replace_hash(session, user, rehashed):
            raise sessions.Changed
        user.password_hash = rehashed
    return open_it(session, user)


def _replace_hash(session: Session, user: User, password_hash: str) -> bool:
    """Whether the hash was still the one that was read."""
    statement = (
        update(User)
        .where(User.id == user.id, User.password_hash == user.password_hash)
        .values(password_hash=password_hash)
        .returning(User.id)
    )
    return session.scalar(statement) is not None
