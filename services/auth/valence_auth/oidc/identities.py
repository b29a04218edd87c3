"""The account of an OpenID identity: the one that it created, never one with the same e-mail."""

import re
import secrets
import unicodedata
from collections.abc import Iterator

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from valence_auth.accounts import display_email, email_key, record_registration
from valence_auth.oidc.id_tokens import Claims
from valence_auth.sessions import Grant, SessionRequest, open_session
from valence_common import postgres
from valence_common.audit import record
from valence_common.models import Identity, User
from valence_common.problems import Conflict, Forbidden

MIN_NAME, MAX_NAME = 3, 48

_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9._-]+")


class EmailTaken(Conflict):
    """The e-mail has an account; linking it would hand the account to the provider's operator."""

    detail = "An account with this e-mail address exists; log in with its password"


class EmailNotVerified(Forbidden):
    """The provider gave no e-mail address, or did not confirm it."""

    detail = "The OpenID provider did not confirm your e-mail address"


def log_in(session: Session, claims: Claims, request: SessionRequest) -> Grant:
    """Open a session for the account of an identity; its first login creates the account.

    Raise `EmailTaken` or `EmailNotVerified` when it cannot be created, and what `open_session`
    raises.
    """
    user = _find_linked(session, claims) or _create(session, claims)
    return open_session(session, user, request)


def _find_linked(session: Session, claims: Claims) -> User | None:
    query = select(User).join(Identity, Identity.user_id == User.id)
    linked = query.where(Identity.issuer == claims.iss, Identity.subject == claims.sub)
    return session.scalars(linked).one_or_none()


def _create(session: Session, claims: Claims) -> User:
    email = _verified_email(claims)
    # One transaction at a time may create this identity's account.
    postgres.lock(session, f"valence.identity.{claims.iss} {claims.sub}")
    if (user := _find_linked(session, claims)) is not None:
        return user
    for username in _usernames(claims, email):
        statement = insert(User).values(
            username=username,
            username_key=username.casefold(),
            email=email,
            email_key=email_key(email),
        )
        user = session.scalars(statement.on_conflict_do_nothing().returning(User)).one_or_none()
        if user is not None:
            return _link(session, user, claims)
        if session.scalar(select(User.id).where(User.email_key == email_key(email))) is not None:
            break
    raise EmailTaken


def _link(session: Session, user: User, claims: Claims) -> User:
    identity = Identity(user_id=user.id, issuer=claims.iss, subject=claims.sub)
    session.add(identity)
    session.flush()
    record_registration(session, user.id)
    record(session, "identity.linked", user_id=user.id, subject_id=identity.id)
    return user


def _verified_email(claims: Claims) -> str:
    # Some providers write the boolean as a string.
    verified = claims.email_verified is True or claims.email_verified == "true"
    if not isinstance(claims.email, str) or not verified:
        raise EmailNotVerified
    try:
        return display_email(claims.email)
    except ValueError:
        raise EmailNotVerified from None


def _usernames(claims: Claims, email: str) -> Iterator[str]:
    """Yield usernames to try, without end: the provider's, then the same with random suffixes.

    If the provider's username is missing or an e-mail address, use the part before the `@`.
    """
    preferred = claims.preferred_username
    source = preferred if isinstance(preferred, str) and preferred else email
    plain = unicodedata.normalize("NFKC", source[:256].partition("@")[0])
    name = _NOT_ALLOWED.sub("-", plain)[:MAX_NAME].strip("-._")
    if len(name) >= MIN_NAME:
        yield name
    while True:
        yield f"{name or 'user'}-{secrets.token_hex(4)}"
