"""Accounts and their credentials: login sessions, refresh tokens, API keys, OpenID identities."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    String,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from valence_common.models.base import Entity


class User(Entity):
    """An account; `*_key` columns hold the canonical form that must be unique.

    An account without `password_hash` logs in with OpenID Connect. `plan` names its limits in the
    settings, and the columns after it override them. From `erased_at` on the row holds nothing
    personal; the worker deletes it once it has deleted everything that belongs to the account.
    """

    __tablename__ = "users"
    __table_args__ = (
        CheckConstraint("per_minute > 0 AND burst >= 0 AND texts_per_day >= 0", name="limits"),
        Index("ix_users_erased", "erased_at", postgresql_where=text("erased_at IS NOT NULL")),
    )

    username: Mapped[str] = mapped_column(String(64))
    username_key: Mapped[str] = mapped_column(String(64), unique=True)
    email: Mapped[str] = mapped_column(String(254))
    email_key: Mapped[str] = mapped_column(String(254), unique=True)
    password_hash: Mapped[str | None] = mapped_column(String(255))
    is_active: Mapped[bool] = mapped_column(server_default=text("true"), default=True)
    is_superuser: Mapped[bool] = mapped_column(server_default=text("false"), default=False)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())
    plan: Mapped[str] = mapped_column(String(32), server_default="default", default="default")
    per_minute: Mapped[int | None]
    burst: Mapped[int | None]
    texts_per_day: Mapped[int | None] = mapped_column(BigInteger)
    erased_at: Mapped[datetime | None]


class LoginSession(Entity):
    """A login, live until `expires_at` or `ended_at`; its id is the `sid` of its access tokens."""

    __tablename__ = "sessions"
    __table_args__ = (Index("ix_sessions_user_id_id", "user_id", "id"),)

    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_used_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(index=True)
    ended_at: Mapped[datetime | None]
    address: Mapped[str | None] = mapped_column(String(45))
    user_agent: Mapped[str | None] = mapped_column(String(256))
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))


class RefreshToken(Entity):
    """A single-use refresh token of a session; only its SHA-256 is stored.

    `parent_id` is the token that was exchanged for it. A token can have two children: a client
    whose response was lost exchanges it again.
    """

    __tablename__ = "refresh_tokens"

    session_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("sessions.id", ondelete="CASCADE"), index=True
    )
    parent_id: Mapped[uuid.UUID | None]
    token_hash: Mapped[bytes] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class ApiKey(Entity):
    """An API key; only the SHA-256 of its secret is stored. Its scopes never change."""

    __tablename__ = "api_keys"
    __table_args__ = (
        CheckConstraint("per_minute > 0", name="per_minute"),
        Index("ix_api_keys_user_id_id", "user_id", "id"),
    )

    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(64))
    secret_hash: Mapped[bytes]
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    per_minute: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class Identity(Entity):
    """A user's identity at an OpenID provider."""

    __tablename__ = "identities"
    __table_args__ = (UniqueConstraint("issuer", "subject"),)

    user_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    issuer: Mapped[str] = mapped_column(String(512))
    subject: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Revocation(Entity):
    """A revoked session or API key, or a user whose cached data is invalid.

    Every process polls the latest rows once a second. A row is obsolete once every access token
    that was signed before it has expired.
    """

    __tablename__ = "revocations"

    subject_id: Mapped[uuid.UUID]
    revoked_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)


class AuditEvent(Entity):
    """One entry of the audit log: actor, action, subject and time, never content."""

    __tablename__ = "audit_events"

    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    actor_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("users.id", ondelete="SET NULL"), index=True
    )
    action: Mapped[str] = mapped_column(String(64))
    subject_id: Mapped[uuid.UUID | None] = mapped_column(index=True)
    details: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
