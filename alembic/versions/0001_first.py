"""The first schema: users, history, batches, audit.

Revises: nothing
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Runs with the rights of the schema's owner, so that the worker, which may not create tables, can
# create the partitions of the next months. Rows of a month that the default partition already
# holds stay there.
PARTITIONS = """
CREATE FUNCTION valence_make_partitions(ahead integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    first timestamptz;
    part text;
    made integer := 0;
BEGIN
    FOR i IN 0..least(ahead, 24) LOOP
        first := date_trunc('month', now()) + make_interval(months => i);
        part := 'predictions_' || to_char(first, 'YYYY_MM');
        CONTINUE WHEN to_regclass(format('{schema}.%I', part)) IS NOT NULL;
        BEGIN
            EXECUTE format(
                'CREATE TABLE {schema}.%I PARTITION OF {schema}.predictions'
                ' FOR VALUES FROM (%L) TO (%L)',
                part, first, first + interval '1 month');
            made := made + 1;
        EXCEPTION WHEN check_violation OR duplicate_table THEN
            NULL;
        END;
    END LOOP;
    RETURN made;
END $$
"""


def upgrade() -> None:
    _create_users()
    _create_predictions()
    _create_batches()
    _create_batch_chunks()
    _create_batch_results()
    _create_audit_events()
    schema = op.get_bind().scalar(sa.text("SELECT quote_ident(current_schema())"))
    op.execute("CREATE TABLE predictions_default PARTITION OF predictions DEFAULT")
    op.execute(PARTITIONS.replace("{schema}", schema))
    op.execute("REVOKE ALL ON FUNCTION valence_make_partitions(integer) FROM PUBLIC")
    op.execute("SELECT valence_make_partitions(3)")


def downgrade() -> None:
    op.execute("DROP FUNCTION valence_make_partitions(integer)")
    for table in (
        "audit_events",
        "batch_results",
        "batch_chunks",
        "batches",
        "predictions",
        "users",
    ):
        op.drop_table(table)


def _create_users() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("username", sa.String(length=64), nullable=False),
        sa.Column("username_key", sa.String(length=64), nullable=False),
        sa.Column("email", sa.String(length=254), nullable=False),
        sa.Column("email_key", sa.String(length=254), nullable=False),
        sa.Column("password_hash", sa.String(length=255), nullable=False),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("is_superuser", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("email_key", name="uq_users_email_key"),
        sa.UniqueConstraint("username_key", name="uq_users_username_key"),
    )


def _create_predictions() -> None:
    op.create_table(
        "predictions",
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("sentiment", sa.String(length=8), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=False),
        sa.Column("low_confidence", sa.Boolean(), nullable=False),
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.CheckConstraint(
            "sentiment IN ('positive', 'negative')", name=op.f("ck_predictions_sentiment")
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_predictions_user_id_users", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("created_at", "id", name="pk_predictions"),
        postgresql_partition_by="RANGE (created_at)",
    )
    op.create_index(
        "ix_predictions_user_id_created_at_id", "predictions", ["user_id", "created_at", "id"]
    )


def _create_batches() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.String(length=24), server_default="pending", nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('pending', 'processing', 'completed', 'completed_with_errors',"
            " 'failed', 'cancelled')",
            name=op.f("ck_batches_status"),
        ),
        sa.CheckConstraint("total > 0", name=op.f("ck_batches_total")),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_batches_user_id_users", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_batches"),
    )
    op.create_index("ix_batches_user_id", "batches", ["user_id"])


def _create_batch_chunks() -> None:
    op.create_table(
        "batch_chunks",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("batch_id", sa.Uuid(), nullable=False),
        sa.Column("start", sa.Integer(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("texts", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=8), server_default="pending", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "available_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("model", sa.String(length=128), nullable=True),
        sa.CheckConstraint(
            "(state = 'running') = (lease_until IS NOT NULL)", name=op.f("ck_batch_chunks_lease")
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'running', 'done')", name=op.f("ck_batch_chunks_state")
        ),
        sa.CheckConstraint("size > 0", name=op.f("ck_batch_chunks_size")),
        sa.ForeignKeyConstraint(
            ["batch_id"],
            ["batches.id"],
            name="fk_batch_chunks_batch_id_batches",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_batch_chunks"),
    )
    op.create_index("ix_batch_chunks_batch_id", "batch_chunks", ["batch_id"])
    op.create_index(
        "ix_batch_chunks_pending",
        "batch_chunks",
        ["available_at", "id"],
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        "ix_batch_chunks_tried",
        "batch_chunks",
        ["attempt"],
        postgresql_where=sa.text("state = 'pending' AND attempt > 0"),
    )
    op.create_index(
        "ix_batch_chunks_running",
        "batch_chunks",
        ["lease_until"],
        postgresql_where=sa.text("state = 'running'"),
    )


def _create_batch_results() -> None:
    op.create_table(
        "batch_results",
        sa.Column("batch_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("sentiment", sa.String(length=8), nullable=True),
        sa.Column("confidence", sa.Double(), nullable=True),
        sa.Column("low_confidence", sa.Boolean(), nullable=True),
        sa.Column("error", sa.String(length=64), nullable=True),
        sa.CheckConstraint(
            "(sentiment IS NULL) = (error IS NOT NULL)", name=op.f("ck_batch_results_outcome")
        ),
        sa.ForeignKeyConstraint(
            ["batch_id"],
            ["batches.id"],
            name="fk_batch_results_batch_id_batches",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("batch_id", "position", name="pk_batch_results"),
    )


def _create_audit_events() -> None:
    op.create_table(
        "audit_events",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("actor_id", sa.Uuid(), nullable=True),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("subject_id", sa.Uuid(), nullable=True),
        sa.Column("details", JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.ForeignKeyConstraint(
            ["actor_id"], ["users.id"], name="fk_audit_events_actor_id_users", ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_audit_events"),
    )
    op.create_index("ix_audit_events_actor_id", "audit_events", ["actor_id"])
    op.create_index("ix_audit_events_subject_id", "audit_events", ["subject_id"])
