"""Accounts made in the database itself, for tests of nouns."""

import uuid
from typing import Any

from sqlalchemy.orm import Session

from valence_auth import accounts
from valence_common.models import User


def make(session: Session, name: str | None = None, **columns: Any) -> User:
    """A new account."""
    name = name or f"user-{uuid.uuid4().hex[:12]}"
    user = accounts.register(session, username=name, email=f"{name}@example.com", password_hash="x")
    for column, value in columns.items():
        setattr(user, column, value)
    session.flush()
    return user
