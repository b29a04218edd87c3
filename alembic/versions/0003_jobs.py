"""Batches with files, priorities, idempotency keys, webhooks and events; a queue fair to users.

Revises: 0002
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# The previous release writes chunks without their user, and its pods run during the rollout. The
# next release can drop this and make the column NOT NULL.
OWNER = """
CREATE FUNCTION valence_own_chunk() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.user_id := (SELECT user_id FROM {schema}.batches WHERE id = NEW.batch_id);
    RETURN NEW;
END $$
"""
TRIGGER = """
CREATE TRIGGER batch_chunks_own BEFORE INSERT ON batch_chunks
FOR EACH ROW WHEN (NEW.user_id IS NULL) EXECUTE FUNCTION valence_own_chunk()
"""
# Completed chunks are not in the queue, and there can be many of them.
FILL = """
UPDATE batch_chunks SET user_id = batches.user_id
FROM batches WHERE batches.id = batch_chunks.batch_id AND batch_chunks.state <> 'done'
"""


def upgrade() -> None:
    _alter_batches()
    _alter_batch_chunks()
    _create_idempotency_keys()
    _create_webhook_secrets()
    _create_webhook_deliveries()
    _create_webhook_attempts()
    _create_events()


def downgrade() -> None:
    for table in (
        "events",
        "webhook_attempts",
        "webhook_deliveries",
        "webhook_secrets",
        "idempotency_keys",
    ):
        op.drop_table(table)
    op.execute("DROP SEQUENCE event_numbers")
    op.execute("DROP TRIGGER batch_chunks_own ON batch_chunks")
    op.execute("DROP FUNCTION valence_own_chunk()")
    op.drop_index("ix_batch_chunks_queue", table_name="batch_chunks")
    op.drop_constraint(op.f("ck_batch_chunks_user"), "batch_chunks")
    op.drop_index("ix_batch_chunks_batch_id_start", table_name="batch_chunks")
    op.create_index("ix_batch_chunks_batch_id", "batch_chunks", ["batch_id"])
    for column in ("done_at", "rows", "priority", "user_id"):
        op.drop_column("batch_chunks", column)
    op.create_index(
        "ix_batch_chunks_pending",
        "batch_chunks",
        ["available_at", "id"],
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.drop_index("ix_batches_deleted", table_name="batches")
    op.drop_index("ix_batches_user_id_id", table_name="batches")
    op.create_index("ix_batches_user_id", "batches", ["user_id"])
    for name in ("columns", "format", "priority"):
        op.drop_constraint(op.f(f"ck_batches_{name}"), "batches")
    for column in ("webhook_url", "text_column", "columns", "format", "priority", "deleted_at"):
        op.drop_column("batches", column)


def _time(name: str) -> "sa.Column[sa.DateTime]":
    return sa.Column(name, sa.DateTime(timezone=True), nullable=True)


def _now(name: str) -> "sa.Column[sa.DateTime]":
    default = sa.text("now()")
    return sa.Column(name, sa.DateTime(timezone=True), server_default=default, nullable=False)


def _priority() -> "sa.Column[int]":
    return sa.Column("priority", sa.SmallInteger(), server_default=sa.text("5"), nullable=False)


def _reference(table: str, column: str, parent: str) -> sa.ForeignKeyConstraint:
    name = f"fk_{table}_{column}_{parent}"
    return sa.ForeignKeyConstraint([column], [f"{parent}.id"], name=name, ondelete="CASCADE")


def _alter_batches() -> None:
    op.add_column("batches", _time("deleted_at"))
    op.add_column("batches", _priority())
    op.add_column(
        "batches",
        sa.Column("format", sa.String(length=8), server_default="json", nullable=False),
    )
    op.add_column("batches", sa.Column("columns", sa.JSON(), nullable=True))
    op.add_column("batches", sa.Column("text_column", sa.Integer(), nullable=True))
    op.add_column("batches", sa.Column("webhook_url", sa.String(length=2048), nullable=True))
    for name, rule in (
        ("priority", "priority BETWEEN 1 AND 9"),
        ("format", "format IN ('json', 'csv', 'ndjson')"),
        ("columns", "(columns IS NULL) = (text_column IS NULL)"),
    ):
        op.create_check_constraint(op.f(f"ck_batches_{name}"), "batches", rule)
    op.create_index("ix_batches_user_id_id", "batches", ["user_id", "id"])
    op.drop_index("ix_batches_user_id", table_name="batches")
    op.create_index(
        "ix_batches_deleted",
        "batches",
        ["deleted_at"],
        postgresql_where=sa.text("deleted_at IS NOT NULL"),
    )


def _alter_batch_chunks() -> None:
    op.add_column("batch_chunks", sa.Column("user_id", sa.Uuid(), nullable=True))
    op.add_column("batch_chunks", _priority())
    op.add_column("batch_chunks", sa.Column("rows", sa.JSON(), nullable=True))
    op.add_column("batch_chunks", _time("done_at"))
    schema = op.get_bind().scalar(sa.text("SELECT quote_ident(current_schema())"))
    op.execute(OWNER.replace("{schema}", schema))
    op.execute(TRIGGER)
    op.execute(FILL)
    op.create_check_constraint(
        op.f("ck_batch_chunks_user"), "batch_chunks", "state = 'done' OR user_id IS NOT NULL"
    )
    op.create_index(
        "ix_batch_chunks_queue",
        "batch_chunks",
        ["user_id", "priority", "available_at", "id"],
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.drop_index("ix_batch_chunks_pending", table_name="batch_chunks")
    # Results are read in the order of their index, joined with the chunks that hold their texts.
    op.create_index("ix_batch_chunks_batch_id_start", "batch_chunks", ["batch_id", "start"])
    op.drop_index("ix_batch_chunks_batch_id", table_name="batch_chunks")


def _create_idempotency_keys() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("batch_id", sa.Uuid(), nullable=False),
        _now("created_at"),
        _reference("idempotency_keys", "user_id", "users"),
        _reference("idempotency_keys", "batch_id", "batches"),
        sa.PrimaryKeyConstraint("user_id", "key", name="pk_idempotency_keys"),
    )
    op.create_index("ix_idempotency_keys_batch_id", "idempotency_keys", ["batch_id"])
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])


def _create_webhook_secrets() -> None:
    op.create_table(
        "webhook_secrets",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("secret", sa.String(length=64), nullable=False),
        _now("created_at"),
        _time("expires_at"),
        _reference("webhook_secrets", "user_id", "users"),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_secrets"),
    )
    op.create_index("ix_webhook_secrets_user_id", "webhook_secrets", ["user_id"])


def _create_webhook_deliveries() -> None:
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("batch_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("event", sa.String(length=64), nullable=False),
        sa.Column("done", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failed", sa.Integer(), server_default="0", nullable=False),
        _time("started_at"),
        _now("ended_at"),
        sa.Column("status", sa.String(length=16), server_default="pending", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        _now("next_at"),
        _now("created_at"),
        _time("finished_at"),
        sa.CheckConstraint(
            "status IN ('pending', 'delivered', 'failed')",
            name=op.f("ck_webhook_deliveries_status"),
        ),
        _reference("webhook_deliveries", "batch_id", "batches"),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_deliveries"),
    )
    op.create_index("ix_webhook_deliveries_batch_id", "webhook_deliveries", ["batch_id"])
    op.create_index(
        "ix_webhook_deliveries_due",
        "webhook_deliveries",
        ["next_at"],
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index(
        "ix_webhook_deliveries_queue",
        "webhook_deliveries",
        ["user_id", "next_at"],
        postgresql_where=sa.text("status = 'pending'"),
    )


def _create_webhook_attempts() -> None:
    op.create_table(
        "webhook_attempts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("delivery_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("status_code", sa.Integer(), nullable=True),
        sa.Column("error", sa.String(length=64), nullable=True),
        _reference("webhook_attempts", "delivery_id", "webhook_deliveries"),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_attempts"),
    )
    op.create_index("ix_webhook_attempts_delivery_id", "webhook_attempts", ["delivery_id"])


def _create_events() -> None:
    op.execute("CREATE SEQUENCE event_numbers")
    op.create_table(
        "events",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=True),
        sa.Column("type", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("subject_id", sa.Uuid(), nullable=True),
        sa.Column("data", JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
        sa.UniqueConstraint("number", name="uq_events_number"),
    )
    op.create_index(
        "ix_events_waiting",
        "events",
        ["created_at", "id"],
        postgresql_where=sa.text("number IS NULL"),
    )
    op.create_index("ix_events_created_at", "events", ["created_at"])
