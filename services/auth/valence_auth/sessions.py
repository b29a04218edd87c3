"""Login sessions: an access token, and a refresh token of which only the hash is stored."""

import hashlib
import secrets
import uuid
from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from valence_common.db import new_id
from valence_common.models import RefreshToken

REFRESH_BYTES = 32


def open_session(
    session: Session, user_id: uuid.UUID, *, lifetime: timedelta
) -> tuple[uuid.UUID, str]:
    """Begin a family of refresh tokens; returns the login session's id and its first token."""
    family_id, token = new_id(), secrets.token_urlsafe(REFRESH_BYTES)
    session.add(
        RefreshToken(
            user_id=user_id,
            family_id=family_id,
            token_hash=hashlib.sha256(token.encode()).digest(),
            expires_at=datetime.now(UTC) + lifetime,
        )
    )
    return family_id, token
