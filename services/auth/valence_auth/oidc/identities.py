"""Whose account an OpenID identity is: the one that it made, never one that it resembles."""

import re
import secrets
import unicodedata
from collections.abc import Iterator

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from valence_auth.accounts import display_email, email_key, record_registration
from valence_auth.logins import OpenSession
from valence_auth.oidc.id_tokens import Claims
from valence_auth.sessions import Grant
from valence_common.audit import record
from valence_common.models import Identity, User
from valence_common.problems import Conflict, Forbidden

MIN_NAME, MAX_NAME = 3, 48

_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9._-]+")


class EmailTaken(Conflict):
    """To link the two would give the account to whoever runs the provider's mail."""

    detail = "An account with this e-mail exists: log in with its password"


class EmailNotVerified(Forbidden):
    """An account needs an address, and the provider's word that it is this person's."""

    detail = "The provider did not confirm an e-mail address for this person"


def log_in(session: Session, claims: Claims, open_it: OpenSession) -> Grant:
    """A session for the account of an identity, which is made at its first login.

    Raises `EmailTaken` or `EmailNotVerified` when none can be made, and what `open_it` raises for
    an account that may not act.
    """
    return open_it(session, _linked(session, claims) or _new(session, claims))


def _linked(session: Session, claims: Claims) -> User | None:
    query = select(User).join(Identity, Identity.user_id == User.id)
    ours = query.where(Identity.issuer == claims.iss, Identity.subject == claims.sub)
    return session.scalars(ours).one_or_none()


def _new(session: Session, claims: Claims) -> User:
    email = _verified_email(claims)
    _wait_for_others(session, claims)
    if (user := _linked(session, claims)) is not None:
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


def _wait_for_others(session: Session, claims: Claims) -> None:
    """Let one transaction at a time make this identity's account."""
    lock = func.hashtextextended(f"{claims.iss} {claims.sub}", 0)
    session.execute(select(func.pg_advisory_xact_lock(lock)))


def _link(session: Session, user: User, claims: Claims) -> User:
    identity = Identity(user_id=user.id, issuer=claims.iss, subject=claims.sub)
    session.add(identity)
    session.flush()
    record_registration(session, user.id)
    record(
        session,
        "identity.linked",
        actor_id=user.id,
        user_id=user.id,
        subject_id=identity.id,
    )
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
    """Names to try without end: the one that the person has elsewhere, then with something added.

    A name elsewhere may be an address: then it is what stands before the `@`.
    """
    wanted = claims.preferred_username
    given = wanted if isinstance(wanted, str) and wanted else email
    plain = unicodedata.normalize("NFKC", given[:256].partition("@")[0])
    name = _NOT_ALLOWED.sub("-", plain)[:MAX_NAME].strip("-._")
    if len(name) >= MIN_NAME:
        yield name
    while True:
        yield f"{name or 'user'}-{secrets.token_hex(4)}"
