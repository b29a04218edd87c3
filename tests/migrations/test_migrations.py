"""The migration history: upgrade, downgrade, concurrency, and equality with the models."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from pydantic import SecretStr
from sqlalchemy import inspect
from sqlalchemy.exc import OperationalError

from support.locks import MIGRATION, WAITERS, held
from support.rows import query
from support.waiting import until
from valence_common.db import make_engine
from valence_common.models import Base

ROOT = Path(__file__).parents[2]


def config(url: str) -> Config:
    alembic = Config(toml_file=ROOT / "pyproject.toml")
    alembic.attributes["database_url"] = SecretStr(url)
    return alembic


def revisions() -> list[str]:
    """Return the numbers of all revisions, oldest first."""
    script = ScriptDirectory.from_config(config("postgresql://nowhere"))
    return [revision.revision for revision in script.walk_revisions()][::-1]


def tables(url: str) -> set[str]:
    engine = make_engine(SecretStr(url))
    names = set(inspect(engine).get_table_names())
    engine.dispose()
    return names


def dump(url: str) -> list[tuple[object, ...]]:
    """Return the columns, constraints and indexes of the schema."""
    return query(
        url,
        "SELECT table_name, column_name, data_type || is_nullable || coalesce(column_default, '')"
        " FROM information_schema.columns WHERE table_schema = 'public'"
        " UNION ALL SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)"
        " FROM pg_constraint WHERE connamespace = 'public'::regnamespace"
        " UNION ALL SELECT tablename, indexname, indexdef FROM pg_indexes"
        " WHERE schemaname = 'public' ORDER BY 1, 2, 3",
    )


def upgrade_process(url: str) -> "subprocess.Popen[bytes]":
    """Start `alembic upgrade head` as an operator runs it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("VALENCE_")}
    return subprocess.Popen(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        cwd=ROOT,
        env=environment | {"VALENCE_DATABASE_URL": url},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def test_up_down_up(empty_database_url: str) -> None:
    """Every revision can be downgraded, leaves nothing, and upgrades to the same schema again."""
    alembic = config(empty_database_url)
    command.upgrade(alembic, "head")
    first = dump(empty_database_url)
    command.downgrade(alembic, "base")
    assert {"alembic_version"} == tables(empty_database_url)
    functions = "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
    assert [] == query(empty_database_url, functions)
    for revision in revisions():
        command.upgrade(alembic, revision)
    assert first == dump(empty_database_url)


def test_migrations_make_what_the_models_say(own_database_url: str) -> None:
    """Autogenerate would write an empty revision; it ignores the partitions."""
    engine = make_engine(SecretStr(own_database_url))
    options = {
        "compare_type": True,
        "compare_server_default": True,
        "include_name": lambda name, kind, _: (
            not (kind == "table" and str(name).startswith("predictions_"))
        ),
    }
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        assert [] == compare_metadata(context, Base.metadata)
    engine.dispose()


def test_checks_and_foreign_keys_are_those_of_the_models(
    own_database_url: str, empty_database_url: str
) -> None:
    """Autogenerate does not compare CHECK constraints and ON DELETE rules."""
    engine = make_engine(SecretStr(empty_database_url))
    Base.metadata.create_all(engine)
    engine.dispose()
    constraints = (
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace AND contype IN ('c', 'f') AND conparentid = 0"
        " AND conrelid::regclass::text !~ '^predictions_' ORDER BY 1, 2"
    )
    assert query(empty_database_url, constraints) == query(own_database_url, constraints)


def test_revisions_are_numbered_without_gaps_to_one_head() -> None:
    """0001, 0002, …: the files are in the order in which they run."""
    numbers = revisions()
    assert [f"{n:04}" for n in range(1, len(numbers) + 1)] == numbers
    files = sorted(path.name for path in (ROOT / "alembic/versions").glob("*.py"))
    assert numbers == [name[:4] for name in files]
    assert all(re.fullmatch(r"\d{4}_[a-z0-9_]+\.py", name) for name in files)


def test_case_046_concurrent_upgrades_make_one_schema(empty_database_url: str) -> None:
    """Three processes on an empty database, then one at the head: all succeed, one at a time."""
    for count in (3, 1):
        running = [upgrade_process(empty_database_url) for _ in range(count)]
        errors = [process.communicate(timeout=120)[1] for process in running]
        assert [0] * count == [process.returncode for process in running], errors
        assert [(revisions()[-1],)] == query(
            empty_database_url, "SELECT version_num FROM alembic_version"
        )


def test_migration_waits_for_another_but_not_for_a_table_in_use(
    own_database_url: str, empty_database_url: str
) -> None:
    """Waiting for a table's lock is limited, because all later queries would wait behind it."""
    migrated, migrating = empty_database_url, own_database_url
    command.upgrade(config(migrated), "head")
    with held(migrating, MIGRATION):
        waiter = upgrade_process(migrating)
        until(lambda: query(migrating, WAITERS), timeout=30)
        with (
            held(migrated, "LOCK TABLE users IN ACCESS SHARE MODE"),
            pytest.raises(OperationalError, match="lock timeout"),
        ):
            command.downgrade(config(migrated), "base")
        assert waiter.poll() is None
    assert 0 == waiter.wait(30)
    assert [(revisions()[-1],)] == query(migrated, "SELECT version_num FROM alembic_version")


def partitions(url: str) -> dict[str, str]:
    rows = query(
        url,
        "SELECT inhrelid::regclass::text, pg_get_expr(relpartbound, pg_class.oid) FROM pg_inherits"
        " JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = 'predictions'::regclass",
    )
    return dict(rows)


def test_partitions_are_created_once_for_the_next_months(own_database_url: str) -> None:
    """A call for six months creates the missing ones; a second call creates none."""
    before = partitions(own_database_url)
    assert 5 == len(before)  # this month, three ahead, and the default
    make = "SELECT valence_make_partitions(6)"
    assert [(3,)] == query(own_database_url, make)
    assert [(0,)] == query(own_database_url, make)
    after = partitions(own_database_url)
    assert before.items() < after.items()
    assert 8 == len(after)
    ends = [re.findall(r"'(\d{4}-\d{2})-01 00:00:00", bound) for bound in after.values()]
    assert {2} == {len(pair) for pair in ends if pair}


def test_rows_go_to_their_month_or_to_the_default(own_database_url: str) -> None:
    """No prediction is rejected for its date; early rows of a month stay in the default."""
    user = "00000000-0000-7000-8000-000000000001"
    query(
        own_database_url,
        "INSERT INTO users (id, username, username_key, email, email_key, password_hash)"
        " VALUES (:id, 'u', 'u', 'e', 'e', '!')",
        id=user,
    )
    insert = (
        "INSERT INTO predictions (id, user_id, created_at, text, sentiment, confidence,"
        " low_confidence, model) VALUES (gen_random_uuid(), :user, {}, 'text', 'positive', 1,"
        " false, 'm') RETURNING tableoid::regclass::text"
    )
    [(current,)] = query(own_database_url, insert.format("now()"), user=user)
    assert re.fullmatch(r"predictions_\d{4}_\d{2}", current)
    for stray in ("now() - interval '5 years'", "now() + interval '5 months'"):
        [(table,)] = query(own_database_url, insert.format(stray), user=user)
        assert "predictions_default" == table
    assert [(2,)] == query(own_database_url, "SELECT valence_make_partitions(6)")
    assert [(3,)] == query(own_database_url, "SELECT count(*) FROM predictions")
