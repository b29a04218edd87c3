"""Revocable credentials: sessions, refresh tokens, API keys, identities; limits and usage.

Revises: 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_sessions()
    _create_refresh_tokens()
    _create_api_keys()
    _create_identities()
    _create_revocations()
    _create_usage()
    _alter_users()
    op.add_column("predictions", sa.Column("text_hash", sa.LargeBinary(), nullable=True))
    op.alter_column("predictions", "text", existing_type=sa.TEXT(), nullable=True)


def downgrade() -> None:
    op.execute("UPDATE predictions SET text = '' WHERE text IS NULL")
    op.alter_column("predictions", "text", existing_type=sa.TEXT(), nullable=False)
    op.drop_column("predictions", "text_hash")
    op.execute("UPDATE users SET password_hash = '!' WHERE password_hash IS NULL")
    op.drop_index("ix_users_erased", table_name="users")
    op.drop_constraint(op.f("ck_users_limits"), "users")
    op.alter_column("users", "password_hash", existing_type=sa.VARCHAR(length=255), nullable=False)
    for column in ("erased_at", "texts_per_day", "burst", "per_minute", "plan"):
        op.drop_column("users", column)
    for table in (
        "usage",
        "revocations",
        "identities",
        "api_keys",
        "refresh_tokens",
        "sessions",
    ):
        op.drop_table(table)


def _time(name: str, *, nullable: bool = True) -> "sa.Column[sa.DateTime]":
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _now(name: str) -> "sa.Column[sa.DateTime]":
    default = sa.text("now()")
    return sa.Column(name, sa.DateTime(timezone=True), server_default=default, nullable=False)


def _user_of(table: str) -> sa.ForeignKeyConstraint:
    name = f"fk_{table}_user_id_users"
    return sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=name, ondelete="CASCADE")


def _create_sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        _now("created_at"),
        _now("last_used_at"),
        _time("expires_at", nullable=False),
        _time("ended_at"),
        sa.Column("address", sa.String(length=45), nullable=True),
        sa.Column("user_agent", sa.String(length=256), nullable=True),
        sa.Column("scopes", ARRAY(sa.Text()), nullable=False),
        _user_of("sessions"),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
    )
    op.create_index("ix_sessions_expires_at", "sessions", ["expires_at"])
    op.create_index("ix_sessions_user_id_id", "sessions", ["user_id", "id"])


def _create_refresh_tokens() -> None:
    op.create_table(
        "refresh_tokens",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("parent_id", sa.Uuid(), nullable=True),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        _now("created_at"),
        _time("expires_at", nullable=False),
        _time("used_at"),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["sessions.id"],
            name="fk_refresh_tokens_session_id_sessions",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_refresh_tokens"),
        sa.UniqueConstraint("token_hash", name="uq_refresh_tokens_token_hash"),
    )
    op.create_index("ix_refresh_tokens_session_id", "refresh_tokens", ["session_id"])


def _create_api_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("scopes", ARRAY(sa.Text()), nullable=False),
        sa.Column("per_minute", sa.Integer(), nullable=True),
        _now("created_at"),
        _time("expires_at"),
        _time("last_used_at"),
        _time("revoked_at"),
        sa.CheckConstraint("per_minute > 0", name=op.f("ck_api_keys_per_minute")),
        _user_of("api_keys"),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
    )
    op.create_index("ix_api_keys_user_id_id", "api_keys", ["user_id", "id"])


def _create_identities() -> None:
    op.create_table(
        "identities",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("issuer", sa.String(length=512), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        _now("created_at"),
        _user_of("identities"),
        sa.PrimaryKeyConstraint("id", name="pk_identities"),
        sa.UniqueConstraint("issuer", "subject", name="uq_identities_issuer_subject"),
    )
    op.create_index("ix_identities_user_id", "identities", ["user_id"])


def _create_revocations() -> None:
    op.create_table(
        "revocations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        _now("revoked_at"),
        sa.PrimaryKeyConstraint("id", name="pk_revocations"),
    )
    op.create_index("ix_revocations_revoked_at", "revocations", ["revoked_at"])


def _create_usage() -> None:
    op.create_table(
        "usage",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=False),
        sa.Column("route", sa.String(length=64), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("texts", sa.BigInteger(), nullable=False),
        _user_of("usage"),
        sa.PrimaryKeyConstraint("user_id", "day", "key_id", "route", name="pk_usage"),
    )
    op.create_index("ix_usage_day", "usage", ["day"])


def _alter_users() -> None:
    op.add_column(
        "users",
        sa.Column("plan", sa.String(length=32), server_default="default", nullable=False),
    )
    op.add_column("users", sa.Column("per_minute", sa.Integer(), nullable=True))
    op.add_column("users", sa.Column("burst", sa.Integer(), nullable=True))
    op.add_column("users", sa.Column("texts_per_day", sa.BigInteger(), nullable=True))
    op.add_column("users", _time("erased_at"))
    op.alter_column("users", "password_hash", existing_type=sa.VARCHAR(length=255), nullable=True)
    op.create_check_constraint(
        op.f("ck_users_limits"),
        "users",
        "per_minute > 0 AND burst >= 0 AND texts_per_day >= 0",
    )
    op.create_index(
        "ix_users_erased",
        "users",
        ["erased_at"],
        postgresql_where=sa.text("erased_at IS NOT NULL"),
    )
