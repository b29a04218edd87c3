"""Database migrations at start-up: one container migrates, all others wait for it.

`python -m valence_common.migrations upgrade` migrates to the head of this release; `… wait` returns
once the database is at that head. Both accept an unknown revision as that of a newer release: code
N-1 works with schema N, so a rollback can start.
"""

import sys
import time
from collections.abc import Callable

import structlog
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from valence_common import log
from valence_common.db import Database
from valence_common.problems import Unavailable
from valence_common.settings import MigrationSettings, SettingsError, load
from valence_common.web.process import exit_with_error

QUERY_SECONDS = 5.0
RETRY_SECONDS = 1.0

# Until the grants that follow the last revision, a service's role may not read the table.
_READABLE = text(
    "SELECT coalesce(has_table_privilege(to_regclass('alembic_version'), 'SELECT'), false)"
)
_REVISION = text("SELECT version_num FROM alembic_version")


class SchemaError(Exception):
    """The schema will not become the one of this release; the message is for operators."""


class Schema:
    """The migration history of this release, and the database that it applies to."""

    def __init__(self, settings: MigrationSettings):
        if not (settings.migrations_dir / "env.py").is_file():
            raise SchemaError(f"there is no migration history in {settings.migrations_dir}")
        self._config = Config()
        self._config.set_main_option("script_location", str(settings.migrations_dir))
        scripts = ScriptDirectory.from_config(self._config)
        self._known = {script.revision for script in scripts.walk_revisions()}
        self.head = scripts.get_current_head()
        self._database = Database(
            settings.database_url, pool_size=1, timeout=QUERY_SECONDS, pooled=False
        )
        self._seconds = settings.schema_deadline_seconds
        self._deadline = time.monotonic() + self._seconds
        self._config.attributes["deadline"] = self._deadline

    def upgrade(self) -> None:
        """Migrate to the head, one pod at a time; raise `SchemaError` after the deadline.

        The deadline also covers the migration itself, since a slow Postgres looks like a frozen
        one. Run a longer migration by hand: `alembic upgrade head`.
        """
        self._retry("Postgres does not answer, or another migration does not end", self._migrate)

    def wait(self) -> None:
        """Return once the database is at the head or ahead of it; or raise `SchemaError`."""
        self._retry(f"the database was not migrated to {self.head}", self._is_current)

    def _migrate(self) -> bool:
        # Also at the head: env.py repeats the grants, and a role may be new.
        if not self._is_ahead(self._revision()):
            # Only for the deadline, which also applies to env.py's connection in this thread; the
            # session of this transaction never connects.
            with self._database.transaction(deadline=self._deadline):
                command.upgrade(self._config, "head")
        return True

    def _is_current(self) -> bool:
        revision = self._revision()
        return revision == self.head or self._is_ahead(revision)

    def _is_ahead(self, revision: str | None) -> bool:
        if revision is None or revision in self._known:
            return False
        structlog.get_logger().info("schema_is_ahead", revision=revision, head=self.head)
        return True

    def _revision(self) -> str | None:
        with self._database.transaction() as session:
            return _current(session)

    def _retry(self, problem: str, attempt: Callable[[], bool]) -> None:
        logged = False
        while time.monotonic() < self._deadline:
            try:
                if attempt():
                    structlog.get_logger().info("schema_ready", head=self.head)
                    return
            except (Unavailable, OperationalError):
                pass
            if not logged:
                structlog.get_logger().info("schema_waiting", reason=problem)
                logged = True
            time.sleep(RETRY_SECONDS)
        raise SchemaError(f"{problem}; gave up after {self._seconds} s")


def _current(session: Session) -> str | None:
    if not session.execute(_READABLE).scalar_one():
        return None
    revision: str | None = session.execute(_REVISION).scalar_one_or_none()
    return revision


def main(arguments: list[str]) -> None:
    """Run `upgrade` or `wait`; an error is one sentence on stderr and exit code 78."""
    if arguments not in (["upgrade"], ["wait"]):
        exit_with_error("schema", SchemaError("the commands are `upgrade` and `wait`"))
    try:
        settings = load(MigrationSettings)
        log.configure("migrate")
        getattr(Schema(settings), arguments[0])()
    except (SettingsError, SchemaError, CommandError) as error:
        exit_with_error("schema", error)
    except DBAPIError as error:
        # The first line names the violated rule, never a row's content.
        exit_with_error("schema", SchemaError(str(error.orig).partition("\n")[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
