"""Accounts and what acts for them: login sessions, refresh tokens, API keys, outside identities."""

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

from valence_common.db import new_id
from valence_common.models.base import Base


class User(Base):
    """An account; `*_key` columns hold the canonical form that must be unique.

    Without `password_hash` it logs in elsewhere (OIDC). `plan` names its limits in the settings,
    and the columns after it override them. From `erased_at` on nothing but its id is left, until
    the worker has deleted all that was its own.
    """

    __tablename__ = "users"
    __table_args__ = (
        CheckConstraint("per_minute > 0 AND burst >= 0 AND texts_per_day >= 0", name="limits"),
        Index("ix_users_erased", "erased_at", postgresql_where=text("erased_at IS NOT NULL")),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
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


class LoginSession(Base):
    """One login, alive until `expires_at` unless it is ended; `sid` of its access tokens."""

    __tablename__ = "sessions"
    __table_args__ = (Index("ix_sessions_user_id_id", "user_id", "id"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_used_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(index=True)
    ended_at: Mapped[datetime | None]
    address: Mapped[str | None] = mapped_column(String(45))
    user_agent: Mapped[str | None] = mapped_column(String(256))
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))


class RefreshToken(Base):
    """One refresh token of a session's family, used once; only its SHA-256 is kept.

    `parent_id` is the token it was traded for: a lost answer can give one token two children.
    """

    __tablename__ = "refresh_tokens"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    session_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("sessions.id", ondelete="CASCADE"), index=True
    )
    parent_id: Mapped[uuid.UUID | None]
    token_hash: Mapped[bytes] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class ApiKey(Base):
    """A key for programs; only the SHA-256 of its secret is kept. Its scopes are fixed."""

    __tablename__ = "api_keys"
    __table_args__ = (
        CheckConstraint("per_minute > 0", name="per_minute"),
        Index("ix_api_keys_user_id_id", "user_id", "id"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(64))
    secret_hash: Mapped[bytes]
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    per_minute: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class Identity(Base):
    """Who a user is to an OpenID provider."""

    __tablename__ = "identities"
    __table_args__ = (UniqueConstraint("issuer", "subject"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    issuer: Mapped[str] = mapped_column(String(512))
    subject: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Revocation(Base):
    """News that a session or key may not act any more, or that what is known of a user changed.

    Every process reads the news of the last seconds, each second; rows are of no use once every
    access token that was signed before them has expired.
    """

    __tablename__ = "revocations"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    subject_id: Mapped[uuid.UUID]
    revoked_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)


class AuditEvent(Base):
    """Who did what to which thing, when; without content."""

    __tablename__ = "audit_events"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    actor_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("users.id", ondelete="SET NULL"), index=True
    )
    action: Mapped[str] = mapped_column(String(64))
    subject_id: Mapped[uuid.UUID | None] = mapped_column(index=True)
    details: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
