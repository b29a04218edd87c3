"""Accounts: valid names, registration, lookup and profile changes."""

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
    """The username or the e-mail address belongs to an existing account."""

    detail = "Username or email already registered"


def display_username(username: str) -> str:
    """Return the username as it is stored; raise ValueError if it has other characters."""
    normalized = unicodedata.normalize("NFKC", username)
    if not _USERNAME.fullmatch(normalized):
        raise ValueError("must be 3 to 64 letters, digits, dots, underscores or hyphens")
    return normalized


def username_key(username: str) -> str | None:
    """Return the unique form of a username, or None if the username is invalid."""
    try:
        return display_username(username).casefold()
    except ValueError:
        return None


def display_email(email: str) -> str:
    """Return the e-mail address as it is stored; raise ValueError if it is invalid."""
    try:
        valid = validate_email(email, check_deliverability=False, test_environment=True).normalized
    except EmailNotValidError:
        # The library's message quotes the address.
        raise ValueError("must be an e-mail address") from None
    # The canonical form of a character may be up to 18 times as long.
    if len(email_key(valid)) > MAX_EMAIL:
        raise ValueError("is too long")
    return valid


def email_key(email: str) -> str:
    """Return the unique form of an e-mail address."""
    return unicodedata.normalize("NFKC", email).casefold()


def register(
    session: Session, *, username: str, email: str, password_hash: str, by_owner: bool = True
) -> User:
    """Create an account; raise `AlreadyRegistered` if the username or e-mail address is taken.

    Without `by_owner` the audit log names no actor, as for an operator's command.
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
    """Write the audit entry and event of a new account."""
    actor_id = user_id if by_owner else None
    record(session, "account.registered", actor_id=actor_id, user_id=user_id)


def find(session: Session, username: str) -> User | None:
    """Return the account with that username in any case, or None."""
    # An invalid username is looked up too, as the empty one, so that it takes the same time.
    key = username_key(username) or ""
    return session.scalars(select(User).where(User.username_key == key)).one_or_none()


def may_act(user: User) -> bool:
    """Return whether the account is neither disabled nor erased."""
    return user.is_active and user.erased_at is None


def get_active(session: Session, user_id: uuid.UUID) -> User:
    """Return a user's account; raise `InvalidCredential` if it is disabled or erased."""
    user = session.get(User, user_id)
    if user is None or not may_act(user):
        raise InvalidCredential
    return user


def change_profile(
    session: Session, user_id: uuid.UUID, *, username: str | None, email: str | None
) -> User:
    """Change the username or e-mail address, unless None; raise `AlreadyRegistered`."""
    session.get(User, user_id, with_for_update=True)  # or this would undo a concurrent erasure
    user = get_active(session, user_id)
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
        user_id=user_id,
        details={"fields": [field for field, value in names.items() if value is not None]},
    )
    session.refresh(user)
    return user
