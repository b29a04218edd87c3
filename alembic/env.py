"""Run migrations one at a time under an advisory lock, with a short timeout for table locks.

Run `alembic upgrade head` from the checkout's root. The database URL comes from
VALENCE_DATABASE_URL, from the secrets folder, or from a caller in this process
(`config.attributes["database_url"]`). At the head, the roles that the settings name are granted
their rights again (see `grants.py`).
"""

import time
from pathlib import Path

from alembic import context
from alembic.util import load_python_file
from sqlalchemy import Connection, NullPool, text

from valence_common.db import make_engine
from valence_common.models import Base
from valence_common.settings import MigrationSettings, load

MIGRATION_LOCK = 0x76616C656E6365  # "valence" in ASCII; the same number in every release


def include_name(name: str | None, kind: str, _parents: object) -> bool:
    """Exclude the monthly partitions, which a function creates, from comparisons."""
    return not (kind == "table" and name is not None and name.startswith("predictions_"))


def lock(connection: Connection) -> None:
    """Wait for other migrations until the caller's deadline, or without limit if there is none.

    The deadline is in `time.monotonic()` seconds (`config.attributes["deadline"]`). Afterwards the
    timeout for table locks is 5 s.
    """
    deadline: float | None = context.config.attributes.get("deadline")
    # A timeout of the server, so that no session keeps waiting after its client has ended.
    timeout = 0 if deadline is None else max(1, round((deadline - time.monotonic()) * 1000))
    connection.execute(text("SET statement_timeout = 0"))
    connection.execute(text(f"SET lock_timeout = {timeout}"))
    connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
    connection.execute(text("SET lock_timeout = '5s'"))
    connection.commit()


def run() -> None:
    url = context.config.attributes.get("database_url")
    settings = None if url else load(MigrationSettings, alone=False)
    engine = make_engine(settings.database_url if settings else url, poolclass=NullPool)
    with engine.connect() as connection:
        lock(connection)
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            compare_type=True,
            compare_server_default=True,
            include_name=include_name,
            transaction_per_migration=True,
        )
        with context.begin_transaction():
            context.run_migrations()
        at_head = context.get_context().get_current_revision() == context.get_head_revision()
        if settings is not None and at_head:
            # Still under the lock: concurrent grants on one table fail.
            grants = load_python_file(str(Path(__file__).parent), "grants.py")
            grants.apply(connection, settings)
            connection.commit()


run()
