"""Erasure of an account: its credentials end and its names are free at once; its data follows.

This transaction is small, however much data the account has. The worker deletes the rest in small
transactions (`valence_batch_worker.cleanup.erasure`), and the account's row last.
"""

import uuid

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from valence_auth import sessions
from valence_common.audit import record
from valence_common.models import ApiKey, Identity, User
from valence_common.problems import Conflict
from valence_common.revocations import invalidate, revoke
from valence_common.setting_types import DEFAULT_PLAN


class LastSuperuser(Conflict):
    """The installation would be left without an administrator."""

    detail = "The last administrator cannot be erased; create another one first"


def erase(session: Session, user: User, *, actor_id: uuid.UUID | None = None) -> None:
    """Erase an account for its owner, or for an administrator (`actor_id`).

    Do nothing if it is already erased or deleted. Raise `LastSuperuser`.
    """
    # The lock keeps a concurrent login from opening a session that this would not end.
    current = session.get(User, user.id, with_for_update=True, populate_existing=True)
    if current is None or current.erased_at is not None:
        return
    if current.is_superuser and not _another_superuser_exists(session, current):
        raise LastSuperuser
    _anonymise(current)
    sessions.end_all(session, user.id)
    session.execute(delete(Identity).where(Identity.user_id == user.id))
    revoke(session, _end_keys(session, user.id))
    invalidate(session, user.id)
    record(session, "account.erased", actor_id=actor_id or user.id, user_id=user.id)


def _another_superuser_exists(session: Session, user: User) -> bool:
    others = select(User.id).where(
        User.is_superuser, User.is_active, User.erased_at.is_(None), User.id != user.id
    )
    return session.scalars(others.limit(1)).first() is not None


def _anonymise(user: User) -> None:
    """Overwrite all personal data, with names that cannot be registered."""
    user.username = f"erased-{user.id.hex}"
    user.username_key = f"erased:{user.id.hex}"
    user.email = user.email_key = f"{user.id}@erased.invalid"
    user.password_hash = None
    user.is_active = user.is_superuser = False
    user.plan = DEFAULT_PLAN
    user.per_minute = user.burst = user.texts_per_day = None
    user.erased_at = func.now()


def _end_keys(session: Session, user_id: uuid.UUID) -> list[uuid.UUID]:
    unrevoked = (ApiKey.user_id == user_id, ApiKey.revoked_at.is_(None))
    statement = update(ApiKey).where(*unrevoked).values(revoked_at=func.now())
    return list(session.scalars(statement.returning(ApiKey.id)))
