"""Accounts: who may exist, under which names, and how they are found."""

import re
import unicodedata
import uuid

from email_validator import EmailNotValidError, validate_email
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from valence_common.audit import record
from valence_common.models import User
from valence_common.problems import Invalid, InvalidCredential

MAX_EMAIL = 254

_USERNAME = re.compile(r"[A-Za-z0-9._-]{3,64}")


class AlreadyRegistered(Invalid):
    """The username or the e-mail address belongs to an account."""

    detail = "Username or email already registered"


def display_username(username: str) -> str:
    """The username as it is stored; raises ValueError when it is outside the allow-list."""
    normal = unicodedata.normalize("NFKC", username)
    if not _USERNAME.fullmatch(normal):
        raise ValueError("must be 3 to 64 letters, digits, dots, underscores or hyphens")
    return normal


def username_key(username: str) -> str | None:
    """The form under which a username is unique; None when nobody can have it."""
    try:
        return display_username(username).casefold()
    except ValueError:
        return None


def display_email(email: str) -> str:
    """The e-mail address as it is stored; raises ValueError when it is not one."""
    try:
        valid = validate_email(email, check_deliverability=False, test_environment=True).normalized
    except EmailNotValidError:
        # The library's message quotes the address.
        raise ValueError("must be an e-mail address") from None
    # Some characters grow when they are made canonical, up to 18 times.
    if len(email_key(valid)) > MAX_EMAIL:
        raise ValueError("is too long")
    return valid


def email_key(email: str) -> str:
    """The form under which an e-mail address is unique."""
    return unicodedata.normalize("NFKC", email).casefold()


def register(
    session: Session, *, username: str, email: str, password_hash: str, by_owner: bool = True
) -> User:
    """Create an account; raises `AlreadyRegistered` when one of its names is taken.

    Not `by_owner`: nobody who has an account made it.
    """
    statement = (
        insert(User)
        .values(
            username=username,
            username_key=username.casefold(),
            email=email,
            email_key=email_key(email),
            password_hash=password_hash,
        )
        .on_conflict_do_nothing()
        .returning(User)
    )
    user = session.scalars(statement).one_or_none()
    if user is None:
        raise AlreadyRegistered
    record_registration(session, user.id, by_owner=by_owner)
    return user


def record_registration(session: Session, user_id: uuid.UUID, *, by_owner: bool = True) -> None:
    """Write down that there is a new account, however it came to be."""
    actor_id = user_id if by_owner else None
    record(session, "account.registered", actor_id=actor_id, user_id=user_id, subject_id=user_id)


def find(session: Session, username: str) -> User | None:
    """The account with that username in any spelling, or None."""
    # Who cannot exist is asked for all the same, as the empty name: it costs the same time.
    key = username_key(username) or ""
    return session.scalars(select(User).where(User.username_key == key)).one_or_none()


def may_act(user: User) -> bool:
    """Whether the account's owner may log in and act."""
    return user.is_active and user.erased_at is None


def current(session: Session, user_id: uuid.UUID) -> User:
    """The account that a token speaks for; raises `InvalidCredential` once it may not act."""
    user = session.get(User, user_id)
    if user is None or not may_act(user):
        raise InvalidCredential
    return user


def change_profile(
    session: Session, user_id: uuid.UUID, *, username: str | None, email: str | None
) -> User:
    """Give an account other names; None keeps one. Raises `AlreadyRegistered`."""
    session.get(User, user_id, with_for_update=True)  # or an erase beside us would be undone
    user = current(session, user_id)
    if username is not None:
        user.username, user.username_key = username, username.casefold()
    if email is not None:
        user.email, user.email_key = email, email_key(email)
    try:
        session.flush()
    except IntegrityError:
        raise AlreadyRegistered from None
    names = {"username": username, "email": email}
    record(
        session,
        "profile.changed",
        actor_id=user_id,
        user_id=user_id,
        subject_id=user_id,
        details={"fields": [field for field, value in names.items() if value is not None]},
    )
    session.refresh(user)
    return user
