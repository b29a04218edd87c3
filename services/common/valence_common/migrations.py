"""Database migrations at start-up: one container migrates, all others wait until it has.

`python -m valence_common.migrations upgrade` migrates to the head of this release; `… wait` returns
once the database is at that head. Both accept a revision that this release does not know: it
belongs to a newer release, and code N-1 works with schema N, so a rollback starts.
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

# Between the first revision and the grants after the last one, a service's role may not read it.
_READABLE = text(
    "SELECT coalesce(has_table_privilege(to_regclass('alembic_version'), 'SELECT'), false)"
)
_REVISION = text("SELECT version_num FROM alembic_version")


class SchemaError(Exception):
    """The schema is not, and will not be, what this release needs: one sentence for operators."""


class Schema:
    """The migration history of this release, and the database that follows it."""

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
        """Migrate to the head, in turn with other pods; raises `SchemaError` past the deadline.

        The deadline is for the migration too, for a Postgres that answers late cannot be told from
        one that never will. What takes longer is run by hand: `alembic upgrade head`.
        """
        self._until("Postgres does not answer, or another migration does not end", self._migrate)

    def wait(self) -> None:
        """Return once the database is at the head or ahead of it; else raises `SchemaError`."""
        self._until(f"nobody has migrated the database to {self.head}", self._is_current)

    def _migrate(self) -> bool:
        # Also at the head: env.py grants anew what the roles may do, and a role may be new.
        if not self._is_ahead(self._revision()):
            # A transaction for its deadline alone, which holds for env.py's connection in this
            # thread; its own session connects to nothing.
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

    def _until(self, complaint: str, attempt: Callable[[], bool]) -> None:
        waiting = False
        while time.monotonic() < self._deadline:
            try:
                if attempt():
                    structlog.get_logger().info("schema_ready", head=self.head)
                    return
            except (Unavailable, OperationalError):
                pass
            if not waiting:
                structlog.get_logger().info("schema_waiting", reason=complaint)
                waiting = True
            time.sleep(RETRY_SECONDS)
        raise SchemaError(f"{complaint}; gave up after {self._seconds} s")


def _current(session: Session) -> str | None:
    if not session.execute(_READABLE).scalar_one():
        return None
    revision: str | None = session.execute(_REVISION).scalar_one_or_none()
    return revision


def main(arguments: list[str]) -> None:
    """Run one of the two commands; what goes wrong is one sentence on stderr and exit code 78."""
    if arguments not in (["upgrade"], ["wait"]):
        exit_with_error("schema", SchemaError("the commands are `upgrade` and `wait`"))
    try:
        settings = load(MigrationSettings)
        log.configure("migrate")
        getattr(Schema(settings), arguments[0])()
    except (SettingsError, SchemaError, CommandError) as error:
        exit_with_error("schema", error)
    except DBAPIError as error:
        # The driver's first line names the rule that Postgres holds us to, never a row.
        exit_with_error("schema", SchemaError(str(error.orig).partition("\n")[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
