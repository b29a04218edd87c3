"""The schema at start-up: one container migrates it, all others wait for it."""

from pathlib import Path

import pytest

from support.locks import MIGRATION, WAITERS, held
from support.roles import RoleDatabase
from support.rows import execute, query
from support.servers import FragilePostgres
from support.waiting import until


def test_case_046_all_start_at_once(role_database: RoleDatabase) -> None:
    """Three processes upgrade an empty database and two wait: one migrates, all succeed."""
    waiting = [role_database.start("wait", role) for role in ("inference", "worker")]
    upgrading = [role_database.start("upgrade", "owner") for _ in range(3)]
    outputs = [process.communicate(timeout=90)[0] for process in waiting + upgrading]
    assert [process.returncode for process in waiting + upgrading] == [0] * 5, outputs
    assert sum("Running upgrade  -> 0001" in output for output in outputs) == 1


def test_waiting_ends_with_a_sentence(role_database: RoleDatabase) -> None:
    code, output = role_database.run("wait", "worker", SCHEMA_DEADLINE_SECONDS="2")
    assert code == 78
    assert "the database was not migrated" in output


def test_postgres_away_ends_with_a_sentence(role_database: RoleDatabase) -> None:
    url = "postgresql://nobody:some-password@127.0.0.1:1/none"
    for command in ("upgrade", "wait"):
        code, output = role_database.run(
            command, "owner", DATABASE_URL=url, SCHEMA_DEADLINE_SECONDS="2"
        )
        assert (code, "gave up after 2 s" in output) == (78, True), output
        assert "some-password" not in output


def test_waiting_for_another_migration_ends_with_a_sentence(role_database: RoleDatabase) -> None:
    """A migration that never ends blocks no pod for ever, and no pod leaves a session behind."""
    with held(role_database.url, MIGRATION):
        code, output = role_database.run("upgrade", "owner", SCHEMA_DEADLINE_SECONDS="3")
        assert (78, True) == (code, "another migration does not end; gave up after 3 s" in output)
        assert [] == query(role_database.url, WAITERS)


@pytest.mark.faults
def test_postgres_that_freezes_ends_with_a_sentence(tmp_path: Path) -> None:
    """A server that neither answers nor closes the connection is given up at the deadline."""
    with FragilePostgres(tmp_path) as postgres:
        role_database = RoleDatabase(postgres.url())
        with held(role_database.url, MIGRATION):
            settings = {"DATABASE_URL": role_database.url, "SCHEMA_DEADLINE_SECONDS": "6"}
            upgrading = role_database.start("upgrade", "owner", **settings)
            until(lambda: query(role_database.url, WAITERS), timeout=30)
            with postgres.frozen():
                output, _ = upgrading.communicate(timeout=30)
    assert (78, True) == (upgrading.returncode, "gave up after 6 s" in output), output


def test_case_048_a_newer_schema_is_accepted(role_database: RoleDatabase) -> None:
    """After a rollback the older release finds a revision that it does not know."""
    assert role_database.run("upgrade", "owner")[0] == 0
    execute(role_database.url, "UPDATE alembic_version SET version_num = '9999'")
    for command, role in (("upgrade", "owner"), ("wait", "worker")):
        code, output = role_database.run(command, role)
        assert (code, "schema_is_ahead" in output) == (0, True), output
