"""The database rights of each service's role: the tables and columns that its code uses.

The list is complete and applied after every upgrade: other rights are revoked. Constraints and
partitions act as the owner and need no rights. The database administrator creates the roles;
without names in the settings nothing is granted.
"""

from alembic.util import CommandError
from sqlalchemy import Connection, text

from valence_common.models import Base
from valence_common.settings import MigrationSettings

GRANTS: dict[str, tuple[str, ...]] = {
    "auth_role": (
        "SELECT, INSERT, UPDATE, DELETE ON users",
        "SELECT, INSERT, UPDATE, DELETE ON sessions",
        "SELECT, INSERT, UPDATE, DELETE ON refresh_tokens",
        "SELECT, INSERT, UPDATE, DELETE ON api_keys",
        "SELECT, INSERT, DELETE ON identities",
        "SELECT, INSERT ON revocations",
        "SELECT, INSERT ON audit_events",
        "SELECT ON usage",
        # The data export reads all data of a user.
        "SELECT ON predictions",
        "SELECT ON batches",
        "SELECT ON batch_chunks",
        "SELECT ON batch_results",
        "SELECT (id, user_id, created_at, expires_at) ON webhook_secrets",
        "SELECT ON webhook_deliveries",
        "INSERT ON events",
        "SELECT ON alembic_version",
    ),
    "inference_role": (
        # API keys and limits, but not the password hash.
        "SELECT (id, is_active, erased_at, plan, per_minute, burst, texts_per_day) ON users",
        "SELECT ON api_keys",
        "UPDATE (last_used_at) ON api_keys",
        "SELECT ON revocations",
        "SELECT, INSERT, UPDATE ON usage",
        "SELECT, INSERT, DELETE ON predictions",
        "SELECT, INSERT, UPDATE (status, started_at, finished_at, deleted_at) ON batches",
        "SELECT, INSERT, DELETE ON batch_chunks",
        "SELECT, DELETE ON batch_results",
        "SELECT, INSERT, DELETE ON idempotency_keys",
        # Secrets are created and returned once, and never read again.
        "SELECT (id, user_id, created_at, expires_at), INSERT ON webhook_secrets",
        "UPDATE (expires_at), DELETE ON webhook_secrets",
        "SELECT, INSERT, UPDATE (status, next_at, finished_at) ON webhook_deliveries",
        "SELECT ON webhook_attempts",
        "INSERT ON audit_events",
        "INSERT ON events",
        "SELECT ON alembic_version",
    ),
    "worker_role": (
        # Erasure and retention delete rows.
        "SELECT (id, erased_at), DELETE ON users",
        "SELECT, DELETE ON sessions",
        "SELECT, DELETE ON refresh_tokens",
        "SELECT, DELETE ON api_keys",
        "SELECT, DELETE ON identities",
        "SELECT, DELETE ON revocations",
        "SELECT, DELETE ON usage",
        "SELECT, UPDATE, DELETE ON batches",
        "SELECT, INSERT, UPDATE, DELETE ON batch_chunks",
        "SELECT, INSERT, DELETE ON batch_results",
        "SELECT, DELETE ON idempotency_keys",
        "SELECT, DELETE ON webhook_secrets",
        "SELECT, INSERT, UPDATE ON webhook_deliveries",
        "INSERT ON webhook_attempts",
        "SELECT, INSERT, UPDATE (number), DELETE ON events",
        # After a restore from a backup, numbers must continue beyond those already in the stream.
        "USAGE, SELECT, UPDATE ON SEQUENCE event_numbers",
        "SELECT (created_at, id, user_id), INSERT, DELETE ON predictions",
        "SELECT (id, created_at, actor_id), INSERT, UPDATE (actor_id), DELETE ON audit_events",
        "SELECT ON alembic_version",
        "EXECUTE ON FUNCTION valence_make_partitions(integer)",
    ),
}
"""By the setting that names the role. `INSERT … RETURNING` needs SELECT on the columns."""

TABLES = ", ".join([*Base.metadata.tables, "alembic_version"])
OTHERS = ("FUNCTION valence_make_partitions(integer)", "SEQUENCE event_numbers")


def apply(connection: Connection, settings: MigrationSettings) -> None:
    """Grant each named role exactly its rights, in the current transaction."""
    quote = connection.dialect.identifier_preparer.quote
    schema = quote(connection.scalar(text("SELECT current_schema()")))
    for setting, rights in GRANTS.items():
        name = getattr(settings, setting)
        if name is None:
            continue
        exists = connection.scalar(text("SELECT 1 FROM pg_roles WHERE rolname = :n"), {"n": name})
        if exists is None:
            raise CommandError(
                f"VALENCE_{setting.upper()} names a role that does not exist: {name}"
            )
        role = quote(name)
        connection.execute(text(f"REVOKE ALL ON {TABLES} FROM {role}"))
        for other in OTHERS:
            connection.execute(text(f"REVOKE ALL ON {other} FROM {role}"))
        connection.execute(text(f"GRANT USAGE ON SCHEMA {schema} TO {role}"))
        for right in rights:
            connection.execute(text(f"GRANT {right} TO {role}"))
