"""Login sessions: an access token, and a refresh token of which only the hash is stored."""

import hashlib
import secrets
import uuid
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy.orm import Session

from valence_common.db import new_id
from valence_common.models import LoginSession, RefreshToken, User
from valence_common.security import ADMIN, SCOPES

REFRESH_BYTES = 32


class Opened(NamedTuple):
    """A session as its owner gets it."""

    session_id: uuid.UUID
    scopes: list[str]
    refresh_token: str


def scopes_of(user: User) -> list[str]:
    """What a user's own sessions may do."""
    return [scope for scope in SCOPES if scope != ADMIN or user.is_superuser]


def open_session(session: Session, user: User, *, lifetime: timedelta) -> Opened:
    """Begin a session with the first token of its family."""
    opened = Opened(new_id(), scopes_of(user), secrets.token_urlsafe(REFRESH_BYTES))
    expires_at = datetime.now(UTC) + lifetime
    session.add(
        LoginSession(
            id=opened.session_id, user_id=user.id, expires_at=expires_at, scopes=opened.scopes
        )
    )
    session.flush()
    session.add(
        RefreshToken(
            session_id=opened.session_id,
            token_hash=hashlib.sha256(opened.refresh_token.encode()).digest(),
            expires_at=expires_at,
        )
    )
    return opened
