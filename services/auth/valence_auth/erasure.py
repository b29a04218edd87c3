"""Erasing an account: at once nobody may act for it and its names are free; its data follows.

This transaction is small whatever the account holds. The worker deletes all the rest in pieces
(`valence_batch_worker.cleanup.erasure`), at last the row that is left of the account here.
"""

import uuid

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from valence_auth import sessions
from valence_common.audit import record
from valence_common.models import ApiKey, Identity, User
from valence_common.problems import Conflict
from valence_common.revocations import revoke
from valence_common.setting_types import DEFAULT_PLAN


class LastSuperuser(Conflict):
    """Nobody could administer the installation any more."""

    detail = "The last administrator cannot be erased: make another one first"


def erase(session: Session, user: User, *, actor_id: uuid.UUID | None = None) -> None:
    """Erase an account on its owner's wish, or an administrator's (`actor_id`).

    Nothing happens to one that is erased already or gone. Raises `LastSuperuser`.
    """
    # The lock keeps a login under way from opening a session that would not be seen here.
    current = session.get(User, user.id, with_for_update=True, populate_existing=True)
    if current is None or current.erased_at is not None:
        return
    if current.is_superuser and not _others_administer(session, current):
        raise LastSuperuser
    _forget(current)
    sessions.end_all(session, user.id)
    session.execute(delete(Identity).where(Identity.user_id == user.id))
    revoke(session, [*_end_keys(session, user.id), user.id])
    record(
        session,
        "account.erased",
        actor_id=actor_id or user.id,
        user_id=user.id,
        subject_id=user.id,
    )


def _others_administer(session: Session, user: User) -> bool:
    others = select(User.id).where(
        User.is_superuser, User.is_active, User.erased_at.is_(None), User.id != user.id
    )
    return session.scalars(others.limit(1)).first() is not None


def _forget(user: User) -> None:
    """Replace all that people chose or gave, by names that nobody can register."""
    user.username = f"erased-{user.id.hex}"
    user.username_key = f"erased:{user.id.hex}"
    user.email = user.email_key = f"{user.id}@erased.invalid"
    user.password_hash = None
    user.is_active = user.is_superuser = False
    user.plan = DEFAULT_PLAN
    user.per_minute = user.burst = user.texts_per_day = None
    user.erased_at = func.now()


def _end_keys(session: Session, user_id: uuid.UUID) -> list[uuid.UUID]:
    alive = (ApiKey.user_id == user_id, ApiKey.revoked_at.is_(None))
    statement = update(ApiKey).where(*alive).values(revoked_at=func.now())
    return list(session.scalars(statement.returning(ApiKey.id)))
